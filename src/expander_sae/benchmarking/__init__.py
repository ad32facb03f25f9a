"""How much faster and smaller an expander dictionary is on this machine: ratios, measured side by side."""
