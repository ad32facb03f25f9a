"""Up to a hub and down from it: the same autoencoder, a card that tells the truth, refusals of one sentence."""

import pytest
import torch

import expander_sae as xs
from expander_sae.errors import ExpanderError
from expander_sae.interop.hub import push_dashboard
from tests.interop.fake_hub import serving
from tests.interop.saes import activations, autoencoder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serving() as (held, endpoint):
        yield held, {"endpoint": endpoint, "token": "hf_" + "a" * 34}


def test_what_goes_up_comes_down(hub, tmp_path):
    held, options = hub
    sae = autoencoder("topk").with_coder(xs.OMP(3))
    published = xs.push_to_hub(sae, "me/saes", **options)
    back = xs.from_pretrained("me/saes", "layers.3", cache=tmp_path / "cache", **options)
    assert torch.equal(back(activations()), sae(activations()))
    assert back.provenance["hub"] == {"repository": "me/saes", "folder": "layers.3", "revision": published.revision}
    _, files = held.commits["me/saes"][-1]
    names = {name.partition("/")[2] or name for name in files}
    assert {"README.md", "config.json", "cfg.json", "sae_weights.safetensors"} <= names
    card = files["README.md"].decode()
    assert "library_name: saelens" in card
    assert "base_model: a/model" in card
    assert "`layers.3` | 24 | 60 | 5.4 | omp:3 | 324 |" in card
    assert 'xs.from_pretrained("me/saes", "layers.3")' in card


def test_others_of_a_repository_stay_and_old_commits_can_be_had(hub, tmp_path):
    held, options = hub
    first = autoencoder("topk", seed=1)
    before = xs.push_to_hub(first, "me/saes", **options)
    xs.push_to_hub(
        {"layers.3": autoencoder("topk", seed=2), "layers.5": autoencoder("topk", seed=3)}, "me/saes", **options
    )
    assert {name.partition("/")[0] for name in held.commits["me/saes"][-1][1]} == {"README.md", "layers.3", "layers.5"}
    old = xs.from_pretrained("me/saes", "layers.3", revision=before.revision, cache=tmp_path / "cache", **options)
    assert torch.equal(old(activations()), first(activations()))
    new = xs.from_pretrained("me/saes", "layers.3", cache=tmp_path / "cache", **options)
    assert torch.equal(new(activations()), autoencoder("topk", seed=2)(activations()))


def test_refusals_are_one_sentence(hub, tmp_path):
    held, options = hub
    options["cache"] = tmp_path / "cache"
    with pytest.raises(ExpanderError, match="nobody/there is not there, or not for you"):
        xs.from_pretrained("nobody/there", "layers.3", **options)
    xs.push_to_hub(autoencoder("topk"), "me/saes", endpoint=options["endpoint"], token=options["token"])
    with pytest.raises(ExpanderError, match=r"has no autoencoder in 'layers\.9'"):
        xs.from_pretrained("me/saes", "layers.9", **options)
    with pytest.raises(ExpanderError, match="has no such revision"):
        xs.from_pretrained("me/saes", "layers.3", revision="0" * 40, **options)
    with pytest.raises(ExpanderError, match="is no name of a repository"):
        xs.push_to_hub(autoencoder("topk"), "a/b/c", endpoint=options["endpoint"])
    nowhere = xs.SparseAutoencoder(xs.DenseDictionary(4, 8), xs.TopK(2))
    with pytest.raises(ExpanderError, match="does not say its hookpoint"):
        xs.push_to_hub(nowhere, "me/saes", endpoint=options["endpoint"])
    held.refuses = 403
    with pytest.raises(ExpanderError, match=r"refused to upload to me/saes \(403\); run `hf auth login`"):
        xs.push_to_hub(autoencoder("topk"), "me/saes", endpoint=options["endpoint"], token=options["token"])


def test_without_a_network_it_waits():
    with pytest.raises(ExpanderError, match="The hub cannot be reached"):
        xs.push_to_hub(autoencoder("topk"), "me/saes", endpoint="http://127.0.0.1:9", token="hf_" + "a" * 34)


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        (401, "", r"refused to upload to me/saes \(401\); run `hf auth login` with a token that may write"),
        (403, "", r"refused to upload to me/saes \(403\); run `hf auth login` with a token that may write"),
        (403, "GatedRepo", "me/saes is gated: accept its terms on its page, then `hf auth login`"),
        (503, "", r"refused to upload to me/saes \(503\); try again later"),
    ],
)
def test_a_hub_that_says_no_is_told_in_a_sentence(hub, status, reason, sentence):
    held, options = hub
    held.refuses, held.because = status, reason
    with pytest.raises(ExpanderError, match=sentence):
        xs.push_to_hub(autoencoder("topk"), "me/saes", **options)
    assert held.commits == {}


def test_a_gated_repository_wants_its_terms_accepted(hub, tmp_path):
    held, options = hub
    xs.push_to_hub(autoencoder("topk"), "me/saes", **options)
    held.refuses, held.because = 403, "GatedRepo"
    with pytest.raises(ExpanderError, match=r"me/saes is gated: accept its terms"):
        xs.from_pretrained("me/saes", "layers.3", cache=tmp_path / "cache", **options)


def test_a_license_is_on_the_card(hub):
    held, options = hub
    xs.push_to_hub(autoencoder("topk"), "me/saes", license="apache-2.0", **options)
    assert "\nlicense: apache-2.0\n" in held.commits["me/saes"][-1][1]["README.md"].decode()


def test_a_license_that_the_hub_does_not_know_is_refused_before_anything_is_there(hub):
    held, options = hub
    held.license = "mit"
    with pytest.raises(ExpanderError, match=r'refused to upload to me/saes: .* "license" must be one of \[mit\]'):
        xs.push_to_hub(autoencoder("topk"), "me/saes", license="mine", **options)
    assert held.files("me/saes", "main") is None


def test_a_dashboard_becomes_a_static_space(hub, tmp_path):
    held, options = hub
    page = tmp_path / "dashboard"
    (page / "pages").mkdir(parents=True)
    with pytest.raises(ExpanderError, match="is no finished dashboard; write one with `expander dashboard`"):
        push_dashboard(page, "me/features", **options)
    assert held.commits == {}
    for name in ("dashboard.json", "index.html", "data.js", "pages/0.js"):
        (page / name).write_text(name)
    published = push_dashboard(page, "me/features", **options)
    number, files = held.commits["me/features"][-1]
    assert held.spaces == {"me/features": "static"}
    assert number == published.revision
    head = files.pop("README.md").decode().split("---\n")[1]
    assert {"title: features", "sdk: static", "app_file: index.html"} <= set(head.splitlines())
    assert files == {name: name.encode() for name in ("dashboard.json", "index.html", "data.js", "pages/0.js")}
