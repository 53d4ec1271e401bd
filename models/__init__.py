"""The models that ship with the package: ``NBodyCalculator("ethanol")``. Each has its card beside it."""
