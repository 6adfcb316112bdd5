"""How people ask, for each family of the world's second version: wordings, names of things, and how one is chosen."""
