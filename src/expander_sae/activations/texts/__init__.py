"""Texts: documents from any source, cut into pieces of tokens, padded into batches."""

from expander_sae.activations.texts.files import Document, Part
from expander_sae.activations.texts.sources import documents, pinned
from expander_sae.activations.texts.tokens import (
    Batch,
    Pieces,
    TokenisedDocument,
    Tokenizer,
    batches_by_length,
    puts_bos,
    tokenise,
)

__all__ = [
    "Batch",
    "Document",
    "Part",
    "Pieces",
    "TokenisedDocument",
    "Tokenizer",
    "batches_by_length",
    "documents",
    "pinned",
    "puts_bos",
    "tokenise",
]
