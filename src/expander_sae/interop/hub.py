"""Autoencoders on the Hugging Face hub: several of a model in one repository, a folder for each hookpoint, and a card.

Every folder opens with this library and with SAELens. A dashboard goes up as a page of its own, a static Space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from expander_sae.autoencoder import Description, SparseAutoencoder, describe
from expander_sae.checks import a_text
from expander_sae.errors import ExpanderError, require
from expander_sae.features import FeatureDatabase
from expander_sae.files import replace_file, write_json
from expander_sae.interop import saelens_sparse
from expander_sae.interop.card import PICTURE, TAGS, card, densities
from expander_sae.reporting.dashboard.writing import MARK

CARD = "README.md"
_FILES = ("config.json", "sae-*.safetensors")
"""What of a folder this library reads."""


@dataclass(frozen=True)
class Published:
    """Where autoencoders are now."""

    url: str
    revision: str
    """The commit, to be given on loading for the same numbers for ever."""


def push_to_hub(
    saes: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    databases: Mapping[str, FeatureDatabase] | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Published:
    """Upload an autoencoder, or several by the name of their folders, with a card that says what they are.

    One alone goes into a folder named by its hookpoint. Folders of the repository that have other names stay as they
    are. Of feature databases, given by the same names, the card tells how often features fire, in a picture too, and
    how readable they are; they are not uploaded themselves. The token is the one of `hf auth login` unless it is given;
    the license is a name that the hub knows, such as apache-2.0, and goes onto the card.
    """
    require("huggingface_hub")
    from huggingface_hub import HfApi

    for name, text in {"The repository": repository, "The license": license or ""}.items():
        a_text(name, text)
    named = {_folder_of(saes): saes} if isinstance(saes, SparseAutoencoder) else dict(saes)
    if not named:
        raise ExpanderError("There is nothing to upload; give at least one autoencoder.")
    api = HfApi(endpoint=endpoint, token=token)
    with TemporaryDirectory() as work:
        described = {name: _written(sae, Path(work) / name) for name, sae in named.items()}
        found = dict(databases or {})
        for name, database in found.items():
            replace_file(Path(work) / name / PICTURE, densities(database).png)
        replace_file(Path(work) / CARD, card(repository, named, described, found, license).encode())
        with _explained(repository, "upload to"):
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=work, commit_message=f"Autoencoders: {', '.join(named)}"
            )
    return Published(str(commit.repo_url), str(commit.oid))


def from_pretrained(
    repository: str,
    folder: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    cache: Path | None = None,
) -> SparseAutoencoder:
    """The autoencoder in a folder of a repository, at a commit, a tag or a branch; its provenance names the commit."""
    require("huggingface_hub")
    from huggingface_hub import HfApi

    with _explained(repository, "get"):
        snapshot = HfApi(endpoint=endpoint, token=token).snapshot_download(
            repository, revision=revision, cache_dir=cache, allow_patterns=[f"{folder}/{name}" for name in _FILES]
        )
    if not (Path(snapshot) / folder / "config.json").is_file():
        raise ExpanderError(f"{repository} has no autoencoder in {folder!r}; its page lists the folders there are.")
    sae = SparseAutoencoder.load(Path(snapshot) / folder)
    sae.provenance["hub"] = {"repository": repository, "folder": folder, "revision": Path(snapshot).name}
    return sae


def push_dashboard(
    dashboard: Path, repository: str, *, private: bool = False, token: str | None = None, endpoint: str | None = None
) -> Published:
    """Upload a folder that `expander dashboard` wrote as a static Space, which shows it to everyone."""
    if not (dashboard / MARK).is_file() or not (dashboard / "index.html").is_file():
        raise ExpanderError(f"{dashboard} is no finished dashboard; write one with `expander dashboard`.")
    require("huggingface_hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    name = repository.rpartition("/")[2]
    head = ["---", f"title: {name}", "sdk: static", "app_file: index.html", *TAGS, "---", ""]
    files = sorted(path for path in dashboard.rglob("*") if path.is_file())
    added = [CommitOperationAdd(str(path.relative_to(dashboard)), path) for path in files]
    api = HfApi(endpoint=endpoint, token=token)
    with _explained(repository, "upload to"):
        api.create_repo(repository, repo_type="space", space_sdk="static", private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(CARD, "\n".join(head).encode()), *added],
            repo_type="space",
            commit_message="A dashboard of features",
        )
    return Published(str(commit.repo_url), str(commit.oid))


def by_hookpoint(saes: Mapping[str, SparseAutoencoder]) -> Mapping[str, SparseAutoencoder]:
    """Autoencoders by the folders of a repository: their hookpoints where these differ, else the names they have."""
    hookpoints = [sae.provenance.get("activations", {}).get("hookpoint") for sae in saes.values()]
    if None in hookpoints or len(set(hookpoints)) < len(hookpoints):
        return saes
    return {_folder_of(sae): sae for sae in saes.values()}


def _folder_of(sae: SparseAutoencoder) -> str:
    """The folder of one autoencoder: its hookpoint."""
    hookpoint = sae.provenance.get("activations", {}).get("hookpoint")
    if not hookpoint:
        raise ExpanderError("The autoencoder does not say its hookpoint; give it as {'layers.12': sae}.")
    return str(hookpoint).replace(":", "-")


def _written(sae: SparseAutoencoder, folder: Path) -> Description:
    """Write the folder for both libraries, and see that what comes back codes as what went in."""
    sae.save(folder)
    for name, content in saelens_sparse.files_of(sae).items():
        if isinstance(content, bytes):
            replace_file(folder / name, content)
        else:
            write_json(folder / name, content)
    x = torch.randn(8, sae.m, generator=torch.Generator().manual_seed(0)).to(sae.pre_bias)
    with torch.no_grad():
        if not torch.allclose(SparseAutoencoder.load(folder, device=x.device)(x), sae(x).to(x.dtype), atol=1e-3):
            raise ExpanderError(f"{folder.name} does not survive being saved, so it was not uploaded; report this.")
    return describe(folder)


@contextmanager
def _explained(repository: str, doing: str) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence."""
    from huggingface_hub import errors

    # The client of the hub has changed its HTTP library before; whichever it is, its errors have one base.
    network = import_module(errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0]).TransportError
    try:
        yield
    except errors.HFValidationError as error:
        raise ExpanderError(f"{repository!r} is no name of a repository; give owner/name.") from error
    except errors.GatedRepoError as error:
        raise ExpanderError(f"{repository} is gated: accept its terms on its page, then `hf auth login`.") from error
    except errors.RepositoryNotFoundError as error:
        raise ExpanderError(
            f"{repository} is not there, or not for you; check the name, or `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ExpanderError(f"{repository} has no such revision; give a commit, a tag or a branch of it.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, network) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _refused(repository, doing, error.__cause__) from error
        raise ExpanderError(
            f"The hub cannot be reached; try to {doing} {repository} again when there is a network."
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise ExpanderError("The hub wants to know who you are; run `hf auth login` or give a token.") from error
    except errors.HfHubHTTPError as error:
        raise _refused(repository, doing, error) from error
    except ValueError as error:  # what the hub says of a card that it does not take
        raise ExpanderError(f"The hub refused to {doing} {repository}: {' '.join(str(error).split())}") from error


def _refused(repository: str, doing: str, error: Any) -> ExpanderError:
    """What the hub's answer comes to, and what to do about it."""
    status = error.response.status_code if error.response is not None else "no answer"
    who = "; run `hf auth login` with a token that may write" if status in (401, 403) else "; try again later"
    return ExpanderError(f"The hub refused to {doing} {repository} ({status}){who}.")
