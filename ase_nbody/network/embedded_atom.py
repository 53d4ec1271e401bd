"""The configuration of what keeps a network sane outside its data (``nn.density``, ``nn.embedded_atom``)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
MAX_DECAY = 20.0


class EmbeddedAtomConfig(BaseModel):
    """The parameters of ``nn.embedded_atom.EmbeddedAtom``. Training fits them.

    Attributes:
        lengths: d in Angstrom by pair of species, ``{"H-O": 0.9}``, lighter element first.
        repulsion: A in eV, for the same pairs.
        binding: c in eV by species.
        decay: p and q, without unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    lengths: dict[str, Positive]
    repulsion: dict[str, NotNegative]
    binding: dict[str, NotNegative]
    decay: tuple[Annotated[float, Field(gt=0.0, le=MAX_DECAY)], Annotated[float, Field(gt=0.0, le=MAX_DECAY)]]

    @model_validator(mode="after")
    def _one_set_of_pairs(self) -> "EmbeddedAtomConfig":
        if self.lengths.keys() != self.repulsion.keys():
            raise ValueError("embedded_atom has lengths and repulsion of different pairs of species")
        if malformed := [pair for pair in self.lengths if pair.count("-") != 1]:
            raise ValueError(f"embedded_atom names the pair {malformed[0][:20]!r}; a pair is written as 'H-O'")
        return self

    def check(self, species: Sequence[str], *, all_atoms: bool) -> None:
        """Refuse a potential that does not fit its network.

        Args:
            species: those of the network.
            all_atoms: whether parts and children of level 1 are all atoms.

        Raises:
            ValueError: it names other species, or level 1 lacks atoms.
        """
        named = {*self.binding, *(symbol for pair in self.lengths for symbol in pair.split("-"))}
        if foreign := sorted(named - set(species)):
            raise ValueError(f"embedded_atom names {', '.join(foreign)[:100]}, which are not among species")
        if not all_atoms:
            raise ValueError(
                "embedded_atom needs level 1 to have parts and children 'all'; correct it, or leave it out"
            )


def check_density_limits(densest: Sequence[Mapping[str, float]], n_levels: int, species: Sequence[str]) -> None:
    """Refuse densities of levels or species that a network does not have.

    Raises:
        ValueError: there are such densities.
    """
    if len(densest) > n_levels:
        raise ValueError(f"densest has {len(densest)} entries for {n_levels} levels; give one for each")
    if foreign := sorted({symbol for densities in densest for symbol in densities} - set(species)):
        raise ValueError(f"densest names {', '.join(foreign)[:100]}, which are not among species")
