"""Training: configuration, optimiser, loss, loop. Needs the ``train`` extra (lightning)."""
