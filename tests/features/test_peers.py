"""What is written for others, read by their own programs where these are installed.

delphi depends on packages for a GPU (vllm), of which its loader needs few, and SAEDashboard's exporter is in its
repository but in no release yet. So neither is installed with this project; the tests run where somebody has them.
"""

from __future__ import annotations

import gzip
import json
import typing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.features import FeatureDatabase, FeaturesConfig, collect_features
from expander_sae.interop.delphi import write_delphi
from expander_sae.interop.neuronpedia import write_neuronpedia
from tests.features.conftest import TOKENS, N


@pytest.fixture
def database(sae: SparseAutoencoder, store: Store, tmp_path: Path) -> FeatureDatabase:
    return collect_features(sae, store, out=tmp_path / "run" / "features", config=FeaturesConfig(tokens=TOKENS))


def test_delphi_reads_its_cache(
    database: FeatureDatabase, codes: NDArray[np.float32], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """Every activation arrives where it belongs, and the examples that delphi cuts out are those of the text."""
    latents = pytest.importorskip(
        "delphi.latents",
        reason="pip install --no-deps eai-delphi, and what its loader imports: faiss-cpu sentence-transformers "
        "blobfile lxml pycryptodomex orjson simple_parsing asyncer sniffio",
    )
    from delphi.config import ConstructorConfig, SamplerConfig

    write_delphi(database, tmp_path / "cache")
    constructor = ConstructorConfig(min_examples=1, n_non_activating=2)
    data = latents.LatentDataset(tmp_path / "cache", SamplerConfig(), constructor, tokenizer=tiny_tokenizer)
    pieces, length = data.tokens.shape
    assert length % constructor.example_ctx_len == 0
    dense = np.zeros((pieces * length, N), np.float32)
    for buffer in data.buffers:
        for latent in buffer:
            locations = latent.activation_data.locations.numpy()
            place = locations[:, 0] * length + locations[:, 1]
            dense[place, latent.latent.latent_index] = latent.activation_data.activations.numpy()
    assert np.allclose(dense, codes[: pieces * length], rtol=1e-3, atol=1e-6)
    records = list(data)
    assert {record.latent.latent_index for record in records} == set(np.flatnonzero(dense.any(axis=0)))
    for record in records:
        own = dense[:, record.latent.latent_index]
        assert record.per_token_frequency == pytest.approx((own != 0).mean())
        windows = own.reshape(-1, constructor.example_ctx_len)
        for example in record.train:
            assert any(np.array_equal(example.activations.numpy(), window) for window in windows)


def test_neuronpedia_knows_every_field(database: FeatureDatabase, tmp_path: Path) -> None:
    """Every line makes a row of the classes that SAEDashboard writes for it, and every value has its field's type."""
    export = pytest.importorskip(
        "sae_dashboard.neuronpedia.neuronpedia_export",
        reason="pip install git+https://github.com/jbloomAus/SAEDashboard",
    )
    folder = write_neuronpedia(database, tmp_path)
    tables = {"release": export.SourceRelease, "model": export.Model, "sourceset": export.SourceSet,
              "source": export.Source, "features/batch-0": export.Feature,
              "activations/batch-0": export.Activation}  # fmt: skip
    for name, table in tables.items():
        packed = folder / f"{name}.jsonl.gz"
        lines = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / f"{name}.jsonl").read_bytes()
        types = typing.get_type_hints(table)
        rows = [json.loads(line) for line in lines.splitlines()]
        assert rows
        for row in rows:
            table(**row)  # a field that is missing or unknown is a TypeError
            assert [name for name, value in row.items() if not fits(value, types[name])] == []


def fits(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is of this type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
    if inner:
        return any(fits(value, each) for each in inner)
    if kind is datetime:
        return datetime.fromisoformat(value).tzinfo is not None
    return type(value) is kind or (kind is float and type(value) is int)
