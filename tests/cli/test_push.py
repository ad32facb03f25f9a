"""`expander push` and `expander pull`: up to a hub, down from it, and what keeps them from it, in a sentence."""

import pytest
import torch

import expander_sae as xs
from expander_sae.activations.store import Store, StoreWriter
from expander_sae.cli.main import main
from expander_sae.features import collect_features
from tests.interop.fake_hub import serving
from tests.interop.saes import activations, autoencoder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serving() as (held, endpoint):
        # What the client reads from its environment is read once, when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield held


@pytest.fixture
def run(tmp_path):
    autoencoder("topk").save(tmp_path / "run")
    return tmp_path / "run"


def ends_with(arguments, capsys):
    """What a command that fails prints."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_what_is_pushed_is_pulled(hub, run, tmp_path, capsys):
    main(["push", str(run), "--to", "me/saes", "--license", "mit"])
    commit = hub.commits["me/saes"][-1][0]
    assert f"/me/saes, commit {commit}." in capsys.readouterr().out
    main(["pull", "me/saes", "layers.3", "--out", str(tmp_path / "back")])
    assert f"Commit {commit} of me/saes, written to" in capsys.readouterr().out
    assert torch.equal(xs.SparseAutoencoder.load(tmp_path / "back")(activations()), autoencoder("topk")(activations()))


def test_the_card_tells_what_the_features_do(hub, run, tmp_path):
    """Of a database beside the run, and in a picture that is there."""
    x = activations().half().float()
    fired = (autoencoder("topk").encode(x).to_dense() != 0).any(dim=0)
    origin = {"model": "none", "revision": None, "hookpoint": "layers.3", "text": "prose", "context": 8}
    with StoreWriter(tmp_path / "acts", width=x.shape[1], dtype=torch.float16, origin=origin) as writer:
        numbers = torch.arange(len(x))
        writer.append(x, numbers, numbers // 8, numbers % 8)
        writer.finish()
    collect_features(autoencoder("topk"), Store.open(tmp_path / "acts"), out=run / "features")
    main(["push", str(run), "--to", "me/saes"])
    files = hub.commits["me/saes"][-1][1]
    card = files["README.md"].decode()
    assert "prose" in card
    assert f"{60 - int(fired.sum())} on none" in card
    assert "](layers.3/densities.png)" in card
    assert files["layers.3/densities.png"].startswith(b"\x89PNG")
    assert not any("parquet" in name or "codes" in name for name in files)


def test_several_of_one_hookpoint_keep_their_names(hub, run, tmp_path):
    autoencoder("abstopk").save(tmp_path / "signed")
    main(["push", str(run), str(tmp_path / "signed"), "--to", "me/saes"])
    assert {name.partition("/")[0] for name in hub.commits["me/saes"][-1][1]} == {"README.md", "run", "signed"}


def test_a_dashboard_is_pushed_by_itself(hub, run, tmp_path, capsys):
    page = tmp_path / "page"
    page.mkdir()
    for name in ("dashboard.json", "index.html"):
        (page / name).write_text("{}")
    main(["push", str(page), "--to", "me/features"])
    assert hub.spaces == {"me/features": "static"}
    assert "push it by itself" in ends_with(["push", str(page), str(run), "--to", "me/features"], capsys)


def test_nothing_is_left_of_a_pull_that_fails(hub, run, tmp_path, capsys):
    main(["push", str(run), "--to", "me/saes"])
    out = tmp_path / "back"
    assert "has no autoencoder in 'layers.9'" in ends_with(["pull", "me/saes", "layers.9", "--out", str(out)], capsys)
    hub.refuses = 503
    assert "try again later" in ends_with(["pull", "me/saes", "layers.3", "--out", str(out)], capsys)
    assert not out.exists()


def test_without_a_network_it_says_so(hub, run, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "The hub cannot be reached; try to upload to me/saes again" in ends_with(
        ["push", str(run), "--to", "me/saes"], capsys
    )


def test_without_a_token_it_asks_for_one(hub, run, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    hub.refuses = 401
    assert "run `hf auth login`" in ends_with(["push", str(run), "--to", "me/saes"], capsys)


def test_half_a_character_is_no_name_of_a_repository(hub, run, capsys):
    for asked in (["--to", "\udcff"], ["--to", "me/saes", "--license", "\udcff"]):
        with pytest.raises(SystemExit, match="1"):
            main(["push", str(run), *asked])
        assert "no character" in capsys.readouterr().err
