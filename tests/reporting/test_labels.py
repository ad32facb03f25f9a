"""Labels keep out of each other's way and stay near what they name."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from expander_sae.reporting.labels import Box, Label, place_beside, place_beside_any, spread

heights = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(wanted=heights, gap=st.floats(1, 12))
def test_spread_keeps_distance_order_and_limits(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap, 0, 100)
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    steps = [places[above] - places[below] for below, above in pairwise(order)]
    assert all(step >= gap - 1e-6 for step in steps)
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)  # 8 labels, 12 apart, always have room


def test_spread_leaves_alone_what_has_room() -> None:
    assert spread([10, 90, 50], 12, 0, 100) == [10, 90, 50]


def test_labels_that_want_the_same_place_share_it_fairly() -> None:
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]


@settings(deadline=None, max_examples=100)
@example(points=[(260.0, 0.0), (285.0, 0.0), (276.0, 0.0), (286.0, 0.0)])
@given(points=st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=6))
def test_names_beside_points_never_cover_each_other(points: list[tuple[float, float]]) -> None:
    frame = Box(-200, -200, 1200, 1200)
    labels = [Label(x, y, 80, 12) for x, y in points]
    boxes = place_beside(labels, [], frame, 5)
    for number, box in enumerate(boxes):
        assert all(box.shared(other) == 0 for other in boxes[:number])
        assert box.shared(frame) == box.area


def test_a_name_goes_where_no_point_is() -> None:
    frame, right_of_it = Box(0, 0, 200, 100), Box(110, 40, 190, 60)
    (box,) = place_beside([Label(100, 50, 60, 10)], [right_of_it], frame, 5)
    assert box.right < 100


def test_a_name_with_several_points_goes_to_the_one_with_room() -> None:
    frame, crowd = Box(0, 0, 400, 100), Box(0, 0, 200, 100)
    (box,) = place_beside_any([[Label(100, 50, 60, 10), Label(300, 50, 60, 10)]], [crowd], frame, 5)
    assert box.left > 300
