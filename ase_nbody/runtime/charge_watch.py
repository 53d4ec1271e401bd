"""Notice a total charge that the networks do not look at, and warn once."""

import warnings


class ChargeWarning(UserWarning):
    """The structure has a total charge, and the model has no use for it."""


class ChargeWatch:
    """Warns once about a structure with a charge that the networks ignore.

    If the user has made the warning an error, it is raised for every such structure.

    Args:
        used: whether the networks look at the total charge; then nothing is said.
    """

    def __init__(self, used: bool) -> None:
        self.quiet = used

    def check(self, charge: float) -> None:
        """Warn if the total charge in e is not zero.

        Warns:
            ChargeWarning: it is not zero, and there has been no such warning before.
        """
        if self.quiet or not charge:
            return
        warnings.warn(
            f"the structure has a total charge of {charge:+g} e (atoms.info['charge']), which this model does not look "
            "at: its energy and forces are those without a charge, unless all its training data had this one. "
            "This warning comes only once.",
            ChargeWarning,
            2,
        )
        self.quiet = True  # reached only if the warning is not an error
