"""Finite fields: every axiom, exhaustively on small orders and sampled on larger ones."""

import numpy as np
import pytest

from expander_sae.supports.fields import as_prime_power, field, smallest_prime_power


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7, 8, 9, 11, 16, 25, 27])
def test_axioms_hold_for_all_triples(order):
    galois = field(order)
    elements = np.arange(order, dtype=np.int64)
    a, b, c = (grid.ravel() for grid in np.meshgrid(elements, elements, elements, indexing="ij"))
    check_axioms(galois, a, b, c)


@pytest.mark.parametrize("order", [49, 81, 121, 128, 256, 289, 293, 343, 1024])
def test_axioms_hold_for_sampled_triples(order):
    a, b, c = np.random.default_rng(order).integers(0, order, size=(3, 2000))
    check_axioms(field(order), a, b, c)


def check_axioms(galois, a, b, c):
    add, multiply = galois.add, galois.multiply
    assert (add(a, b) == add(b, a)).all()
    assert (multiply(a, b) == multiply(b, a)).all()
    assert (add(add(a, b), c) == add(a, add(b, c))).all()
    assert (multiply(multiply(a, b), c) == multiply(a, multiply(b, c))).all()
    assert (multiply(a, add(b, c)) == add(multiply(a, b), multiply(a, c))).all()
    assert (add(a, np.zeros_like(a)) == a).all()
    assert (multiply(a, np.ones_like(a)) == a).all()
    assert (galois.subtract(add(a, b), b) == a).all()


@pytest.mark.parametrize("order", [2, 4, 9, 49, 128, 289, 293])
def test_multiplication_by_a_nonzero_element_is_a_bijection(order):
    galois = field(order)
    elements = np.arange(order, dtype=np.int64)
    for factor in range(1, order):
        assert np.unique(galois.multiply(elements, np.full(1, factor))).size == order


def test_prime_powers_are_recognised():
    expected = [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29, 31, 32, 37, 41, 43, 47, 49]
    assert [number for number in range(51) if as_prime_power(number)] == expected
    assert as_prime_power(289) == (17, 2)
    assert smallest_prime_power(284) == 289
    assert smallest_prime_power(293) == 293
    with pytest.raises(ValueError, match="6 is not a prime power"):
        field(6)
