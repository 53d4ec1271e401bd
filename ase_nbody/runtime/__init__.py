"""How the potential is run: eagerly or compiled, whole or block by block, on how many threads."""
