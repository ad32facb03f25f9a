"""Activations of language models: where they come from, and the store that keeps them on disk."""
