"""The configuration of the embedded-atom potential that a network may stand on."""

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

    @property
    def symbols(self) -> set[str]:
        """All species that it names."""
        return {*self.binding, *(symbol for pair in self.lengths for symbol in pair.split("-"))}
