"""The learning rate: how high it goes, and how it rises and falls over a run."""

from __future__ import annotations

from typing import Protocol

from expander_sae.training.config import TrainConfig


class Schedule(Protocol):
    """What the learning rate of a run depends on besides its peak."""

    @property
    def tokens(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def warm_up(self) -> float: ...

    @property
    def decay(self) -> float: ...


def rate_at(schedule: Schedule, peak: float, tokens: int) -> float:
    """The learning rate of the step that begins after this many tokens: up in a line, flat, down in a line."""
    start, end = schedule.warm_up * schedule.tokens, schedule.decay * schedule.tokens
    rising = (tokens + schedule.batch) / start if start else 1.0  # the first step is one already
    falling = (schedule.tokens - tokens) / end if end else 1.0
    return peak * max(0.0, min(1.0, rising, falling))


def learning_rate_rule(config: TrainConfig, m: int) -> float:
    """The default peak: at n=4608 and d=7 0.01 (0.06 with pursuit), lower with more values per column or more columns.

    Entries of a unit column are of the size 1/sqrt(d), and Adam's steps should be in proportion; the exponents are
    rounded from sweeps by factors of 2 on the residual stream of a 135M model (m=576, k=16, 200k to 600k tokens). Best
    were 0.01 for d=7, 0.006 for 64, 0.002 for dense (576), and with d=7 0.02 for n=1152, 0.01 for 4608 and 18432.
    """
    return learning_rate_for(config.n, m if config.d is None else config.d, config.one_shot)


def learning_rate_for(n: int, d: float, one_shot: bool) -> float:
    """That rule for n columns of d values, with a one-shot coder or a pursuit."""
    at_seven = 0.01 if one_shot else 0.06
    return at_seven * (7 / d) ** 0.4 * (4608 / n) ** 0.25
