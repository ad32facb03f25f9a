"""Small masks with values missing here and there, and what enumeration says about them."""

from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from expander_sae.certificates.matrix import Mask


@st.composite
def small_masks(draw, whole=False):
    """A mask of up to 8 features on up to 9 coordinates; every feature has a value."""
    m = draw(st.integers(2, 9))
    d = draw(st.integers(1, min(m, 4)))
    line = st.lists(st.integers(0, m - 1), min_size=d, max_size=d, unique=True).map(sorted)
    rows = np.array(draw(st.lists(line, min_size=2, max_size=8)), dtype=np.int32)
    present = np.ones(rows.shape, dtype=bool)
    if not whole:
        present = np.array(draw(st.lists(st.lists(st.booleans(), min_size=d, max_size=d), min_size=len(rows),
                                         max_size=len(rows))))  # fmt: skip
        present[np.arange(len(rows)), draw(st.integers(0, d - 1))] = True
    return Mask.of(rows, present, m)


def sets_of(mask, feature):
    """The coordinates of a feature."""
    return {int(coordinate) for coordinate in mask.rows[feature] if coordinate >= 0}


def subsets(features):
    for size in range(1, len(features) + 1):
        yield from combinations(features, size)


def is_stopping(mask, features):
    touched = [coordinate for feature in features for coordinate in sets_of(mask, feature)]
    return all(touched.count(coordinate) > 1 for coordinate in touched)


def neighbours(mask, features):
    return set().union(*(sets_of(mask, feature) for feature in features))
