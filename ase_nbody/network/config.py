"""The configuration: everything that determines a network except its weights."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers, covalent_radii
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ase_nbody.hierarchy.build import LABELS, LevelLayout, Selection
from ase_nbody.network.compact import Compact
from ase_nbody.network.coverage import Coverage
from ase_nbody.network.electronic_states import Multiplicities, TotalCharges
from ase_nbody.network.embedded_atom import EmbeddedAtomConfig, check_density_limits
from ase_nbody.network.forms import Products, check_product, one_for_both, with_type
from ase_nbody.network.outputs import known_outputs
from ase_nbody.so3.fragments import Type
from ase_nbody.so3.powers import power_couplings

MAX_LEVELS = 8  # a level takes some hundredths of a second to build, even if it has few weights
# Far beyond any use. Networks of a million channels take minutes and gigabytes before their weights can be counted.
Width = Annotated[int, Field(ge=1, le=4096)]
NumberOfFunctions = Annotated[int, Field(ge=1, le=256)]
Children = Literal["all", "heavy"] | tuple[str, ...]
Parts = Literal["all", "heavy", "labels"] | tuple[str, ...]
# What a network gives beside the energy: names of ``OUTPUTS``, sorted, each once.
Outputs = Annotated[tuple[str, ...], AfterValidator(known_outputs)]


class LevelConfig(Compact):
    """One level of the hierarchy.

    Attributes:
        parts: where the parts are: ``"all"`` atoms, ``"heavy"`` (all but hydrogen) or a list of chemical symbols; or
            ``"labels"``, one part for each label of the structure (see ``hierarchy.labelled``).
        children: which parts of the level below may be children, by their central atoms: ``"all"``, ``"heavy"`` or a
            list of symbols.
        radius: distance in Angstrom at which a child's weight has faded to zero.
        channels: fragments of each degree in a part's state; or the type of the aggregated state, such as
            ``64x0 + 32x1 + 16x2``, which takes the place of ``l_max``.
        l_max: highest degree of the aggregated state.
        l_out: highest degree of the state that is handed up.
        tau: multiplicities by degree, ``[64, 32, 16]``: the other notation of a type. ``channels`` and ``l_max`` follow
            from it.
        body_order: 1 + number of factors in the zeroth-order gate; 4 means triple products.
        product_decay: factor by which each further factor makes a product smaller in the zeroth-order gate.
        n_basis: size of the radial basis; in a labelled level for members and for other children each.
        radial_decay: power of 1/n by which the norm of the n-th function of the radial basis falls.
        n_radial: learned radial functions of the first-order gate; used where children have states with l > 0.
        message_channels: fragments of each degree that a child shows to its parents; used in the same case. Of children
            whose type falls with l it is the number for l = 0, and the others are in proportion.
        hidden: width of the hidden layer of the read-out.
        mean_children: typical number of children, by which sums over them are scaled. Training measures it.
        read_out: whether this level contributes to the energy and to other outputs. Labelled levels give the energy
            alone.
        product: how the gates multiply: ``gaunt`` or ``clebsch_gordan``, or one for each gate (see ``Products``).
        channel_pairs: whether the zeroth-order gate pairs ``equal`` channels or ``all``. The latter needs
            ``clebsch_gordan``.
        parity: ``natural``, or ``both``: then there are pseudo-tensors too. This needs ``clebsch_gordan``. The energy
            stays invariant under inversion.
        children_gate: whether powers of the sum of the children's own states, without directions, are taken too.
        species_gains: whether the species at a part's centre scales the fragments of its states.
        member_weights: of a labelled level, how members are weighted in the position of their part: by ``"mass"``, the
            default, or ``"equal"``.
    """

    newer = frozenset({"tau", "product", "channel_pairs", "parity", "children_gate", "species_gains", "member_weights"})

    parts: Parts = "all"
    children: Children = "all"
    radius: float = Field(5.0, ge=1e-3, le=100.0)
    channels: Width = 64
    l_max: int = Field(3, ge=0, le=8)
    l_out: int = Field(2, ge=0, le=8)
    body_order: int = Field(4, ge=2, le=8)
    product_decay: float = Field(1.0, ge=1e-3, le=1e3)
    n_basis: NumberOfFunctions = 8
    radial_decay: float = Field(1.0, ge=0.0)
    n_radial: NumberOfFunctions = 8
    message_channels: Width = 32
    hidden: Width = 32
    mean_children: float = Field(10.0, gt=0.0)
    read_out: bool = True
    tau: tuple[Width, ...] | None = Field(None, min_length=1, max_length=9)
    product: Annotated[Products, BeforeValidator(one_for_both)] = Products()
    channel_pairs: Literal["equal", "all"] = "equal"
    parity: Literal["natural", "both"] = "natural"
    children_gate: bool = False
    species_gains: bool = True
    member_weights: Literal["mass", "equal"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _type_of_state(cls, given: Any) -> Any:
        return with_type(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _weights_of_members(self) -> "LevelConfig":
        """A labelled level says how its members are weighted: files with such levels are known by this entry."""
        if self.is_labelled and self.member_weights is None:
            object.__setattr__(self, "member_weights", "mass")  # the model is frozen for others
        if self.member_weights is not None and not self.is_labelled:
            raise ValueError("member_weights is for parts: labels; leave it out")
        return self

    @model_validator(mode="after")
    def _possible_form(self) -> "LevelConfig":
        check_product(self.product, parity=self.parity, channel_pairs=self.channel_pairs)
        if self.product.zeroth_order == "clebsch_gordan":
            tau, both = self.tau or (self.channels,) * (self.l_max + 1), self.parity == "both"
            options = {"pseudo": both, "all_pairs": self.channel_pairs == "all"}
            # refuses too many fragments
            power_couplings(Type(tau, tau if both else ()), self.l_out, self.body_order - 1, **options)
        return self

    @field_validator("parts", "children")
    @classmethod
    def _known_symbols(cls, parts: Parts) -> Parts:
        if not isinstance(parts, str):
            _check_symbols(parts)
        return parts

    @property
    def is_labelled(self) -> bool:
        """Whether labels name the parts."""
        return self.parts == LABELS

    @property
    def layout(self) -> LevelLayout:
        """What the hierarchy needs to know of this level."""
        return LevelLayout(_selection(self.parts), _selection(self.children), self.radius, self.member_weights)


class NBodyConfig(Compact):
    """Everything that determines a network except its weights.

    Attributes:
        species: chemical symbols that the network knows, sorted by atomic number.
        levels: the levels above the atoms, the lowest first. The parts of each must be among those of the one below.
        embedding: channels of the species embedding; default: one per species, at most 8.
        isolated_atom_energies: energy in eV of each species far from everything, added in float64.
        energy_scale: eV per unit of the read-outs. Training measures it.
        repulsion: add the ZBL repulsion of the nuclei.
        closest_distances: closest distance in Angstrom of each pair of species in the training data, ``{"H-O": 0.9}``,
            lighter element first. For pairs that are closer, the radial functions hold still; for pairs that are
            missing here, they are zero. Training measures it; if it is empty, radial functions never hold still.
        outputs: what the network gives beside the energy. ``"charges"``: partial charges and atomic dipoles.
        coverage: the surroundings of atoms in the training data. Training measures it; without it, a structure unlike
            all of them causes no warning.
        densest: for each level, the highest density of children around each species in the training data,
            ``({"H": 3.1, "O": 4.2}, ...)``. States of denser parts fade out (see ``nn.density``). Training measures
            them; without them, states never fade.
        embedded_atom: the potential that the network adds to (see ``nn.embedded_atom``). Training fits it.
        total_charges: total charges in e of the training data, if others are to be refused.
        multiplicities: spin multiplicities of the training data, if others are to be refused.
    """

    newer = frozenset({"outputs", "coverage", "densest", "embedded_atom", "total_charges", "multiplicities"})

    species: tuple[str, ...] = Field(min_length=1)
    levels: tuple[LevelConfig, ...] = Field(
        default=(LevelConfig(), LevelConfig(parts="heavy", children="heavy", l_out=0)),
        min_length=1,
        max_length=MAX_LEVELS,
    )
    embedding: Width | None = None
    isolated_atom_energies: dict[str, float] = Field(default_factory=dict)
    energy_scale: float = Field(1.0, gt=0.0)
    repulsion: bool = False
    closest_distances: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    outputs: Outputs = ()
    coverage: Coverage | None = None
    densest: tuple[dict[str, Annotated[float, Field(gt=0.0)]], ...] = ()
    embedded_atom: EmbeddedAtomConfig | None = None
    total_charges: TotalCharges | None = None
    multiplicities: Multiplicities | None = None

    @field_validator("species")
    @classmethod
    def _sorted_species(cls, species: tuple[str, ...]) -> tuple[str, ...]:
        _check_symbols(species)
        return tuple(sorted(set(species), key=atomic_numbers.__getitem__))

    @model_validator(mode="after")
    def _consistent(self) -> "NBodyConfig":
        foreign = set(self.isolated_atom_energies) - set(self.species)
        if foreign:
            raise ValueError(f"isolated_atom_energies names {sorted(foreign)}, which are not among species")
        pairs = {f"{lighter}-{heavier}" for i, lighter in enumerate(self.species) for heavier in self.species[i:]}
        if foreign := set(self.closest_distances) - pairs:
            raise ValueError(f"closest_distances names {sorted(foreign)}; allowed are {', '.join(sorted(pairs))}")
        longest = max(self.closest_distances, key=self.closest_distances.__getitem__, default=None)
        if longest is not None and not self.closest_distances[longest] <= self.cutoff:
            raise ValueError(
                f"closest_distances gives {self.closest_distances[longest]:g} Angstrom for {longest}; distances are "
                f"measured up to the largest radius, {self.cutoff:g} Angstrom"
            )
        below = set(self.species)
        around_atoms = self._check_labelled_levels()
        for number, level in enumerate(self.levels[: around_atoms + 1], start=1):
            centres = self._centres(level.parts)
            # "all" and "heavy" take whatever the level below has; a symbol must name some of its parts.
            named = set() if isinstance(level.children, str) else set(level.children)
            for kind, chosen in (("parts", centres), ("children", named)):
                if not chosen <= below:
                    raise ValueError(
                        f"level {number} has {kind} at {sorted(chosen - below)}, where the level below has none: "
                        f"each level's {kind} must be among the parts of the level below"
                    )
            below = centres
        first, contact = self.levels[0], 2 * max(covalent_radii[atomic_numbers[symbol]] for symbol in self.species)
        if self.outputs and not any(level.read_out for level in self.levels[:around_atoms]):
            raise ValueError(
                f"outputs {', '.join(self.outputs)} come from levels that are read out, and here is none"
                f"{' around atoms' if self.is_labelled else ''}: set read_out: true for a level, or leave out outputs"
            )
        check_density_limits(self.densest, len(self.levels), self.species)
        if self.embedded_atom is not None:
            self.embedded_atom.check(self.species, all_atoms=first.parts == first.children == "all")
        if self.repulsion and (first.parts != "all" or first.children != "all" or first.radius < contact):
            raise ValueError(
                f"repulsion needs level 1 to have parts and children 'all' and a radius of at least {contact:.2f} "
                "Angstrom, the largest sum of covalent radii; correct the level, or set repulsion: false"
            )
        return self

    def _check_labelled_levels(self) -> int:
        """Refuse labelled levels in the wrong place; return the number of levels around atoms, which are below."""
        labelled = [level.is_labelled for level in self.levels]
        first = labelled.index(True) if any(labelled) else len(labelled)
        if first == 0:
            raise ValueError(
                "level 1 has parts: labels, but the lowest level must have parts around atoms: "
                "put a level with parts: all below it"
            )
        if not all(labelled[first:]):
            number = first + labelled[first:].index(False) + 1
            raise ValueError(
                f"level {number} has parts around atoms, which the labelled level below it does not have: "
                "move it below the levels with parts: labels"
            )
        for number, level in enumerate(self.levels[first + 1 :], start=first + 2):
            if level.children != "all":
                raise ValueError(f"level {number} stands on a labelled level, all of whose parts are children: all")
        return first

    @property
    def is_labelled(self) -> bool:
        """Whether the network has levels of labelled parts, and so needs the labels of a structure."""
        return any(level.is_labelled for level in self.levels)

    def _centres(self, parts: Parts) -> set[str]:
        """Species of the atoms at the centres of a level's parts; none, if labels name them."""
        if parts == LABELS:
            return set()
        if isinstance(parts, str):
            return set(self.species) - ({"H"} if parts == "heavy" else set())
        return set(parts)

    @property
    def layout(self) -> tuple[LevelLayout, ...]:
        """What the hierarchy needs to know of the levels."""
        return tuple(level.layout for level in self.levels)

    @property
    def cutoff(self) -> float:
        """Largest radius of the levels in Angstrom."""
        return max(level.radius for level in self.levels)

    @property
    def reach(self) -> float:
        """Distance in Angstrom beyond which atoms do not influence each other's energies: the sum of the radii.

        In a network with labelled levels the extent of the parts comes on top.
        """
        return sum(level.radius for level in self.levels)


def _selection(parts: Parts) -> Selection:
    return parts if isinstance(parts, str) else tuple(atomic_numbers[symbol] for symbol in parts)


def _check_symbols(symbols: Sequence[str]) -> None:
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise ValueError(f"{symbol!r} is not a chemical symbol (write them as 'H', 'Si', ...)")
