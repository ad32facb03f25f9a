"""How long a run is, how large its steps are, and when it is written down: what every learner is asked for."""

from __future__ import annotations

from typing import Protocol

from expander_sae.errors import ExpanderError


class Schedule(Protocol):
    """What the run of any learner is asked for: its length, the size of its steps, and when it is written down."""

    @property
    def tokens(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def learning_rate(self) -> float | None: ...
    @property
    def warm_up(self) -> float: ...
    @property
    def decay(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def clip(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def log_every(self) -> int: ...


def check_schedule(asked: Schedule) -> None:
    """Refuse a rate that would have to rise and fall at once."""
    if asked.warm_up + asked.decay > 1:
        raise ExpanderError(
            f"warm_up and decay must be shares that add up to at most 1, not {asked.warm_up} and {asked.decay}."
        )


def rate_at(schedule: Schedule, peak: float, tokens: int) -> float:
    """The learning rate of the step that begins after this many tokens: up in a line, flat, down in a line."""
    start, end = schedule.warm_up * schedule.tokens, schedule.decay * schedule.tokens
    rising = (tokens + schedule.batch) / start if start else 1.0  # the first step is one already
    falling = (schedule.tokens - tokens) / end if end else 1.0
    return peak * max(0.0, min(1.0, rising, falling))
