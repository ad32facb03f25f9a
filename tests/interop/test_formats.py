"""Folders of other libraries, without these libraries: round trips, refusals, and nothing half-written."""

import json
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import expander_sae as xs
from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError
from expander_sae.interop import formats
from expander_sae.interop.formats import export_bytes, export_to, import_from
from tests.interop.saes import KINDS, K, M, N, activations, autoencoder, check_same

TO = ("saelens", "sparsify", "dictionary_learning")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("to", TO)
def test_what_goes_out_comes_back(to, sparse, tied, tmp_path):
    sae = autoencoder("topk", sparse=sparse, tied=tied)
    back = import_from(export_to(sae, to, tmp_path / "layers.3"))
    x = activations()
    check_same(back.encode(x).to_dense(), sae.encode(x).to_dense())
    check_same(back(x), sae(x))
    assert back.tied == tied
    assert type(back.dictionary) is type(sae.dictionary)
    assert back.learned_values == sae.learned_values
    if sparse:
        assert back.dictionary.support == sae.dictionary.support
    if tied:
        torch.testing.assert_close(back.scale, sae.scale)
    assert back.coder == sae.coder
    assert back.provenance["activations"]["hookpoint"] == "layers.3"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("to", [*TO, "saelens_sparse"])
def test_mixtures_go_out_as_dense_columns_and_whole_into_a_sparse_folder(to, tied, tmp_path):
    mixtures = xs.ExpanderDictionary(xs.Support.make("uniform", m=M + 4, n=N, d=3, seed=0))
    composed = xs.ComposedDictionary(xs.DenseDictionary(M, M + 4), mixtures)
    sae = xs.SparseAutoencoder(composed, xs.TopK(K), tied=tied, latent_bias=True)
    back, x = import_from(export_to(sae, to, tmp_path / "layers.3")), activations()
    check_same(back(x), sae(x))
    torch.testing.assert_close(back.encode(x).to_dense(), sae.encode(x).to_dense(), rtol=1e-4, atol=1e-5)
    assert type(back.dictionary) is (xs.ComposedDictionary if to == "saelens_sparse" else xs.DenseDictionary)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_through_saelens(kind, tmp_path):
    sae = autoencoder(kind)
    back = import_from(export_to(sae, "saelens", tmp_path / "out"))
    x = activations()
    check_same(back(x), sae(x))
    assert torch.equal(back.encode(x).to_dense() != 0, sae.encode(x).to_dense() != 0)


@pytest.mark.parametrize("coder", [xs.OMP(K), xs.Candidates(K, signed=True), xs.TopK(K)])
def test_every_coder_goes_into_a_sparse_folder(coder, tmp_path):
    sae = autoencoder("topk").with_coder(coder)
    back = import_from(export_to(sae, "saelens_sparse", tmp_path / "out"))
    x = activations()
    assert torch.equal(back(x), sae(x))
    assert (back.coder, back.provenance) == (coder, sae.provenance)


def test_a_sparse_folder_that_was_damaged_is_refused(tmp_path):
    folder = export_to(autoencoder("topk"), "saelens_sparse", tmp_path / "out")
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["tensor_file"][-1] ^= 1
    save_file(tensors, folder / "sae_weights.safetensors")
    with pytest.raises(ExpanderError, match="does not match its SHA-256"):
        import_from(folder)


def test_a_column_of_zeros_survives(tmp_path):
    sae = autoencoder("topk")
    sae.dictionary.values.data[7] = 0
    back = import_from(export_to(sae, "saelens", tmp_path / "out"))
    check_same(back(activations()), sae(activations()))


def test_hookpoints_before_a_layer_keep_their_name(tmp_path):
    sae = autoencoder("topk")
    sae.provenance = {"activations": {"model": "a/model", "hookpoint": "layers.5:input"}}
    folder = export_to(sae, "saelens", tmp_path / "out")
    assert json.loads((folder / "cfg.json").read_text())["metadata"]["hook_name"] == "blocks.5.hook_resid_pre"
    assert import_from(folder).provenance["activations"]["hookpoint"] == "layers.5:input"


def test_the_size_is_told_before(tmp_path):
    for kind in ("topk", "matching_pursuit"):
        sae = autoencoder(kind)
        folder = export_to(sae, "saelens", tmp_path / kind)
        assert 0 <= sum(path.stat().st_size for path in folder.iterdir()) - export_bytes(sae, "saelens") < 2048


@pytest.mark.parametrize("coder", [xs.OMP(3), xs.Candidates(3), xs.BatchTopK(3), xs.MatchingPursuit(3, tolerance=0.1)])
def test_codes_that_nobody_else_has_are_refused_with_a_choice(coder, tmp_path):
    sae = autoencoder("topk").with_coder(coder)
    with pytest.raises(ExpanderError, match=r"--coder topk:K.*or train an encoder"):
        export_to(sae, "saelens", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "kind", "sentence"),
    [
        ("sparsify", "abstopk", "sparsify has TopK alone, not abstopk"),
        ("sparsify", "jumprelu", "sparsify has TopK alone, not jumprelu"),
        ("dictionary_learning", "matching_pursuit", "dictionary_learning has TopK and JumpReLU, not matching_pursuit"),
    ],
)
def test_what_one_library_does_not_have(to, kind, sentence, tmp_path):
    with pytest.raises(ExpanderError, match=sentence):
        export_to(autoencoder(kind), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_in_use_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ExpanderError, match="is not empty; choose another path"):
        export_to(autoencoder("topk"), "saelens", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "write_json", full)
    with pytest.raises(ExpanderError, match="No space left on device"):
        export_to(autoencoder("topk"), "dictionary_learning", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_seen_before(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(ExpanderError, match="only 1 are free there"):
        export_to(autoencoder("topk"), "saelens", tmp_path / "out")


def broken(folder, change):
    """An exported folder with its tensors changed."""
    export_to(autoencoder("topk"), "saelens", folder)
    tensors = load_file(folder / "sae_weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "sae_weights.safetensors")


def set_entry(tensors, name, tensor):
    tensors[name] = tensor


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("b_dec"), "lacks the tensors b_dec; it has W_dec, W_enc, b_enc"),
        (lambda t: set_entry(t, "W_skip", torch.zeros(M, M)), "has the tensors W_skip too"),
        (lambda t: set_entry(t, "b_enc", torch.zeros(3)), r"the latent bias must be \[60\], not \[3\]"),
        (lambda t: set_entry(t, "W_dec", torch.full((N, M), torch.nan)), "values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(change, sentence, tmp_path):
    broken(tmp_path / "out", change)
    with pytest.raises(ExpanderError, match=sentence):
        import_from(tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "name", "change"),
    [
        ("saelens", "cfg.json", {"metadata": [1]}),
        ("saelens", "cfg.json", {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": 3}),
        ("saelens", "cfg.json", {"architecture": "matching_pursuit", "residual_threshold": "0"}),
        (
            "dictionary_learning",
            "config.json",
            {"trainer": {"dict_class": "AutoEncoderTopK", "layer": []}, "buffer": 1},
        ),
    ],
)
def test_entries_of_other_kinds_than_their_library_writes(to, name, change, tmp_path):
    export_to(autoencoder("topk"), to, tmp_path / "out")
    content = json.loads((tmp_path / "out" / name).read_text())
    (tmp_path / "out" / name).write_text(json.dumps({**content, **change}))
    with pytest.raises(ExpanderError, match=str(tmp_path)):
        import_from(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_pickle_of_whatever_kind_is_a_sentence(tmp_path):
    export_to(autoencoder("topk"), "dictionary_learning", tmp_path / "out")
    weights = tmp_path / "out" / "ae.pt"
    whole = weights.read_bytes()
    for place in range(60, 1000, 31):
        weights.write_bytes(whole[:place] + b"\xe1\x80" + whole[place + 2 :])
        with suppress(ExpanderError):
            assert import_from(tmp_path / "out").n == N


def test_an_unknown_architecture_is_named(tmp_path):
    folder = export_to(autoencoder("topk"), "saelens", tmp_path / "out")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "architecture": "temporal"}))
    with pytest.raises(ExpanderError, match="architecture 'temporal', which an expander-sae autoencoder cannot hold"):
        import_from(folder)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is of no format that can be imported"),
        (lambda path: autoencoder("topk").save(path), "is an autoencoder of this library already"),
        (lambda path: path.write_text("?"), "is a file but no .pt file"),
    ],
)
def test_what_is_of_no_format(make, sentence, tmp_path):
    make(tmp_path / "in")
    with pytest.raises(ExpanderError, match=sentence):
        import_from(tmp_path / "in")


def test_pickles_that_run_code_are_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return print, ("boom",)

    torch.save({"a": Bomb()}, tmp_path / "in.pt")
    with pytest.raises(ExpanderError, match="is not a file of tensors that can be read safely"):
        import_from(tmp_path / "in.pt")


def test_the_papers_own_checkpoints(tmp_path):
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(M, N)
    for feature in range(N):
        mask[torch.randperm(M, generator=generator)[:3], feature] = 1
    values, b_dec, b_enc = (torch.randn(shape, generator=generator) for shape in ((M, N), (M,), (N,)))
    torch.save({"mask": mask, "decoder_vals": values, "b_dec": b_dec, "b_enc": b_enc}, tmp_path / "tied.pt")
    with pytest.raises(ExpanderError, match="give --k"):
        import_from(tmp_path / "tied.pt")
    sae, x = import_from(tmp_path / "tied.pt", k=K), activations()
    columns = mask * values
    columns = columns / columns.norm(dim=0)
    top = ((x - b_dec) @ columns + b_enc).topk(K)
    codes = torch.zeros(len(x), N).scatter(1, top.indices, top.values)
    assert (top.values > 0).all()
    check_same(sae.encode(x).to_dense(), codes)
    check_same(sae(x), codes @ columns.T + b_dec)
    assert sae.dictionary.learned_values == 3 * N


def test_openais_relu_checkpoints(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"pre_bias": (M,), "latent_bias": (N,), "encoder.weight": (N, M), "decoder.weight": (M, N)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save({**state, "activation": "ReLU", "stats_last_nonzero": torch.zeros(N)}, tmp_path / "2.pt")
    sae, x = import_from(tmp_path / "2.pt"), activations()
    codes = torch.relu((x - state["pre_bias"]) @ state["encoder.weight"].T + state["latent_bias"])
    check_same(sae.encode(x).to_dense(), codes)
    check_same(sae(x), codes @ state["decoder.weight"].T + state["pre_bias"])
    torch.save({**state, "activation": "TopK"}, tmp_path / "2.pt")
    with pytest.raises(ExpanderError, match="standardises every token by itself"):
        import_from(tmp_path / "2.pt")


def test_the_commands(tmp_path, capsys):
    autoencoder("topk").with_coder(xs.OMP(K)).save(tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path / "run"), "--to", "saelens", "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    main(["export", str(tmp_path / "run"), "--to", "saelens", "--out", str(tmp_path / "out"), "--coder", "topk:5"])
    printed = capsys.readouterr().out
    assert "The folder for saelens will take 0.0 MiB." in printed
    main(["import", str(tmp_path / "out"), "--out", str(tmp_path / "back")])
    assert "60 features for activations of width 24, expander, under TopK." in capsys.readouterr().out
    x = activations()
    check_same(xs.SparseAutoencoder.load(tmp_path / "back")(x), autoencoder("topk")(x))
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path / "out"), "--out", str(tmp_path / "back")])
    assert "is not empty" in capsys.readouterr().err
