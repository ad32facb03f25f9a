"""Certificates as a whole: what is proved, refuted, open or measured about dictionaries of which that is known."""

import json

import pytest
import torch

import expander_sae as xs
from expander_sae.certificates import STATUSES, CertifyConfig, as_text, certify, uniqueness
from expander_sae.certificates import pursuit as pursuits
from expander_sae.certificates.certify import SUPPORT_ONLY
from expander_sae.certificates.matrix import matrix_of
from tests.activations.stores import WIDTH, harvest
from tests.uneven import uneven_support

FAST = {"supports": 50, "restarts": 20}


def dictionary(construction, m=128, n=256, d=7, seed=0, **options):
    """An expander dictionary with random values of one size."""
    return xs.ExpanderDictionary(
        xs.Support.make(construction, m=m, n=n, d=d, seed=seed, **options), generator=torch.Generator().manual_seed(0)
    )


def statuses(certificate):
    return {statement.name: statement.status for statement in certificate.statements}


def test_a_uniform_dictionary_is_certified_by_its_draw():
    certificate = certify(dictionary("uniform", m=576, n=4608), CertifyConfig(k=(16, 60), **FAST))
    draw = certificate[uniqueness.BY_DRAW]
    assert draw.status == "proved"
    assert draw.numbers["k"] == 16
    assert 10 ** draw.numbers["log10_share_of_draws"]["16"] == pytest.approx(7.65e-8, rel=0.01)
    assert "7.7e-08 for k = 16" in draw.sentence
    assert "For k = 60 it proves nothing." in draw.sentence
    assert "not have been chosen" in draw.sentence
    found = certificate[uniqueness.STOPPING_SET]
    assert found.status == "refuted"
    assert 2 * draw.numbers["k"] < found.numbers["size"] == len(found.numbers["features"]) < 200
    assert not [name for name in statuses(certificate) if name.endswith(uniqueness.WITHOUT_SMALL)]


@pytest.mark.parametrize("construction", ["balanced", "lines", "greedy", "cyclic"])
def test_the_draw_says_nothing_about_other_constructions(construction):
    certificate = certify(dictionary(construction, n=200), CertifyConfig(k=(3,), **FAST))
    assert certificate[uniqueness.BY_DRAW].status == "not applicable"
    assert repr(construction) in certificate[uniqueness.BY_DRAW].sentence


def test_flat_lines_have_the_numbers_of_the_theory():
    certificate = certify(dictionary("lines", m=2048, n=16384), CertifyConfig(k=(3,), **FAST))
    assert certificate[uniqueness.ALMOST_ALL].numbers["k"] == 21
    assert certificate[uniqueness.ALMOST_ALL].numbers["k_from_the_largest_overlap_alone"] == 21
    assert certificate[uniqueness.BY_OVERLAPS].numbers == {"k": 3, "no_stopping_set_up_to": 7}
    pursuit = certificate[pursuits.PURSUIT]
    assert (pursuit.status, pursuit.numbers["k"], pursuit.numbers["welch_k"]) == ("proved", 3, 24)
    # Flat columns: eps_t <= (t - 1) / 14, and c = 1 - 2 eps_t.
    constants = certificate[pursuits.SPREADING].numbers["constants"]
    assert constants == pytest.approx({str(size): 1 - (size - 1) / 7 for size in range(1, 7)})
    # 2 eps_k + 4 eps_2k < 1 with these: k = 1 alone gives 0 + 4 / 14.
    assert certificate[pursuits.BASIS_PURSUIT].numbers["k"] == 1


def test_stored_rows_have_no_draw_but_everything_else():
    drawn = dictionary("uniform")
    given = xs.ExpanderDictionary(xs.Support.from_rows(drawn.rows, 128), drawn.values)
    one, other = (statuses(certify(each, CertifyConfig(k=(4,), **FAST))) for each in (drawn, given))
    assert (one.pop(uniqueness.BY_DRAW), other.pop(uniqueness.BY_DRAW)) == ("proved", "not applicable")
    assert one == other


def test_a_shared_support_fails_as_it_must():
    flat = xs.ExpanderDictionary(xs.Support.make("shared", m=64, n=20, d=5), torch.ones(20, 5))
    certificate = certify(flat, CertifyConfig(k=(2,), **FAST))
    found = certificate[uniqueness.STOPPING_SET]
    assert (found.status, found.numbers["size"], found.numbers["k"]) == ("refuted", 2, 1)
    assert "two codes on these features give the same activation" in found.sentence
    assert certificate[uniqueness.BY_OVERLAPS].status == "open"
    assert certificate[pursuits.PURSUIT].status == "refuted"
    assert certificate["pursuit on random sets of 2 (Tropp's condition)"].numbers["passed"] == 0
    assert certificate["unique codes on random sets of 2 (peeling)"].numbers["passed"] == 0
    assert certificate[pursuits.EXPANSION].numbers["epsilon"] == {"2": 0.5, "4": 0.75}


def test_a_draw_with_a_bad_set_is_refuted():
    """A seed chosen for its bad set, say: what nearly all draws have not, this one has."""
    columns = matrix_of(dictionary("uniform", m=576, n=4608), tau=0.01)
    for found, status in ((0, "proved"), (33, "proved"), (32, "refuted")):
        statement = uniqueness.by_draw(columns, columns.mask, 1, (16,), 1e-6, found)
        assert statement.status == status
    assert "This draw has a stopping set of 32 features" in statement.sentence


def test_values_near_zero_are_said_to_weaken_what_is_proved():
    plain = dictionary("uniform", m=576, n=4608)
    with torch.no_grad():
        plain.values[:200, 0] = 1e-5
        plain.values[:50, 1] = 0.0
        plain.values[50] = 0.0
    certificate = certify(plain, CertifyConfig(k=(8,), **FAST))
    numbers = certificate[uniqueness.VALUES].numbers
    assert (numbers["zero"], numbers["near_zero"], numbers["zero_columns"]) == (57, 199, 1)
    assert numbers["columns_by_values_that_count"] == {"0": 1, "5": 50, "6": 149, "7": 4408}
    exact, effective = (certificate[uniqueness.BY_DRAW + suffix] for suffix in ("", uniqueness.WITHOUT_SMALL))
    assert exact.numbers["most_values_lost_by_one_column"] == 1
    assert effective.numbers["most_values_lost_by_one_column"] == 2
    assert effective.numbers["k"] <= exact.numbers["k"] < 16
    for name in (uniqueness.BY_OVERLAPS, uniqueness.ALMOST_ALL):
        assert certificate[name + uniqueness.WITHOUT_SMALL].numbers["k"] <= certificate[name].numbers["k"]


def test_a_dense_dictionary_gets_what_applies():
    dense = xs.DenseDictionary(32, 64, generator=torch.Generator().manual_seed(0))
    certificate = certify(dense, CertifyConfig(k=(2,), **FAST))
    assert statuses(certificate) == {
        uniqueness.ALMOST_ALL: "proved",
        SUPPORT_ONLY: "not applicable",
        pursuits.PURSUIT: "proved",
        "pursuit on random sets of 2 (Tropp's condition)": "measured",
        "conditioning on random sets of 2": "measured",
    }
    assert certificate[uniqueness.ALMOST_ALL].numbers["k"] == 16
    assert certificate[pursuits.PURSUIT].numbers["k"] >= 1


def test_dense_and_expander_agree_where_both_apply():
    """The same matrix, stored with and without its support."""
    sparse = dictionary("uniform", m=32, n=64, d=4)
    dense = xs.DenseDictionary(32, 64, sparse.to_dense().T)
    one, other = (certify(each, CertifyConfig(k=(3,), **FAST)) for each in (sparse, dense))
    for name in (pursuits.PURSUIT, "pursuit on random sets of 3 (Tropp's condition)"):
        assert one[name].status == other[name].status
        assert (
            one[name].numbers["k" if "k" in one[name].numbers else "passed"]
            == (other[name].numbers["k" if "k" in other[name].numbers else "passed"])
        )
    assert one[pursuits.PURSUIT].numbers["babel"] == pytest.approx(other[pursuits.PURSUIT].numbers["babel"], abs=1e-9)


def test_real_codes_are_looked_at_beside_random_ones(tmp_path):
    store = xs.Store.open(harvest(tmp_path / "store"))
    sae = xs.SparseAutoencoder(dictionary("uniform", m=WIDTH, n=12, d=3), xs.OMP(k=2, signed=True))
    certificate = certify(sae, CertifyConfig(tokens=40, **FAST), codes=store)
    assert certificate.k == (2,)
    real = [name for name in statuses(certificate) if "real codes" in name]
    assert len(real) == 4
    trials = certificate[real[0]].numbers["trials"]
    assert 20 < trials <= 40
    assert f"{trials} tokens, 2.0 features each" in real[0]
    assert all(certificate[name].status == "measured" for name in real)
    with torch.no_grad():
        codes = sae.encode(store[0:20].activations.float())
    mine = certify(sae.dictionary, CertifyConfig(k=(2,), **FAST), codes=codes)
    assert any("real codes (20 tokens" in name for name in statuses(mine))


def test_a_certificate_is_reproducible_and_json_holds_it():
    one, again = (certify(dictionary("uniform"), CertifyConfig(k=(3,), **FAST)) for _ in range(2))
    content = one.to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content == again.to_json()
    assert {statement["status"] for statement in content["statements"]} <= set(STATUSES)
    assert content["settings"]["delta"] == 1e-6
    assert all(statement["sentence"].endswith(".") for statement in content["statements"])


def test_the_report_keeps_what_is_proved_apart():
    certificate = certify(dictionary("uniform"), CertifyConfig(k=(3,), **FAST))
    text = as_text(certificate)
    headings = [text.index(heading) for heading in ("PROVED\n", "REFUTED", "MEASURED, not proved")]
    assert headings == sorted(headings)
    for statement in certificate.with_status("measured"):
        assert text.index(f"  {statement.name}\n") > headings[2]
    for statement in certificate.with_status("proved"):
        assert headings[0] < text.index(f"  {statement.name}\n") < headings[1]
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(xs.ExpanderError, match="says nothing about 'love', only about: values that count;"):
        certificate["love"]


def test_progress_is_told_by_stage():
    told = {}
    certify(dictionary("uniform"), CertifyConfig(k=(3,), **FAST), report=lambda *stage: told.update({stage[0]: stage}))
    assert set(told) == {"overlaps", "stopping sets", "bad sets", "coherence", "random sets of 3"}
    assert all(done == total for _, done, total in told.values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": (0,)}, "k must be at least 1"),
        ({"supports": 0}, "supports must be at least 1"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"delta": 1.0}, "delta must be above 0 and below 1"),
        ({"tau": -0.1}, "tau must be from 0"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_impossible_requests_are_refused(change, sentence):
    with pytest.raises(xs.ExpanderError, match=sentence):
        CertifyConfig(**change)


def test_what_cannot_be_certified_is_refused_with_a_sentence():
    plain = dictionary("uniform", n=20)
    codes = xs.Codes(torch.ones(3, 2), torch.tensor([[0, 1]] * 3), 20)
    with pytest.raises(xs.ExpanderError, match="say for which k"):
        certify(plain)
    with pytest.raises(xs.ExpanderError, match="say for which k"):
        certify(xs.SparseAutoencoder(plain, xs.FISTA(0.1)))
    with pytest.raises(xs.ExpanderError, match="not a union of them"):
        certify(xs.Union([plain, plain]), CertifyConfig(k=(2,)))
    composed = xs.ComposedDictionary(xs.DenseDictionary(9, plain.m), plain)
    with pytest.raises(xs.ExpanderError, match=r"certify `dictionary.mixtures`"):
        certify(composed, CertifyConfig(k=(2,)))
    with pytest.raises(xs.ExpanderError, match="Only 20 columns are not zero"):
        certify(plain, CertifyConfig(k=(21,)))
    with pytest.raises(xs.ExpanderError, match=r"below 1 / sqrt\(d\) = 0.378"):
        certify(plain, CertifyConfig(k=(2,), tau=0.4))
    with pytest.raises(xs.ExpanderError, match="for 9 features, the dictionary has 20"):
        certify(plain, CertifyConfig(k=(2,)), codes=xs.Codes(torch.ones(1, 1), torch.zeros(1, 1).long(), 9))
    with pytest.raises(xs.ExpanderError, match="No token of these codes"):
        certify(plain, CertifyConfig(k=(2,)), codes=xs.Codes(torch.zeros(1, 1), torch.zeros(1, 1).long(), 20))
    with torch.no_grad():
        plain.values[0] = 0.0
    with pytest.raises(xs.ExpanderError, match="use a column that is zero"):
        certify(plain, CertifyConfig(k=(2,), **FAST), codes=codes)
    with torch.no_grad():
        plain.values[1, 1] = torch.nan
    with pytest.raises(xs.ExpanderError, match="not finite"):
        certify(plain, CertifyConfig(k=(2,)))


def test_a_store_needs_an_autoencoder(tmp_path):
    store = xs.Store.open(harvest(tmp_path / "store"))
    with pytest.raises(xs.ExpanderError, match="give the autoencoder, or codes"):
        certify(dictionary("uniform", m=WIDTH, n=12, d=3), CertifyConfig(k=(2,)), codes=store)


def test_theorem_1_does_not_apply_where_columns_differ_in_length():
    certificate = certify(xs.ExpanderDictionary(uneven_support(64, 100, 5)), CertifyConfig(k=(3,), **FAST))
    values = certificate[uniqueness.VALUES].numbers
    assert values["zero"] == 0
    assert values["values"] == uneven_support(64, 100, 5).entries
    for name in (pursuits.SPREADING, pursuits.BASIS_PURSUIT, pursuits.EXPANSION):
        assert certificate[name].status == "not applicable"
    assert "on average, at most 5" in certificate.dictionary
