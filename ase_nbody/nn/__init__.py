"""Layers of the network: species, radial functions, mixing, gates, read-outs."""
