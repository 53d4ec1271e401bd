"""The forms that the products and types of a level may have, as a configuration writes them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ase_nbody.so3.fragments import parse_type

Product = Literal["gaunt", "clebsch_gordan"]


class Products(BaseModel):
    """How each gate of a level multiplies.

    ``gaunt`` adds up all paths (l1, l2) -> l with Gaunt's fixed weights; ``clebsch_gordan`` keeps fragments for each
    path, which the mixing that follows weighs freely.

    Attributes:
        first_order: products of the children's states with their directions. Children that have l = 0 only are
            multiplied in one way.
        zeroth_order: powers of the aggregated state, and of the sum of the children's states.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_order: Product = "gaunt"
    zeroth_order: Product = "gaunt"


def one_for_both(given: Any) -> Any:
    """``clebsch_gordan`` is short for ``{first_order: clebsch_gordan, zeroth_order: clebsch_gordan}``."""
    return {"first_order": given, "zeroth_order": given} if isinstance(given, str) else given


def check_product(product: Products, *, parity: str, channel_pairs: str) -> None:
    """Refuse options that Gaunt's product does not have.

    Raises:
        ValueError: a gate with Gaunt's product has pseudo-tensors, or is to pair all channels.
    """
    if parity == "both" and "gaunt" in (product.first_order, product.zeroth_order):
        raise ValueError("parity: both needs product: clebsch_gordan, because Gaunt's product makes no pseudo-tensors")
    if channel_pairs == "all" and product.zeroth_order == "gaunt":
        raise ValueError("channel_pairs: all needs product: clebsch_gordan; Gaunt's product pairs equal channels")


def with_type(given: dict[str, Any]) -> dict[str, Any]:
    """The entries of a level with the type of its state as ``tau``, which determines ``channels`` and ``l_max``.

    ``channels: 64x0 + 32x1`` and ``tau: [64, 32]`` are the same.

    Raises:
        ValueError: the type is not one, is given twice, or contradicts another entry.
    """
    # Strict validation takes lists for tuples in JSON alone, and forgets after this function that it reads JSON.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    channels, tau = given.get("channels"), given.get("tau")
    if isinstance(channels, str):
        if tau is not None:
            raise ValueError("give the type as channels or as tau, not both")
        tau = parse_type(channels)
    elif not isinstance(tau, tuple) or not tau or not all(type(count) is int for count in tau):
        return given  # no type, or one that the field refuses
    implied = {"channels": tau[0], "l_max": len(tau) - 1}
    for name, value in implied.items():
        if name in given and given[name] != value and not isinstance(given[name], str):
            written = " + ".join(f"{count}x{degree}" for degree, count in enumerate(tau))
            raise ValueError(f"the type {written[:100]} has {name} = {value}: leave out {name}")
    return {**given, **implied, "tau": tau}
