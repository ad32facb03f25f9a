"""A language model as a judge of features: what it says they stand for, and how well that foretells them."""
