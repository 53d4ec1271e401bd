"""What a network declares without being built is what it has when it is built."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_nbody.hierarchy.build import build_hierarchy
from ase_nbody.network.config import LevelConfig, NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.structure import Structure

SPECIES = ("H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Cu")
SMALL = st.integers(1, 4)


def any_level(**entries) -> LevelConfig:
    """A level whose entries go together: a type takes the place of ``l_max``, and both parities need free weights."""
    if entries["tau"]:
        del entries["channels"], entries["l_max"]
    if "gaunt" in entries["product"].values():
        entries["parity"] = "natural"
    if entries["product"]["zeroth_order"] == "gaunt":
        entries["channel_pairs"] = "equal"
    if entries["channel_pairs"] == "all":
        entries["body_order"] = min(entries["body_order"], 3)  # there would be thousands of triples
    return LevelConfig(**entries)


PRODUCT = st.sampled_from(["gaunt", "clebsch_gordan"])
LEVELS = st.builds(
    any_level,
    channels=SMALL,
    tau=st.none() | st.lists(SMALL, min_size=1, max_size=4),
    product=st.fixed_dictionaries({"first_order": PRODUCT, "zeroth_order": PRODUCT}),
    channel_pairs=st.sampled_from(["equal", "equal", "all"]),
    parity=st.sampled_from(["natural", "both"]),
    children_gate=st.booleans(),
    species_gains=st.booleans(),
    l_max=st.integers(0, 3),
    l_out=st.integers(0, 3),
    body_order=st.integers(2, 3) | st.just(4),
    n_basis=SMALL,
    n_radial=SMALL,
    message_channels=SMALL,
    hidden=SMALL,
    read_out=st.booleans(),
)


def with_outputs(config: NBodyConfig, outputs: tuple[str, ...]) -> NBodyConfig:
    """The configuration with these outputs; the last level of a network that has any is read out."""
    *lower, last = config.levels
    levels = (*lower, last.model_copy(update={"read_out": last.read_out or bool(outputs)}))
    return NBodyConfig.model_validate({**config.model_dump(), "levels": levels, "outputs": outputs})


CONFIGURATIONS = st.builds(
    with_outputs,
    st.builds(
        NBodyConfig,
        species=st.lists(st.sampled_from(SPECIES), min_size=1, max_size=10).map(tuple),
        levels=st.lists(LEVELS, min_size=1, max_size=3).map(tuple),
        embedding=st.none() | SMALL,
        repulsion=st.booleans(),
    ),
    st.sampled_from([(), ("charges",)]),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(config=CONFIGURATIONS)
def test_declared_weights_are_those_of_the_network(config):
    network = NBodyNetwork(config)
    declared = NBodyNetwork.declared_weights(config)
    assert list(declared) == list(network.state_dict()) == [name for name, _ in network.named_parameters()]
    for name, weight in network.state_dict().items():
        assert declared[name].shape == tuple(weight.shape), name
        assert declared[name].size == weight.numel()
        assert not declared[name].matrix or weight.dim() >= 2
    assert [level.tau_out for level in network.levels] == network.taus[1:] == NBodyNetwork.taus_of(config)[1:]
    assert NBodyNetwork.taus_of(config)[0] == network.embedding.tau_out


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(config=CONFIGURATIONS)
def test_named_outputs_are_those_of_the_network(config):
    """Their names, order and shapes, and the types of the states beside them."""
    network = NBodyNetwork(config)
    atoms = len(config.species) + 1
    numbers = [*config.species, config.species[0]]
    positions = torch.arange(3.0 * atoms, dtype=torch.float64).view(atoms, 3)
    hierarchy = build_hierarchy(_structure(numbers, positions), config.layout)
    one_hot = network.one_hot[hierarchy.numbers]
    state = network.embedding(one_hot)
    for number, level in enumerate(hierarchy.levels):
        vectors = torch.ones(3, *level.mask.shape, dtype=torch.float64)
        state, outputs = network.ascend(number, state, vectors, level, hierarchy.numbers, one_hot)
        tau, parts = NBodyNetwork.taus_of(config)[number + 1], len(level.centre)
        assert state.shape == (tau.components, parts, tau.channels)
        assert tuple(outputs) == NBodyNetwork.output_names(config, number)
        assert {name: output.shape for name, output in outputs.items()} == {
            name: (3, parts) if name == "dipole" else (parts,) for name in outputs
        }


def _structure(symbols: list[str], positions: torch.Tensor) -> Structure:
    from ase import Atoms

    return Structure.from_atoms(Atoms(symbols, positions=positions.numpy()))


def test_nothing_is_built_for_gigabytes():
    levels = (LevelConfig(channels=4096), LevelConfig(n_basis=256, hidden=4096))
    declared = NBodyNetwork.declared_weights(NBodyConfig(species=("H", "O"), levels=levels, outputs=("charges",)))
    assert declared["levels.0.hand_up.weight"].size == 3 * 3 * 4096**2
    assert declared["heads.1.charge.hidden"].shape == (64, 4096)


def test_muon_takes_the_matrices_and_no_tables_of_species(make_config):
    declared = NBodyNetwork.declared_weights(make_config(outputs=("charges",)))
    kinds = {name.split(".", 2)[-1] if name[0] != "e" else name: weight.matrix for name, weight in declared.items()}
    matrices = {name for name, matrix in kinds.items() if matrix}
    assert matrices == {
        *(f"{mixing}.weight" for mixing in ("message", "aggregate", "inherit", "hand_up")),
        *("first_order.radial", "read_out.hidden", "charge.hidden"),
    }
    assert kinds.keys() - matrices == {
        *("embedding.weight", "state_gain.weight", "product_gain.weight", "read_out.linear", "read_out.output"),
        *("charge.linear", "charge.output", "dipole.weight"),
    }


@pytest.mark.parametrize("changes", [{}, {"embedding": 3, "species": ("H",), "isolated_atom_energies": {}}])
def test_heads_leave_the_other_weights_as_they_are(changes, make_config):
    """They stay the same to the bit, because heads are drawn last."""
    found = []
    for outputs in ((), ("charges",)):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            found.append(NBodyNetwork(make_config(outputs=outputs, **changes)).state_dict())
    plain, more = found
    assert all(torch.equal(weight, more[name]) for name, weight in plain.items())
    assert {name.split(".")[0] for name in more.keys() - plain.keys()} == {"heads"}
    assert list(more)[: len(plain)] == list(plain)
