"""A database against the same numbers computed from all codes at once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase, FeaturesConfig, collect_all, collect_features
from expander_sae.features.pairs import CLEAR, LEAST
from expander_sae.features.schema import BINS, CONTEXTS, FEATURES, GROUPS, arrow_schema
from expander_sae.features.shards import shard_name
from expander_sae.files import SealedFolder
from expander_sae.supports import Support
from tests.features.conftest import DOCUMENTS, LENGTH, TOKENS, K, M, N

Matrix = NDArray[np.float32]
FULL = Path("/dev/full")


@pytest.fixture
def database(sae: SparseAutoencoder, store: Store, tmp_path: Path) -> FeatureDatabase:
    config = FeaturesConfig(tokens=TOKENS, strongest=4, drawn=3, around=5, related=4, nearest=4)
    return collect_features(sae, store, out=tmp_path / "run" / "features", config=config)


def test_files_have_the_documented_columns(database: FeatureDatabase) -> None:
    for name, columns in (("features", FEATURES), ("contexts", CONTEXTS)):
        found = pq.read_schema(database.path / f"{name}.parquet")
        assert found.equals(arrow_schema(columns))
        assert {field.name: field.metadata[b"about"].decode() for field in found} == {
            column: about for column, (_, about) in columns.items()
        }
    assert database.features().column("feature").to_pylist() == list(range(N))


def test_info_counts_what_there_is(database: FeatureDatabase, store: Store, codes: Matrix) -> None:
    info, fired = database.info, (codes != 0).sum(axis=0)
    assert (info.name, info.m, info.n, info.k, info.tokens, info.documents) == ("run", M, N, 3, TOKENS, DOCUMENTS)
    assert info.massive == int(store[:].massive.sum())
    assert (info.alive, info.rare, info.dead) == (
        (fired >= 10).sum(), ((fired > 0) & (fired < 10)).sum(), (fired == 0).sum(),
    )  # fmt: skip
    assert info.origin["hookpoint"] == "layers.1"


def test_numbers_of_features(database: FeatureDatabase, store: Store, codes: Matrix) -> None:
    tokens = TOKENS - int(store[:].massive.sum())
    for feature in range(N):
        row, firings = database.feature(feature), codes[:, feature][codes[:, feature] != 0]
        assert (row["fired"], row["density"]) == (len(firings), pytest.approx(len(firings) / tokens))
        per_document = (codes[:, feature].reshape(DOCUMENTS, LENGTH) != 0).any(axis=1)
        assert row["documents"] == per_document.sum()
        if not len(firings):
            assert row["status"] == "dead"
            assert [row[name] for name in ("mean", "largest", "smallest", "rank_mean")] == [None] * 4
            assert sum(row["histogram"]) == 0
            continue
        assert row["mean"] == pytest.approx(firings.mean(), rel=1e-5)
        assert (row["largest"], row["smallest"]) == (np.abs(firings).max(), np.abs(firings).min())
        expected, _ = np.histogram(np.abs(firings), BINS, (0, row["largest"]))
        assert np.abs(np.cumsum(row["histogram"]) - np.cumsum(expected)).max() <= 1  # a value on an edge
        assert sum(row["histogram"]) == len(firings)
    largest = np.abs(codes).max(axis=0)
    assert np.array_equal(database.largest.numpy(), largest)


def test_ranks_are_those_of_picks(sae: SparseAutoencoder, store: Store, tmp_path: Path) -> None:
    database = collect_features(sae, store, out=tmp_path / "db", config=FeaturesConfig(tokens=TOKENS))
    tokens = store[:]
    with torch.no_grad():
        found = sae.encode(tokens.activations.float())
    used = (found.values != 0) & ~tokens.massive[:, None]
    for feature in range(N):
        rank = (used & (found.indices == feature)).nonzero()[:, 1].double()
        mean = database.feature(feature)["rank_mean"]
        assert mean == (pytest.approx(float(rank.mean())) if len(rank) else None)


def test_pairs_are_counted_exactly_and_listed_by_their_distance_from_chance(
    database: FeatureDatabase, store: Store, codes: Matrix
) -> None:
    tokens = TOKENS - int(store[:].massive.sum())
    fires = (codes != 0).astype(np.int64)
    counts, fired = fires.T @ fires, fires.sum(axis=0)
    listed = 0
    for feature in range(N):
        row = database.feature(feature)
        expected = fired[feature] * fired / tokens
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(expected > 0, (counts[feature] - expected) / np.sqrt(expected), 0)
        z[feature] = 0
        together = np.where(counts[feature] >= LEAST, z, 0)
        for name, scores, sign in (("together", together, 1), ("instead", z, -1)):
            wanted = np.sort(sign * scores[sign * scores >= CLEAR])[::-1][:4]
            assert sign * np.array(row[f"{name}_z"]) == pytest.approx(wanted, rel=1e-5)
            assert row[f"{name}_count"] == [counts[feature, other] for other in row[name]]
            assert [sign * z[other] for other in row[name]] == pytest.approx(wanted, rel=1e-5)
            listed += len(row[name])
    assert listed > 0


def test_what_columns_touch_and_their_neighbours(database: FeatureDatabase, sae: SparseAutoencoder) -> None:
    dense = sae.dictionary.to_dense().detach().numpy()
    norms = np.linalg.norm(dense, axis=0)
    unit = dense / np.where(norms > 0, norms, 1)
    cosines = unit.T @ unit
    np.fill_diagonal(cosines, -1)
    for feature in range(N):
        row = database.feature(feature)
        rows = np.flatnonzero(dense[:, feature])
        assert (row["rows"], row["column_entries"]) == (rows.tolist(), len(rows))
        assert row["values"] == pytest.approx(dense[rows, feature])
        best = np.sort(cosines[feature][cosines[feature] > 1e-6])[::-1][:4]
        assert row["nearest_cosine"] == pytest.approx(best, abs=1e-5)
        assert [cosines[feature, other] for other in row["nearest"]] == pytest.approx(best, abs=1e-5)


def test_atoms_of_mixtures_are_listed_by_what_they_add(store: Store, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    mixtures = ExpanderDictionary(Support.make("uniform", m=10, n=N, d=3), torch.randn(N, 3, generator=generator))
    mixtures.values.data[4] = 0
    atoms = DenseDictionary(M, 10, torch.randn(10, M, generator=generator) * torch.arange(1, 11)[:, None])
    sae = SparseAutoencoder(ComposedDictionary(atoms, mixtures), TopK(K), tied=False)
    sae.dictionary.get_submodule("mixtures").get_parameter("values").data.neg_()  # what it writes is another matter
    found = collect_features(sae, store, out=tmp_path / "mixed", config=FeaturesConfig(lens=0))
    dense = sae.encoder.to_dense().detach()
    for feature in range(N):
        row = found.feature(feature)
        assert len(row["atoms"]) == (0 if feature == 4 else 3)
        lengths = [abs(weight) for weight in row["atom_weights"]]
        assert lengths == sorted(lengths, reverse=True)
        units = torch.nn.functional.normalize(atoms.values[row["atoms"]].detach(), dim=1)
        column = torch.tensor(row["atom_weights"]) @ units if feature != 4 else torch.zeros(M)
        norm = torch.linalg.vector_norm(dense[:, feature])
        torch.testing.assert_close(column * norm, dense[:, feature], rtol=1e-4, atol=1e-4)


def test_strongest_contexts_are_of_the_strongest_documents(database: FeatureDatabase, codes: Matrix) -> None:
    for feature in range(N):
        best = codes[:, feature].reshape(DOCUMENTS, LENGTH).max(axis=1)
        expected = np.sort(best[best > 0])[::-1][:4]
        contexts = [each for each in database.contexts(feature) if each["group"] == "strongest"]
        assert [each["activation"] for each in contexts] == pytest.approx(expected)
        assert [each["rank"] for each in contexts] == list(range(len(contexts)))
        assert len({each["document"] for each in contexts}) == len(contexts)


def test_windows_hold_what_stands_beside_the_token_in_the_document(database: FeatureDatabase, codes: Matrix) -> None:
    """Also across the pieces that the model read apart."""
    for feature in range(N):
        for context in database.contexts(feature):
            peak = LENGTH * context["document"] + context["position"]
            begin = LENGTH * context["document"]
            window = list(range(max(begin, peak - 5), min(begin + LENGTH, peak + 6)))
            assert context["token_ids"] == [1000 + token for token in window]
            assert window[context["peak"]] == peak
            assert context["activations"] == pytest.approx(codes[window, feature])
            assert context["activation"] == context["activations"][context["peak"]] != 0


def test_groups_are_quarters_of_the_activations(database: FeatureDatabase, codes: Matrix) -> None:
    for feature in range(N):
        firings = np.sort(codes[:, feature][codes[:, feature] != 0])
        contexts = database.contexts(feature)
        order = [(GROUPS.index(each["group"]), each["rank"]) for each in contexts]
        assert order == sorted(order)
        for quarter in range(4):
            group = [each for each in contexts if each["group"] == f"q{quarter + 1}"]
            low, high = (len(firings) * edge // 4 for edge in (quarter, quarter + 1))
            assert len(group) == min(3, high - low) or abs(high - low - len(group)) <= 1
            for each in group:
                place = np.searchsorted(firings, each["activation"])
                assert low - 1 <= place <= high
        assert len([each for each in contexts if each["group"] == "random"]) == min(3, len(firings))


def test_a_killed_pass_goes_on(
    sae: SparseAutoencoder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it encodes, then while it describes: nothing is done twice, and the result is the same."""
    config, out = FeaturesConfig(tokens=TOKENS, strongest=3, drawn=2), tmp_path / "killed"
    whole = collect_features(sae, store, out=tmp_path / "whole", name="a", config=config)
    encoded = list[int]()
    encode = SparseAutoencoder.encode

    def until(limit: int) -> None:
        def counting(self: SparseAutoencoder, x: torch.Tensor) -> object:
            if sum(encoded) >= limit:
                raise KeyboardInterrupt
            encoded.append(len(x))
            return encode(self, x)

        monkeypatch.setattr(SparseAutoencoder, "encode", counting)

    until(500)
    with pytest.raises(KeyboardInterrupt):
        collect_features(sae, store, out=out, name="a", config=config)
    with pytest.raises(ExpanderError, match="is not finished; the same `expander features` goes on with it"):
        FeatureDatabase.open(out)
    until(10**9)
    encoded.clear()

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "a":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_features(sae, store, out=out, name="a", config=config, report=interrupt)
    assert sum(encoded) == TOKENS - 400  # two of the files were complete
    until(0)
    again = collect_features(sae, store, out=out, name="a", config=config)
    assert again.info == whole.info
    for file in ("features.parquet", "contexts.parquet"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert collect_features(sae, store, out=out, name="a", config=config).info == whole.info


def test_other_contexts_need_no_other_pass(
    sae: SparseAutoencoder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "db"
    collect_features(sae, store, out=out, config=FeaturesConfig(tokens=TOKENS, strongest=2))
    monkeypatch.setattr(SparseAutoencoder, "encode", lambda *_: pytest.fail("encoded again"))
    found = collect_features(sae, store, out=out, config=FeaturesConfig(tokens=TOKENS, strongest=5, keep_codes=False))
    assert sum(each["group"] == "strongest" for each in found.contexts(0)) == 5
    assert found.codes == []
    assert not list(out.glob("codes-*"))
    with pytest.raises(ExpanderError, match="its codes were not kept; choose another folder"):
        collect_features(sae, store, out=out, config=FeaturesConfig(tokens=TOKENS, strongest=2))


def test_several_autoencoders_share_the_pass(sae: SparseAutoencoder, store: Store, tmp_path: Path) -> None:
    other, config = sae.with_coder(OMP(2)), FeaturesConfig(tokens=300)
    found = collect_all({"a": (sae, tmp_path / "a"), "b": (other, tmp_path / "b")}, store, config=config)
    alone = collect_features(other, store, out=tmp_path / "alone", name="b", config=config)
    assert found["b"].info == alone.info
    assert found["b"].features().equals(alone.features())
    assert found["a"].info.k == 3


def test_what_is_no_database_of_this_autoencoder_is_refused(
    sae: SparseAutoencoder,
    store: Store,
    database: FeatureDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = sae.with_coder(OMP(2))
    database.check(sae)
    assert FeatureDatabase.open(database.path.parent).info == database.info  # the folder of the run
    with pytest.raises(ExpanderError, match="is about another autoencoder"):
        database.check(other)
    with pytest.raises(ExpanderError, match="holds a feature database of other autoencoder"):
        collect_features(other, store, out=database.path, config=FeaturesConfig(tokens=TOKENS))
    with pytest.raises(ExpanderError, match="of other tokens; choose another folder"):
        collect_features(sae, store, out=database.path, config=FeaturesConfig(tokens=TOKENS - 1))
    with pytest.raises(ExpanderError, match=f"There is no feature {N}; they are numbered from 0 to {N - 1}"):
        database.feature(N)
    with pytest.raises(ExpanderError, match="There is no feature database in"):
        FeatureDatabase.open(tmp_path)
    wide = SparseAutoencoder(type(sae.dictionary)(_support(M + 1)), OMP(2))  # type: ignore[call-arg]
    with pytest.raises(ExpanderError, match=f"for activations of width {M + 1}, but the ones here are {M} wide"):
        collect_features(wide, store, out=tmp_path / "wide")
    with monkeypatch.context() as forged:  # a table whose SHA-256 was forged with it
        forged.setattr(SealedFolder, "check_named", lambda *_: None)
        for name in ("features", "contexts"):
            (tmp_path / f"{name}.parquet").write_bytes(b"PAR1" * 10)
        there = FeatureDatabase(tmp_path, database.info, database._files, "")
        for table in (there.features, lambda: there.contexts(0)):
            with pytest.raises(ExpanderError, match="is no table of a feature database"):
                table()
    (database.path / "contexts.parquet").write_bytes(b"PAR1")
    with pytest.raises(ExpanderError, match="cut short or changed"):
        FeatureDatabase.open(database.path)


def _support(m: int) -> object:
    from expander_sae.supports import Support

    return Support.make("uniform", m=m, n=N, d=4, seed=0)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("file", ["codes-00002.safetensors", "features.parquet", "contexts.parquet", "database.json"])
def test_a_full_disk_loses_nothing(sae: SparseAutoencoder, store: Store, tmp_path: Path, file: str) -> None:
    """Whatever file it is that finds no room: what was there is whole, and the same call goes on."""
    config, out = FeaturesConfig(tokens=TOKENS), tmp_path / "db"
    whole = collect_features(sae, store, out=tmp_path / "whole", name="a", config=config)
    out.mkdir()
    (out / f"{file}.tmp").symlink_to(FULL)
    with pytest.raises(ExpanderError, match=r"cannot be written \(.*No space left.*the same command goes on after it"):
        collect_features(sae, store, out=out, name="a", config=config)
    if file == "codes-00002.safetensors":
        assert sorted(path.name for path in out.iterdir()) == [shard_name(0), shard_name(1), "database.json"]
    found = collect_features(sae, store, out=out, name="a", config=config)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.path.iterdir()
    }
    assert found.info == whole.info


def test_a_disk_without_room_is_refused_before_anything_is_written(
    sae: SparseAutoencoder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed is what is then written, or rather more; two databases on one disk need room for both."""
    config = FeaturesConfig(tokens=TOKENS)
    usage = shutil.disk_usage(tmp_path)
    asked = list[int]()

    def free(there: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: asked.append(there) or usage._replace(free=there))

    free(1000)
    with pytest.raises(ExpanderError, match=r"needs .* bytes\), but its disk has .* \(1000 bytes\) free") as refused:
        collect_features(sae, store, out=tmp_path / "new" / "db", config=config)
    assert not (tmp_path / "new").exists()
    needed = int(re.search(r"\((\d+) bytes\), but", str(refused.value))[1])  # type: ignore[index]
    free(needed)
    database = collect_features(sae, store, out=tmp_path / "new" / "db", config=config)
    assert sum(path.stat().st_size for path in database.path.glob("codes-*")) < needed
    free(needed + 1000)
    two = {"a": (sae, tmp_path / "a"), "b": (sae, tmp_path / "b")}
    with pytest.raises(ExpanderError, match=f"b needs .* \\({2 * needed} bytes\\)"):
        collect_all(two, store, config=config)
    free(0)
    collect_features(sae, store, out=database.path, name="new", config=config)  # is there already
