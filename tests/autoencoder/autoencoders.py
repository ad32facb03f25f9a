"""Small autoencoders of every kind, with random parameters, and what it means that two are the same."""

import hashlib
import json

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

import expander_sae as xs
from expander_sae.files import checksum
from tests.uneven import uneven_support

WIDTH = 12
KINDS = ("recipe", "stored rows", "uneven", "dense", "composed", "union", "nested union")


def expander(n, seed=0, stored=False):
    """An expander dictionary on a recipe, or on stored rows."""
    support = xs.Support.make("balanced", m=WIDTH, n=n, d=3, seed=seed)
    return xs.ExpanderDictionary(xs.Support.from_rows(support.rows, WIDTH, "chosen") if stored else support)


def uneven(n, seed=0):
    """An expander dictionary with columns of 1 to 5 values."""
    return xs.ExpanderDictionary(uneven_support(WIDTH, n, 5, seed))


def dictionary(kind, seed=0):
    """A dictionary of this kind, width 12."""
    makers = {
        "recipe": lambda: expander(20, seed),
        "stored rows": lambda: expander(20, seed, stored=True),
        "uneven": lambda: uneven(20, seed),
        "dense": lambda: xs.DenseDictionary(WIDTH, 20),
        "composed": lambda: xs.ComposedDictionary(
            xs.DenseDictionary(WIDTH, 15), xs.ExpanderDictionary(uneven_support(15, 20, 4, seed))
        ),
        "union": lambda: xs.Union(
            [xs.DenseDictionary(WIDTH, 4), expander(9, seed), expander(7, seed + 1, stored=True)]
        ),
        "nested union": lambda: xs.Union([xs.Union([uneven(9)]), expander(11, seed)]),
    }
    return makers[kind]()


def autoencoder(kind="recipe", coder=None, *, tied=True, latent_bias=False, seed=0, **options):
    """An autoencoder whose parameters are all random."""
    coder = xs.TopK(k=3) if coder is None else coder
    sae = xs.SparseAutoencoder(dictionary(kind, seed), coder, tied=tied, latent_bias=latent_bias, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for block in (*sae.dictionary.modules(), *sae.encoder.modules()):
            if isinstance(block, xs.ExpanderDictionary):
                block.values.masked_fill_(block.rows < 0, 0)
        sae.scale.fill_(0.7 + seed / 10)
    return sae


def same(one, other):
    """Whether two autoencoders are bitwise the same, structure included."""
    mine, theirs = one.state_dict(), other.state_dict()
    return (
        mine.keys() == theirs.keys()
        and all(mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine)
        and torch.equal(one.dictionary.to_dense(), other.dictionary.to_dense())
        and torch.equal(one.encoder.to_dense(), other.encoder.to_dense())
        and (one.coder, one.provenance) == (other.coder, other.provenance)
    )


def tensor_file(folder):
    """The one tensor file of a folder."""
    (path,) = folder.glob("*.safetensors")
    return path


def rewrite_config(folder, change):
    """Let `change` edit config.json, and give it a valid checksum again, as a program that is not ours might."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps({**config, "checksum": checksum(config)}))


def rewrite_tensors(folder, change):
    """Let `change` edit the tensors, and make config.json fit them, as a program that is not ours might."""
    old = tensor_file(folder)
    tensors = load_file(old)
    change(tensors)
    replace_tensor_bytes(folder, to_bytes(tensors))


def make_version_1(folder):
    """Turn a folder whose one block has stored rows into what schema version 1 would have been."""
    rows = xs.SparseAutoencoder.load(folder).dictionary.rows

    def unpack(tensors):
        for part in ("remainders", "quotients", "order"):
            del tensors[f"rows.{part}"]
        tensors["rows"] = rows.to(torch.uint16)

    rewrite_tensors(folder, unpack)
    rewrite_config(folder, lambda config: (config.update(schema_version=1), config.pop("values")))


def replace_tensor_bytes(folder, data):
    """Other bytes in the tensor file, and a config.json that fits them."""
    tensor_file(folder).unlink()
    digest = hashlib.sha256(data).hexdigest()
    file = f"sae-{digest[:12]}.safetensors"
    (folder / file).write_bytes(data)
    rewrite_config(folder, lambda c: c.update(tensors={"file": file, "sha256": digest, "bytes": len(data)}))
