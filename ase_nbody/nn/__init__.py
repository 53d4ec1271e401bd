"""Layers of the network: species, radial functions, mixing, gates, read-outs."""

import torch

VECTOR_FUNCTIONS = (torch.cos, torch.exp, torch.sin, torch.sqrt)  # that layers use, of those that torch leaves to MKL

# Called once by one thread: MKL chooses the code of such a function at its first call, and if several of torch's
# threads make that call at a time, one of them may get code of 11 bits (pytorch issue 188792; here in 1 % of the
# processes with two threads).
for _dtype in (torch.float32, torch.float64):
    for _function in VECTOR_FUNCTIONS:
        _function(torch.ones(1, dtype=_dtype, device="cpu"))
