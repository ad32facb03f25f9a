"""Recovery: how many of how many features can be active before a coder no longer finds exactly them."""
