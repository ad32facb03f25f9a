"""A listener that writes down what an experiment tells it."""


class Notebook:
    """What was announced, counted and ended."""

    live = False

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.total: int | None = None
        self.counted: list[int] = []
        self.outcomes: list[str] = []

    def begins(self, stage: str, what: str, total: int | None) -> None:
        self.stages.append(stage)
        self.total = total

    def proceeds(self, done: int) -> None:
        self.counted.append(done)

    def ends(self, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)
