"""Sparse coding, encoders and dictionaries apart: who finds planted codes, at what price, given what is known."""
