"""The sample world: the makers of the built-in corpus and of the weights that fit it, and what they made."""
