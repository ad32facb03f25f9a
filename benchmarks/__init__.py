"""Measurements of the repository itself: `make bench` runs them all and writes benchmarks/results/."""
