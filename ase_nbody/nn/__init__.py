"""The layers of the network, each with its equation.

In the order in which an evaluation meets them: ``species`` (the atoms' states), ``closest_approach`` and ``radial``
(functions of the distance), ``mixing`` and ``gates`` (Kondor 2018, section 4), ``heads`` (energies and other outputs of
a part), ``repulsion``, ``charges`` (partial charges and dipole moments). ``weights`` declares the sizes of weights.
"""
