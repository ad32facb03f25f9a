"""What a training run is asked for: one frozen record per dictionary, checked as a whole when it is made.

What follows from it where it says nothing stands here too, but for the lengths of columns.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from expander_sae.checks import Count, Decay, Positive, Seed, Share, SomeShare, Weight, check_fields
from expander_sae.coders import OMP, BatchTopK, Candidates, Coder, MatchingPursuit, OneShotCoder, TopK
from expander_sae.dictionaries.expander import TOKENS_FOR_GROUPS
from expander_sae.errors import ExpanderError
from expander_sae.kernels.groups import size_of_first_group
from expander_sae.supports import constructions, named
from expander_sae.training.lengths import LONG_COLUMNS, Lengths
from expander_sae.training.schedule import check_schedule

CODERS: dict[str, type[Coder]] = {"topk": TopK, "batch_topk": BatchTopK, "mp": MatchingPursuit, "omp": OMP}
"""The coders that can be trained with, by the name a config gives them."""
READABLE = "candidates"
"""The coder of the readable objective, which no config names by itself."""
LEARNED = "learned"
"""The construction that is none: rows come from the data and move while training."""
MULTI = 4
"""How many times more features multi_topk looks at."""
MOST_SILENCE = 10_000_000
"""Tokens without firing after which a feature counts as dead at the latest."""
READABLE_SILENCE = 20_000
"""The same with the readable objective, whose dead features begin anew only early in the run."""


@dataclass(frozen=True)
class TrainConfig:
    """One dictionary and how it is trained."""

    n: Count
    """Features."""
    d: Count | None = None
    """Learned values per column; none for a dense dictionary."""
    k: Count = 32
    """Active features per token (on average with batch_topk, at most with mp and omp)."""
    construction: str = "learned"
    """How the support is made: `learned` from data while training, and stored, or by a recipe such as `uniform` or
    `clustered:16` (clusters of 16 coordinates)."""
    start: str | None = None
    """The folder of an autoencoder to start from, of the same n and d: its rows, which stay, its values and biases. So
    an encoder of one product learns on the rows that a pursuit chose (coder topk)."""
    atoms: Count | None = None
    """Make columns of this many learned dense atoms instead of coordinates: one column of each atom alone, the others
    of two or more, at most d on average. Then n can be many times larger: m values an atom, d a column."""
    atoms_from: str | None = None
    """The folder of an autoencoder whose columns are the atoms at the beginning, so that it grows to n features."""
    columns_from: str | None = None
    """The folder of an autoencoder of the same n, dense or not, whose columns learned ones begin as: their largest
    values, in place of those of tokens. So its features are had with d values each."""
    atoms_alone: Share = 0.4
    """Share of the tokens over which atoms of no other run learn alone, before columns are made of them."""
    seed: Seed = 0
    """Of the support and of the starting values."""
    objective: Literal["readable", "fidelity"] | None = None
    """What learned rows and codes are for: `readable` (the default where rows are learned and no coder is named) gives
    features that a person can read, which fire by their own correlation and begin as tokens; `fidelity` (rows that
    move, under omp) explains more. Held out at n=4608, k=16, m=576: with d=7 FVU .417 against .324, but 33 % of what a
    feature does follows from the token alone against 6 %; d=32 FVU .318."""
    coder: Literal["topk", "batch_topk", "mp", "omp"] | None = None
    """How codes are found, in training and afterwards; by default as the objective says (omp for fidelity), for a dense
    dictionary topk. To name one is to leave the readable objective."""
    look: SomeShare | None = None
    """Share of the features that a token looks at, in training and afterwards, those in the groups that it correlates
    most with; by default all. A step among a million features and more takes a fraction of the time, and nearly all
    codes are the same (coder topk, columns of coordinates, in one process on a CPU)."""
    signed: bool = False
    """Allow negative codes."""
    tied: bool = True
    """Let the dictionary be its own encoder."""
    hold_encoder: bool = False
    """Leave the encoder, its atoms and the latent bias as they are where training starts, so that features go on firing
    on what they fire on, and learn what firing adds (with start and no-tied)."""
    latent_bias: bool | None = None
    """Add a learned bias to every feature's correlation; by default wherever the coder can use one."""
    unit_norm: bool | None = None
    """Scale the columns to unit norm after every step; by default with mp and omp, since free norms keep a tied encoder
    from overshooting."""
    stretch: Count | None = None
    """How many times d values the longest of learned columns may have: n d of them are spread over all columns by what
    each explains; by default 8, or 4 with the readable objective from 16 values on. With 1 every column has d; so it
    has with topk and batch_topk, whose columns do not move."""
    move_every: Count = 10
    """Steps between moves of learned rows, or between prunings with the readable objective."""
    move_until: Share = 0.95
    """Share of the tokens after which learned rows stay where they are."""
    prune_until: Share = 0.85
    """Share of the tokens over which the readable objective takes columns from their longest down to d values."""
    candidates: Count | None = None
    """Features per token that may fire when a readable dictionary is read, of which k do; by default a sixteenth
    more than k, a quarter from 16 values on. More explain more and read worse."""
    refit_share: Share = 0.5
    """What the loss under refitted amplitudes counts in the readable objective, beside that of one-shot codes."""
    tokens: Count = 1_000_000
    """Tokens to train on; a store that holds fewer is read again in another order."""
    batch: Count = 1024
    """Tokens per step, over all processes together."""
    shuffle_seed: Seed = 0
    """Of the order of the tokens."""
    learning_rate: Positive | None = None
    """Adam's step size; by default a rule of n and d, see `learning_rate_rule`."""
    warm_up: Share = 0.02
    """Share of the tokens over which the learning rate rises from zero."""
    decay: Share = 0.5
    """Share of the tokens, at the end, over which it falls to zero."""
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    """How long Adam remembers gradients and their squares."""
    clip: Positive = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""
    auxk: Weight | None = None
    """Weight of the loss that revives dead features, 0 for none; by default 1/8, 1/32 for a dense dictionary
    and with the readable objective."""
    auxk_k: Count | None = None
    """Dead features that share in it, per token; by default k/2, or m/2 for a dense dictionary."""
    dead_after: Count | None = None
    """Tokens without firing after which a feature counts as dead; by default 5 % of the run, at most 10 million, or
    20,000 with the readable objective."""
    lift: Weight | None = None
    """How fast a dead feature's latent bias rises until it fires, in learning rates per step; by default 0.7, or 0 (not
    at all) with the readable objective."""
    multi_topk: bool = False
    """Add 1/8 of the loss under 4 k features per token, so that features beyond the k-th learn too (topk only)."""
    average: Decay = 0.0
    """Keep a running average of the weights with this decay per step, and give it back in the end; 0 for none."""
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    """Of the parameters and the arithmetic; bfloat16 only for the matrix products of a dense dictionary."""
    checkpoint_every: Count = 1_000_000
    """Tokens between checkpoints (there is always one on SIGTERM and Ctrl-C)."""
    log_every: Count = 50
    """Steps between rows of metrics."""

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_sizes()
        self._check_objective()
        self._check_coder()
        if self.look is not None:
            self._check_look()
        check_schedule(self)

    def _check_sizes(self) -> None:
        if self.k > self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {self.k}.")
        if self.composed and (not self.learns_rows or self.signed):
            raise ExpanderError(
                "Columns of atoms are learned and have non-negative codes; give d, and leave construction, start and "
                "signed off."
            )
        if self.columns_from is not None and (self.composed or not self.learns_rows):
            raise ExpanderError(
                "Columns that begin as others are learned; give d, and leave construction and atoms off."
            )
        if (self.atoms or 1) > self.n or self.atoms_alone == 1:
            raise ExpanderError(
                f"There can be no more atoms than features, {self.n}, and they are alone for a share of the tokens "
                f"below 1, not {self.atoms} and {self.atoms_alone}."
            )
        if self.d is not None and self.construction != LEARNED:
            if self.construction.partition(":")[0] not in constructions():
                known = ", ".join((LEARNED, *constructions()))
                raise ExpanderError(f"construction must be one of {known}, not {self.construction!r}.")
            named(self.construction)  # refuses a number where there is none

    def _check_objective(self) -> None:
        if self.objective not in (None, "readable", "fidelity"):
            raise ExpanderError(f"objective must be readable or fidelity, not {self.objective!r}.")
        if self.objective == "readable" and not self._can_be_readable:
            raise ExpanderError(
                "The readable objective is for an expander dictionary with learned rows, from no other start, and "
                "has its own coder; choose objective fidelity, or give d and leave construction, start and coder off."
            )
        if not self.readable:
            return
        if not self.tied or self.latent_bias is False or self.unit_norm:
            raise ExpanderError(
                "The readable objective reads codes off the dictionary itself, with a latent bias and free norms; "
                "leave tied, latent_bias and unit_norm alone, or choose objective fidelity or a coder."
            )
        self.make_coder()  # refuses fewer candidates than k

    def _check_coder(self) -> None:
        if self.coder is not None and self.coder not in CODERS:
            raise ExpanderError(f"coder must be one of {', '.join(CODERS)}, not {self.coder!r}.")
        if not self.one_shot and (self.latent_bias or not self.tied):
            raise ExpanderError(
                f"{self.coding} works on the dictionary alone; leave tied on and latent_bias off, or choose coder topk."
            )
        if self.hold_encoder and (self.tied or self.start is None):
            raise ExpanderError("Only an encoder of its own that is there already can be held; give start and no tied.")
        if self.hold_encoder and (self.auxk or self.lift):
            raise ExpanderError("Features that fire on what they fire on are not revived; leave auxk and lift off.")
        if self.multi_topk and self.coding != "topk":
            raise ExpanderError(f"multi_topk widens topk; with {self.coding} leave it off, or choose coder topk.")
        if self.multi_topk and MULTI * self.k > self.n:
            raise ExpanderError(f"multi_topk takes 4 k = {MULTI * self.k} features per token, but there are {self.n}.")
        if self.precision not in ("float32", "float64", "bfloat16"):
            raise ExpanderError(f"precision must be float32, float64 or bfloat16, not {self.precision!r}.")
        if self.precision == "bfloat16" and self.d is not None:
            raise ExpanderError("precision bfloat16 is for dense dictionaries; an expander one trains in float32.")

    def _check_look(self) -> None:
        """Groups are made of some dictionaries only, and every token has at least the first of them to choose from."""
        if self.d is None or self.composed or self.coding != "topk":
            raise ExpanderError(
                f"Under coder topk tokens can look at a share of an expander dictionary's columns of coordinates, not "
                f"of {self.name}; leave look off, or give d and --coder topk without atoms."
            )
        if self.batch < TOKENS_FOR_GROUPS:
            raise ExpanderError(
                f"Groups of features to look at are made for the tokens of a batch, at least {TOKENS_FOR_GROUPS}, not "
                f"{self.batch}; give a larger batch, or leave look off."
            )
        sought = {
            "k": self.k,
            "4 k of multi_topk": MULTI * self.k if self.multi_topk else 0,
            "auxk_k": self.auxk_k or 0 if self.auxk_weight else 0,
        }
        everyones = size_of_first_group(self.n)
        for name, number in sought.items():
            if number > everyones:
                raise ExpanderError(
                    f"Of {self.n} features every token looks at {everyones}, which {name} cannot exceed with look, so "
                    f"not be {number}; give less, or leave look off."
                )

    @property
    def _can_be_readable(self) -> bool:
        return self.learns_rows and self.coder is None

    @property
    def readable(self) -> bool:
        """Whether features are to be read rather than to explain as much as they can."""
        return self._can_be_readable and self.objective != "fidelity"

    @property
    def coding(self) -> str:
        """The name of the coder, the default filled in."""
        if self.readable:
            return READABLE
        return self.coder or ("topk" if self.d is None else "omp")

    @property
    def one_shot(self) -> bool:
        """Whether codes are read off one product, so that an encoder and a latent bias have a meaning."""
        return self.readable or issubclass(CODERS[self.coding], OneShotCoder)

    @property
    def has_latent_bias(self) -> bool:
        """Whether every feature has a bias of its own: by default where codes are read off one product."""
        return self.one_shot if self.latent_bias is None else self.latent_bias

    @property
    def learns_rows(self) -> bool:
        """Whether columns choose their coordinates."""
        return self.d is not None and self.construction == LEARNED and self.start is None

    @property
    def composed(self) -> bool:
        """Whether columns are mixtures of atoms."""
        return self.atoms is not None or self.atoms_from is not None

    @property
    def atoms_alone_until(self) -> float:
        """The share of the tokens after which columns are made of the atoms."""
        return self.atoms_alone if self.composed and self.atoms_from is None else 0.0

    @property
    def degree(self) -> int:
        """Values per column of an expander dictionary, on average."""
        assert self.d is not None
        return self.d

    @property
    def entries(self) -> int:
        """Values of all columns of an expander dictionary."""
        return self.n * self.degree

    def entries_at(self, m: int) -> int:
        """Values of all columns, dense ones too, for activations of width m."""
        return self.n * (m if self.d is None else self.d)

    @property
    def lengths(self) -> Lengths:
        """How long the columns of an expander dictionary may be."""
        return Lengths(
            self.degree, self.stretch, learned=self.learns_rows, readable=self.readable, composed=self.composed,
            one_shot=self.one_shot,
        )  # fmt: skip

    @property
    def lift_rate(self) -> float:
        """How fast a dead feature's latent bias rises, the default filled in."""
        return (0.0 if self.readable or self.hold_encoder else 0.7) if self.lift is None else self.lift

    @property
    def unit_columns(self) -> bool:
        """Whether columns keep unit norm."""
        return (not self.one_shot) if self.unit_norm is None else self.unit_norm

    @property
    def dead_tokens(self) -> int:
        """Tokens of silence that make a feature dead."""
        usual = READABLE_SILENCE if self.readable else max(1, min(MOST_SILENCE, self.tokens // 20))
        return self.dead_after or usual

    @property
    def auxk_weight(self) -> float:
        """What the loss of the dead features counts."""
        usual = 1 / 32 if self.d is None or self.readable else 1 / 8
        usual = 0.0 if self.hold_encoder else usual
        return usual if self.auxk is None else self.auxk

    def revived_together(self, m: int) -> int:
        """How many dead features per token share in their loss."""
        return self.auxk_k or (max(1, m // 2) if self.d is None else max(1, self.k // 2))

    @property
    def idle(self) -> list[str]:
        """Fields that were given a value and change nothing about this dictionary."""
        moves = self.learns_rows and not self.one_shot
        works = {
            "construction": self.d is not None and self.start is None,
            **dict.fromkeys(("stretch", "move_every"), moves or self.readable),
            "move_until": moves,
            **dict.fromkeys(("prune_until", "candidates", "refit_share"), self.readable),
            "atoms_alone": self.composed and self.atoms_from is None,
            "auxk_k": self.auxk_weight > 0,
            "lift": self.has_latent_bias,
        }
        return [
            field.name for field in dataclasses.fields(self)
            if not works.get(field.name, True) and getattr(self, field.name) != field.default
        ]  # fmt: skip

    @property
    def name(self) -> str:
        """What the dictionary is called in tables and folders."""
        kind = "dense" if self.d is None else f"{self.construction.replace(':', '-')}-d{self.d}"
        kind += "" if self.start is None else "-again"
        kind += f"-atoms{self.atoms or ''}" if self.composed else ""
        return f"{kind}-n{self.n}-{self.coding}{self.k}" + ("" if self.seed == 0 else f"-seed{self.seed}")

    def make_coder(self) -> Coder:
        """The coder itself."""
        if self.readable:
            usual = self.k + self.k // (4 if self.degree >= LONG_COLUMNS else 16)
            return Candidates(self.k, self.candidates or usual, self.signed)
        if self.look is not None:
            return TopK(self.k, self.signed, self.look)
        return CODERS[self.coding](k=self.k, signed=self.signed)  # type: ignore[call-arg]  # each of them takes both

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON holds it."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}


def width_matched(config: TrainConfig, m: int) -> TrainConfig:
    """A dense dictionary with as many learned values in fewer columns: the control for what the support itself does."""
    if config.d is None:
        raise ExpanderError("Only an expander dictionary has a width-matched dense one; give d.")
    if config.composed and config.atoms is None:
        raise ExpanderError("How wide a dense dictionary of as many values is depends on the atoms; say how many.")
    columns = round(config.n * config.d / m) + (config.atoms or 0)
    return dataclasses.replace(config, d=None, objective=None, atoms=None, atoms_from=None, columns_from=None,
                               n=max(config.k, columns))  # fmt: skip


def check_width(config: TrainConfig, m: int) -> None:
    """Refuse a dictionary that activations of width m cannot have."""
    if config.d is not None and not config.composed and config.d > m:
        raise ExpanderError(f"d must be between 1 and the width of the activations, {m}, not {config.d}.")
