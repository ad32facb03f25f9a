"""Causal language models of Hugging Face, from the cache, a folder or the hub, or one sentence that says why not."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from expander_sae.activations.packaged import PACKAGED, fetch_packaged, packaged_folder, quiet_transformers
from expander_sae.errors import ExpanderError, require
from expander_sae.means import device_named, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMOLLM2 = "smollm2"
"""The name of the default model, which needs no hub."""

Precision = Literal["float32", "bfloat16"]
"""Arithmetic that commands let a model run in, by name: what torch calls the dtype."""

_HUB_NAME = re.compile(r"(?!\.|~)[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model that is ready to be read: in eval mode, no parameter wants a gradient."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None
    """The commit on the hub, pinned or found; for a GGUF file, as packages have, its hash; None for a local folder."""
    folder: Path | None
    """The folder that it was read from; None for a GGUF file, or if the hub's cache has it."""
    width: int
    """Size of the residual stream."""
    vocabulary: int
    """Rows of the embedding; some tokenizers use fewer."""
    context: int | None
    """Most positions the model was made for; None if its config names no limit."""

    @property
    def device(self) -> torch.device:
        """Where the model's inputs have to be."""
        return self.model.device

    @property
    def precision(self) -> str:
        """The arithmetic that it runs in: the dtype of its parameters, or the several of some models."""
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))

    @property
    def parameters(self) -> int:
        """Number of parameters, those that two layers share counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_language_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    fetch: bool = False,
) -> LanguageModel:
    """The model and its tokenizer, on the GPU if there is one unless `device` says otherwise.

    The name is one of `PACKAGED` (which `fetch` allows to be downloaded), a folder, a GGUF file, or a name on the hub,
    where `name@revision` asks for a commit, a tag or a branch. Folders and files are read without any network.
    """
    require("transformers", "accelerate")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    name, revision = _name_and_revision(os.fspath(name_or_path))
    place = device_named(device)
    file = _gguf_file(name)
    folder = _folder(name, fetch) if file is None else file.parent
    location, local = (name, False) if folder is None else (str(folder), True)
    where: dict[str, Any] = {"local_files_only": local, **({} if file is None else {"gguf_file": file.name})}
    with _quietly(file) if local else nullcontext():
        with _explained(name):
            config = AutoConfig.from_pretrained(location, **where, **_pin(revision))
        # The rest comes from the same commit, even if the hub gets a new one in between.
        revision = getattr(config, "_commit_hash", None) or revision
        _check_causal(name, config)
        with _explained(name, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(location, **where, **_pin(revision))
        with _explained(name):
            model, loading = AutoModelForCausalLM.from_pretrained(
                location, config=config, dtype=dtype, output_loading_info=True, **where, **_pin(revision)
            )
    if loading["missing_keys"]:
        raise ExpanderError(
            f"The weights of {name} lack {sorted(loading['missing_keys'])[0]} (and {len(loading['missing_keys']) - 1} "
            "more), which would be left random; give a whole causal language model."
        )
    text = config.get_text_config()
    return LanguageModel(
        model=model.to(place).eval().requires_grad_(False),
        tokenizer=tokenizer,
        name=name,
        revision=_hash_of(file) if file is not None else PACKAGED[name].sha256 if name in PACKAGED else revision,
        folder=folder if file is None else None,
        width=text.hidden_size,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        context=getattr(text, "max_position_embeddings", None),
    )


def name_of(origin: Mapping[str, Any]) -> str:
    """What to load to get the model that an origin tells of, at its revision if it has one on the hub."""
    name, revision = origin["model"], origin["revision"]
    on_hub = name not in PACKAGED and not Path(name).expanduser().exists()
    return f"{name}@{revision}" if on_hub and revision else name


def cross_entropy(language_model: LanguageModel, text: str) -> float:
    """Mean nats per predicted token of the text, begun as the tokenizer begins one; a quick check of a model."""
    encoded = language_model.tokenizer(text, return_tensors="pt")
    ids = encoded["input_ids"].to(language_model.device)
    if ids.shape[1] < 2:
        raise ExpanderError("Cross-entropy needs a text of at least 2 tokens.")
    with torch.no_grad():
        logits = language_model.model(input_ids=ids, use_cache=False).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[:-1].float(), ids[0, 1:]))


def _name_and_revision(given: str) -> tuple[str, str | None]:
    """The name, and what stands behind its last @ if that is a name on the hub."""
    name, at, revision = given.rpartition("@")
    if not at or Path(given).expanduser().exists() or not _HUB_NAME.fullmatch(name):
        return given, None
    if name in PACKAGED:
        raise ExpanderError(f"{name} comes from a package and has one version only; leave the @ and what follows out.")
    if not re.fullmatch(r"[\w./-]+", revision):
        raise ExpanderError(f"{given} names no revision behind the @; give a commit, a tag or a branch of {name}.")
    return name, revision


def _pin(revision: str | None) -> dict[str, str]:
    """What tells transformers the revision; nothing if there is none."""
    return {} if revision is None else {"revision": revision}


def _gguf_file(name: str) -> Path | None:
    """The GGUF file that the name means, if it means one; its weights are read as floats, whatever they are in it."""
    path = Path(name).expanduser()
    if path.suffix != ".gguf" or not path.is_file():
        return None
    require("gguf")
    return path.absolute()


@contextmanager
def _quietly(file: Path | None) -> Iterator[None]:
    """Without what transformers says of local models; the reader of GGUF files draws its bar past its switches."""
    with quiet_transformers(), nullcontext() if file is None else redirect_stderr(io.StringIO()):
        yield


def _hash_of(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _folder(name: str, fetch: bool) -> Path | None:
    """The folder that the name means, or None if it is a name on the hub."""
    if name in PACKAGED:
        found = fetch_packaged(name) if fetch else packaged_folder(name)
        if found is None:
            raise ExpanderError(f"{name} was not fetched yet; run `expander model {name}` once, with a network.")
        return found
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ExpanderError(f"The folder {name} has no config.json; give a folder that save_pretrained() wrote.")
        return path
    if path.exists():
        raise ExpanderError(
            f"{name} is a file, but a model is a folder that save_pretrained() wrote, or a .gguf file; give one."
        )
    if not _HUB_NAME.fullmatch(name):
        raise ExpanderError(
            f"There is no folder {name!r}; give the folder of a model, a name on the Hugging Face hub, or "
            f"{' or '.join(PACKAGED)}."
        )
    return None


def _check_causal(name: str, config: Any) -> None:
    """Refuse what would load with a head that was never trained, or not at all."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    architectures = config.architectures or []
    if config.model_type not in CAUSAL or (architectures and not set(architectures) & set(CAUSAL.values())):
        kind = architectures[0] if architectures else config.model_type
        raise ExpanderError(f"{name} is a {kind}, not a causal language model; give one that predicts the next token.")


@contextmanager
def _explained(name: str, part: str = "model") -> Iterator[None]:
    """Turn what transformers and the hub raise into one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:  # a damaged file may end in any; ImportError names a package that a tokenizer needs
        causes = list(_causes(error))
        for cause in filter(is_out_of_memory, causes):
            raise MemoryError(str(cause)) from error
        if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
            sentence = f"{name} is gated: accept its terms on the Hugging Face hub, then log in with `hf auth login`."
        elif any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
            sentence = f"{name} is neither a folder here nor a public model on the Hugging Face hub; check the name."
        elif any(isinstance(cause, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) for cause in causes):
            here = " or ".join(PACKAGED)
            sentence = f"{name} is no folder here and the Hugging Face hub cannot be reached; give a folder or {here}."
        elif part == "tokenizer":
            sentence = f"{name} has no tokenizer that can be read; save one beside it with tokenizer.save_pretrained()."
        else:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            sentence = f"{name} cannot be loaded as a language model ({reason}); give another model."
        raise ExpanderError(sentence) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and everything it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
