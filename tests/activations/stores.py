"""A pretended harvest: documents of known tokens and activations, written as a real one would be, resume included."""

import torch

from expander_sae.activations.store import StoreWriter, Tokens

WIDTH = 6
DOCUMENTS = 30
ORIGIN = {"model": "some/model", "hookpoint": "layers.1", "bos": True}


def document(number):
    """The tokens of one document; the first one of every fourth document is massive."""
    generator = torch.Generator().manual_seed(number)
    length = 1 + number * 7 % 11
    activations = torch.randn(length, WIDTH, generator=generator) + 1
    if number % 4 == 3:
        activations[0] *= 100
    ids = torch.randint(0, 1000, (length,), generator=generator, dtype=torch.int32)
    numbers = torch.full((length,), number, dtype=torch.int32)
    return Tokens(activations, ids, numbers, torch.arange(length, dtype=torch.int32), torch.zeros(length).bool())


def documents(count=DOCUMENTS):
    """All tokens of the first documents."""
    return Tokens.concatenated([document(number) for number in range(count)])


def arguments(tokens):
    """What `append` takes."""
    return tokens.activations, tokens.token_ids, tokens.document, tokens.position


def writer(path, **changes):
    """A writer for the pretended harvest."""
    options = {"width": WIDTH, "dtype": torch.float16, "origin": ORIGIN, "tokens_per_shard": 16}
    return StoreWriter(path, **{**options, **changes})


def give(target, count=DOCUMENTS, *, start=None, together=2):
    """Append documents, some at a time, from the writer's resume point on; the cursor is the next document."""
    if start is None:
        start = (target.resume_point().cursor or {"next": 0})["next"]
    for first in range(start, count, together):
        end = min(first + together, count)
        tokens = Tokens.concatenated([document(number) for number in range(first, end)])
        target.append(*arguments(tokens), cursor={"next": end})


def harvest(path, count=DOCUMENTS, *, together=2, **changes):
    """Make or go on with the store of the first documents, to its end; its path."""
    with writer(path, **changes) as target:
        give(target, count, together=together)
        target.finish()
    return path


def content(path):
    """Every file of a folder, by name."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def same_tokens(one, other):
    """Whether tokens are equal in all but activations' dtype and the flag of massive ones."""
    names = ("token_ids", "document", "position")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names) and torch.equal(
        one.activations.float(), other.activations.to(one.activations.dtype).float()
    )
