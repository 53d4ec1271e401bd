"""How the potential is run: eagerly or compiled, whole or block by block, on how many threads.

Read the files in this order: ``evaluator`` (networks on structures), ``runner`` (which way to run one network), then
the ways: ``blocks`` and ``threads``, ``cuda_graph``, ``compiled`` (what is compiled) with ``aot``, ``aot_key``,
``aot_cache`` and ``aot_loader`` (how), and ``formulas`` (equations rewritten for speed). ``fallback`` gives up a way
that fails, ``memory`` estimates what fits, and ``extrapolation`` warns of atoms that are too close together.
"""
