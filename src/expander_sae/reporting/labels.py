"""Where labels go so that none covers another, a point, or what lies outside the picture. Lengths are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Its own."""
        return (self.right - self.left) * (self.top - self.bottom)


class Label(NamedTuple):
    """A text of this size that belongs to a point."""

    x: float
    y: float
    width: float
    height: float


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, as near to the wanted ones as can be; between low and high if there is room."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    groups: list[list[int]] = []  # of labels that touch, each group centred on what its labels want
    for number in order:
        groups.append([number])
        while len(groups) > 1 and _end(groups[-2], wanted, gap) + gap > _start(groups[-1], wanted, gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = dict[int, float]()
    for group in groups:
        start = _start(group, wanted, gap)
        places |= {number: start + step * gap for step, number in enumerate(group)}
    return _within([places[number] for number in range(len(wanted))], order, gap, low, high)


def _start(group: list[int], wanted: Sequence[float], gap: float) -> float:
    """Position of the first label of a group."""
    return sum(wanted[number] - step * gap for step, number in enumerate(group)) / len(group)


def _end(group: list[int], wanted: Sequence[float], gap: float) -> float:
    return _start(group, wanted, gap) + (len(group) - 1) * gap


def _within(places: list[float], order: list[int], gap: float, low: float, high: float) -> list[float]:
    """The same positions, pushed back between the limits from above, then from below."""
    ceiling = high
    for number in reversed(order):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - gap
    floor = low
    for number in order:
        places[number] = max(places[number], floor)
        floor = places[number] + gap
    return places


def place_beside(labels: Sequence[Label], obstacles: Sequence[Box], frame: Box, gap: float) -> list[Box]:
    """A box for every label, right, left, above or below its point, wherever it covers the least of anything else."""
    return place_beside_any([[label] for label in labels], obstacles, frame, gap)


def place_beside_any(labels: Sequence[Sequence[Label]], obstacles: Sequence[Box], frame: Box, gap: float) -> list[Box]:
    """The same for labels that may stand at any of several points each."""
    taken: list[Box] = list(obstacles)
    boxes = []
    for places in labels:
        candidates = [
            box for distance in (gap, 2 * gap, 4 * gap, 8 * gap) for place in places for box in _around(place, distance)
        ]
        best = min(candidates, key=lambda box: _cost(box, taken, frame))  # the first of equals
        boxes.append(best)
        taken.append(best)
    return boxes


def _around(label: Label, gap: float) -> list[Box]:
    """Eight places around the point, the most legible first."""
    x, y, width, height = label
    right, left, middle = x + gap, x - gap - width, x - width / 2
    level, above, below = y - height / 2, y + gap, y - gap - height
    corners = [
        (right, level), (left, level), (middle, above), (middle, below),
        (right, above), (right, below), (left, above), (left, below),
    ]  # fmt: skip
    return [Box(corner, bottom, corner + width, bottom + height) for corner, bottom in corners]


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    outside = box.area - box.shared(frame)
    return 10 * outside + sum(box.shared(other) for other in taken)
