import ase
import pytest
import torch
from pydantic import ValidationError

from ase_nbody.network.config import NBodyConfig
from ase_nbody.network.network import NBodyNetwork
from ase_nbody.nn.closest_approach import FOLLOWS
from ase_nbody.nn.repulsion import ZBLRepulsion
from ase_nbody.so3 import rotation_matrix
from ase_nbody.testing import assert_covariant

LEVELS = pytest.mark.parametrize("number", [0, 1])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def level_function(network: NBodyNetwork, hierarchy, number: int):
    """States of a level from those below and the pair vectors, and a state and vectors to try it on."""
    level, layer = hierarchy.levels[number], network.levels[number]
    species = network.one_hot[hierarchy.numbers[level.centre]]
    tau = network.embedding.tau_out if number == 0 else network.levels[number - 1].tau_out
    below = len(hierarchy.numbers) if number == 0 else len(hierarchy.levels[number - 1].centre)
    state = random(tau.components, below, tau.channels)
    radius = network.config.levels[number].radius
    vectors = torch.where(level.mask.unsqueeze(-1), 0.3 * radius * random(*level.mask.shape, 3, seed=1), 2.0 * radius)
    return (
        (lambda state, vectors: layer(state, vectors.movedim(-1, 0), vectors.norm(dim=-1), level, species)),
        state,
        vectors,
        tau.l_max,
        layer.tau_out.l_max,
    )


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("name", ["molecule", "triclinic"])
def test_covariance_of_a_level(number, name, three_levels, hierarchy_of, systems):
    function, state, vectors, l_in, l_out = level_function(
        three_levels, hierarchy_of(three_levels, systems[name]()), number
    )
    assert_covariant(lambda *given: function(*given)[0], state, l_in, l_out, vectors=vectors)
    if three_levels.config.levels[number].read_out:
        assert_covariant(lambda *given: function(*given)[1].unsqueeze(0), state, l_in, 0, vectors=vectors)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_broken_covariance_of_a_level_is_refused(number, three_levels, hierarchy_of, systems, broken_representation):
    function, state, vectors, l_in, l_out = level_function(
        three_levels, hierarchy_of(three_levels, systems["triclinic"]()), number
    )
    with pytest.raises(AssertionError, match="not covariant"):
        assert_covariant(
            lambda *given: function(*given)[0],
            state,
            l_in,
            l_out,
            vectors=vectors,
            representation=broken_representation,
        )


def test_covariance_survives_a_round_trip_through_float32(make_network, hierarchy_of, systems):
    network = make_network(seed=3).to(torch.float32).to(torch.float64)
    hierarchy = hierarchy_of(network, systems["triclinic"]())
    for number in range(2):
        function, state, vectors, l_in, l_out = level_function(network, hierarchy, number)
        assert_covariant(lambda *given, f=function: f(*given)[0], state, l_in, l_out, vectors=vectors)


@LEVELS
def test_state_of_another_parity_would_be_noticed(number, network, hierarchy_of, systems):
    """The energies change if a vector is put in with the parity of an axial one: the states are truly polar."""
    function, state, vectors, l_in, _ = level_function(network, hierarchy_of(network, systems["triclinic"]()), number)
    inversion = -torch.eye(3, dtype=torch.float64)
    turned = torch.tensordot(rotation_matrix(l_in, inversion), state, dims=1)
    energy = function(state, vectors)[1]
    torch.testing.assert_close(function(turned, -vectors)[1], energy)
    if l_in > 0:
        assert not torch.allclose(function(state, -vectors)[1], energy, rtol=1e-3)


def test_energies_of_the_parts_of_each_level(three_levels, hierarchy_of, predict, system):
    hierarchy = hierarchy_of(three_levels, system)
    parts = predict(three_levels, system).parts
    assert [part.shape for part in parts] == [level.centre.shape for level in hierarchy.levels]
    assert not parts[1].any()  # not read out


def test_a_part_without_children_has_no_energy(network, hierarchy_of, predict, systems):
    for name in ("lone carbon", "no neighbours"):
        assert not any(part.any() for part in predict(network, systems[name]()).parts)


def test_repulsion_beyond_the_radius_is_refused_or_counted(make_network, predict):
    """Caesium repels caesium up to 4.88 Angstrom: not to be cut off where the list of neighbours happens to end."""
    pair = ase.Atoms("Cs2", positions=[[0.0, 0.0, 0.0], [4.2, 0.0, 0.0]])
    try:
        network = make_network(species=("C", "H", "O", "Cs"), isolated_atom_energies={}, repulsion=True)
    except ValidationError:
        return
    torch.testing.assert_close(predict(network, pair).energy, predict(network, pair, skin=1.0).energy)


def dimer(distance, symbols="CO"):
    return ase.Atoms(symbols, positions=[[0.0, 0.0, 0.0], [0.0, 0.6 * distance, 0.8 * distance]])


def changed(network, **changes):
    """The same weights with another configuration."""
    other = NBodyNetwork(network.config.model_copy(update=changes))
    other.load_state_dict(network.state_dict())
    return other.requires_grad_(False)


def test_what_training_saw_is_not_touched_by_the_closest_distances(network, predict):
    held = changed(network, closest_distances={"H-C": 1.0, "H-O": 0.9, "C-O": 1.3})
    methanol = ase.build.molecule("CH3OH")
    atoms = methanol[[0, 1, 3]]  # C, O and the hydrogen at O: H-H is missing in the table, it was never seen
    for prediction, expected in zip(predict(held, atoms).parts, predict(network, atoms).parts, strict=True):
        assert torch.equal(prediction, expected)


def test_closer_than_training_saw_the_repulsion_is_all_that_changes(network, predict):
    network = changed(network, closest_distances={"C-C": 1.4, "C-O": 1.4, "O-O": 2.4}, repulsion=True)
    energy = {r: float(predict(network, dimer(r)).energy) for r in (0.2, 0.3, 0.9)}
    carbon, oxygen, reach = torch.tensor([6]), torch.tensor([[8]]), torch.tensor([[FOLLOWS * 1.4]], dtype=torch.float64)

    def repulsion(r):
        return 2.0 * float(ZBLRepulsion()(carbon, oxygen, torch.tensor([[r]], dtype=torch.float64), reach))

    for r in (0.2, 0.3):
        assert energy[r] - energy[0.9] == pytest.approx(repulsion(r) - repulsion(0.9), rel=1e-9)


@pytest.mark.parametrize("repulsion", [False, True])
def test_a_pair_that_training_never_saw_feels_the_repulsion_alone(repulsion, network, predict):
    network = changed(network, closest_distances={"C-C": 1.3, "O-O": 2.4}, repulsion=repulsion)
    for r in (0.5, 1.2, 2.0, 3.0):
        energy = float(torch.cat(predict(network, dimer(r)).parts).sum())
        assert (energy > 1e-4) if repulsion else energy == 0.0
    assert abs(float(torch.cat(predict(network, dimer(1.4, "CC")).parts).sum())) > 1e-3


def test_species_make_a_difference(network, predict, systems):
    carbon, oxygen = systems["triclinic"](), systems["triclinic"]()
    oxygen.numbers[1] = 8
    first, second = (predict(network, atoms).parts for atoms in (carbon, oxygen))
    for one, other in zip(first, second, strict=True):
        assert not torch.allclose(one, other, rtol=1e-3)


def test_the_seed_fixes_the_weights(make_config):
    networks = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            networks.append(NBodyNetwork(make_config()).state_dict())
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_weights_are_float64_until_they_are_changed(make_config):
    network = NBodyNetwork(make_config())
    assert network.dtype == torch.float64
    assert network.float().dtype == torch.float32
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"species": ["H"], "cutof": 3.0}, "cutof"),
        ({"species": ["H"], "levels": [{"radious": 3.0}]}, "radious"),
        ({"species": []}, "species"),
        ({"species": ["H", "Xx"]}, "'Xx' is not a chemical symbol"),
        ({"species": ["h"]}, "'h' is not a chemical symbol"),
        ({"species": ["X"]}, "'X' is not a chemical symbol"),
        ({"species": ["O"], "levels": [{"parts": ["Ox"]}]}, "'Ox' is not a chemical symbol"),
        ({"species": ["O"], "levels": [{"parts": "light"}]}, "'all', 'heavy' or 'labels'"),
        ({"species": ["H", "O"], "levels": [{"parts": "heavy"}, {"parts": "all"}]}, "level 2 has parts at ['H']"),
        ({"species": ["H", "O"], "levels": [{}, {"parts": ["C"]}]}, "level 2 has parts at ['C']"),
        ({"species": ["O"], "levels": [{"children": ["Fe"]}]}, "level 1 has children at ['Fe']"),
        ({"species": ["H"], "isolated_atom_energies": {"O": 1.0}}, "names ['O'], which are not among species"),
        ({"species": ["H", "O"], "levels": [{"parts": "heavy"}], "repulsion": True}, "repulsion needs level 1"),
        (
            {"species": ["H", "O"], "levels": [{"children": "heavy"}], "repulsion": True},
            "repulsion needs level 1",
        ),
        ({"species": ["H"], "levels": []}, "levels"),
        ({"species": ["H"], "outputs": ["spins"]}, "outputs"),
        ({"species": ["H"], "levels": [{"radius": 0.0}]}, "radius"),
        ({"species": ["H"], "levels": [{"radius": float("nan")}]}, "radius"),
        ({"species": ["H"], "levels": [{"radius": float("inf")}]}, "radius"),
        ({"species": ["H"], "levels": [{"body_order": 1}]}, "body_order"),
        ({"species": ["H"], "energy_scale": -1.0}, "energy_scale"),
        ({"species": ["H"], "energy_scale": float("inf")}, "energy_scale"),
        ({"species": ["H"], "isolated_atom_energies": {"H": float("nan")}}, "isolated_atom_energies"),
        ({"species": ["H", "O"], "closest_distances": {"O-H": 1.0}}, "allowed are H-H, H-O, O-O"),
        ({"species": ["H", "O"], "closest_distances": {"H-O": 0.0}}, "closest_distances.H-O"),
        ({"species": ["H", "O"], "closest_distances": {"H-O": 1e300}}, "1e+300 Angstrom for H-O"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_configuration_is_refused_by_name(config, message):
    with pytest.raises(ValidationError) as error:
        NBodyConfig.model_validate(config)
    assert message in str(error.value)


def test_configuration_is_immutable(make_config):
    with pytest.raises(ValidationError, match="frozen"):
        make_config().energy_scale = 2.0


def test_outputs_are_sorted_and_unique_and_left_out_where_there_are_none():
    assert NBodyConfig(species=("H",), outputs=["charges", "charges"]).outputs == ("charges",)
    for dumped in (NBodyConfig(species=("H",)).model_dump(), NBodyConfig(species=("H",)).model_dump(mode="json")):
        assert "outputs" not in dumped


def test_species_are_sorted_and_unique():
    assert NBodyConfig(species=("O", "H", "C", "H")).species == ("H", "C", "O")


def test_cutoff_and_reach(three_levels):
    assert three_levels.config.cutoff == 3.9
    assert three_levels.config.reach == 3.4 + 2.9 + 3.9


@pytest.mark.parametrize("outputs", [(), ("charges",)])
def test_configuration_survives_json(outputs, make_config):
    config = make_config(repulsion=True, embedding=3, outputs=outputs)
    assert NBodyConfig.model_validate_json(config.model_dump_json()) == config
