"""Experiments: each a config, a run and a table."""
