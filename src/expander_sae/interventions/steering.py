"""Letting a model write with features turned up or down, beside what it writes without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import a_text
from expander_sae.errors import ExpanderError
from expander_sae.interventions.attached import attach
from expander_sae.interventions.edits import Edit
from expander_sae.means import Patience

SHOWN = 10
"""Tokens in the table of what is likelier and less likely."""
COLDEST = 1e-6
"""Temperature; logits that are divided by less overflow."""


@dataclass(frozen=True)
class NextToken:
    """How likely the model finds a token right behind the prompt."""

    token: int
    text: str
    without: float
    steered: float


@dataclass(frozen=True)
class Steered:
    """What the model writes behind a prompt."""

    prompt: str
    without: str
    steered: str
    next_tokens: list[NextToken]
    """The tokens whose probability changed most, by how much."""


@torch.no_grad()
def steer(
    language_model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    edits: Mapping[str, Iterable[Edit]],
    prompt: str,
    *,
    tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    keep_error: bool = True,
    listen: Callable[[str, str], bool | None] = lambda side, text: None,
) -> Steered:
    """Go on from a prompt twice, without the edits and with them; at temperature 0 the likeliest token is taken.

    `listen` is told what is written as it comes, as ("without" or "steered", text); when it gives back True, the model
    stops writing there.
    """
    if tokens < 1 or not (temperature == 0 or temperature >= COLDEST):
        raise ExpanderError(
            f"tokens must be at least 1, and temperature 0 or at least {COLDEST:g}, not {tokens} and {temperature}."
        )
    ids = prompt_ids(language_model, prompt)
    room = None if language_model.context is None else language_model.context - ids.shape[1]
    if room is not None and tokens > room:
        raise ExpanderError(
            f"{language_model.name} reads at most {language_model.context} tokens, {ids.shape[1]} of them are the "
            f"prompt, so at most {room} can be written, not {tokens}."
        )
    edited = {name: list(some) for name, some in edits.items()}
    plain, before = _written(language_model, ids, tokens, temperature, seed, lambda text: listen("without", text))
    with attach(language_model, saes, edits=edited, keep_error=keep_error):
        steered, after = _written(language_model, ids, tokens, temperature, seed, lambda text: listen("steered", text))
    return Steered(prompt, plain, steered, _changed(language_model, before, after))


def prompt_ids(language_model: LanguageModel, prompt: str) -> Int[Tensor, "1 length"]:
    """The tokens of a prompt, with what the tokenizer puts in front of a text."""
    a_text("The prompt", prompt)
    ids: Tensor = language_model.tokenizer(prompt, return_tensors="pt")["input_ids"]
    if ids.shape[1] == 0:
        raise ExpanderError("The prompt is empty; give at least a word.")
    if language_model.context is not None and ids.shape[1] >= language_model.context:
        raise ExpanderError(
            f"The prompt has {ids.shape[1]} tokens, and {language_model.name} reads at most {language_model.context}."
        )
    return ids.to(language_model.device)


class _Streamer:
    """Turns tokens into text as `generate` makes them, and asks whether to go on."""

    def __init__(self, tokenizer: Any, tokens: int, listen: Callable[[str], bool | None]) -> None:
        """Of at most so many tokens, if they can be had in time."""
        self._tokenizer, self._tokens, self._listen, self._told = tokenizer, tokens, listen, ""
        self._patience = Patience()
        self._ids: list[int] = []
        self.stopped = self._begun = False

    def put(self, ids: Tensor) -> None:
        """Called with the prompt first, then with every token."""
        if not self._begun:
            self._begun = True
            return
        if self.stopped:
            return  # `generate` looks at its stopping criteria one token later
        self._ids += ids.flatten().tolist()
        self._patience.check("Writing", len(self._ids), self._tokens)
        self._tell(self.text.rstrip("\ufffd"))  # what is no whole character yet is told when it is

    def end(self) -> None:
        """Called when all is written, with half a character at the end perhaps."""
        if len(self._told) < len(self.text):
            self._tell(self.text)

    def _tell(self, text: str) -> None:
        self.stopped = bool(self._listen(text[len(self._told) :]))
        self._told = text

    @property
    def text(self) -> str:
        """All that was written."""
        written: str = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return written


def _written(
    language_model: LanguageModel,
    ids: Int[Tensor, "1 length"],
    tokens: int,
    temperature: float,
    seed: int,
    listen: Callable[[str], bool | None],
) -> tuple[str, Float[Tensor, " vocabulary"]]:
    """What the model writes, and its probabilities for the first token of it."""
    model: Any = language_model.model
    streamer = _Streamer(language_model.tokenizer, tokens, listen)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, streamer=streamer, output_logits=True,
            return_dict_in_generate=True, pad_token_id=0, stopping_criteria=[lambda *_: _all(ids, streamer.stopped)],
            logits_processor=[_finite], **sampling,
        )  # fmt: skip
    return streamer.text, made.logits[0][0].float().softmax(dim=-1).cpu()


def _finite(_: Tensor, logits: Float[Tensor, "rows vocabulary"]) -> Tensor:
    """The same, unless the model has no answer because an edit was beyond what its numbers hold."""
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise ExpanderError("The edits are so strong that the model's numbers overflow; take smaller strengths.")
    return logits


def _all(ids: Tensor, stopped: bool) -> Tensor:
    """The answer of a stopping criterion for every row."""
    return torch.full((len(ids),), stopped, dtype=torch.bool, device=ids.device)


def _changed(
    language_model: LanguageModel, before: Float[Tensor, " vocabulary"], after: Float[Tensor, " vocabulary"]
) -> list[NextToken]:
    """The tokens whose probability changed most."""
    largest = (after - before).abs().topk(min(SHOWN, len(before))).indices.tolist()
    return [
        NextToken(token, language_model.tokenizer.decode([token]), float(before[token]), float(after[token]))
        for token in sorted(largest, key=lambda token: float(before[token] - after[token]))
    ]
