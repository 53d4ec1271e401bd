"""The layers of the network, each with its equation.

In the order in which an evaluation meets them: ``species`` (the atoms' states), ``closest_approach`` and ``radial``
(functions of the distance), ``mixing`` and ``gates`` (Kondor 2018, section 4), ``heads`` (energies), ``repulsion``.
"""
