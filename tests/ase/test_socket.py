"""Energies and forces through the i-PI socket protocol."""

import threading
import uuid

import ase
import numpy as np
import pytest
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.optimize import BFGS

from ase_nbody import NBodyCalculator, NBodyNetwork


def serve_forces(name: str, atoms: ase.Atoms, network: NBodyNetwork, stress: bool) -> None:
    """Serve forces as an i-PI client script does."""
    atoms.calc = NBodyCalculator(network)
    SocketClient(unixsocket=name).run(atoms, use_stress=stress)


@pytest.mark.parametrize("periodic", [True, False], ids=["crystal", "cluster"])
def test_forces_through_a_socket(
    periodic: bool, crystal: ase.Atoms, tetrahedron: ase.Atoms, copper_network: NBodyNetwork
) -> None:
    direct = crystal if periodic else tetrahedron
    direct.rattle(0.05, seed=1)
    atoms, name = direct.copy(), f"nbody-{uuid.uuid4().hex}"
    if not periodic:
        atoms.cell = direct.cell = 12.0 * np.eye(3)  # the protocol always sends a cell
    with SocketIOCalculator(unixsocket=name) as atoms.calc:
        client = threading.Thread(target=serve_forces, args=(name, atoms.copy(), copper_network, periodic))
        client.start()
        for _ in range(3):
            assert atoms.get_potential_energy() == pytest.approx(direct.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(atoms.get_forces(), direct.get_forces(), atol=1e-9)
            if periodic:
                np.testing.assert_allclose(atoms.get_stress(), direct.get_stress(), atol=1e-9)
                direct.set_cell(1.01 * direct.cell, scale_atoms=True)
            direct.rattle(0.02, seed=2)
            atoms.set_cell(direct.cell)
            atoms.positions = direct.positions
        if not periodic:
            assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=50)
    client.join(timeout=30.0)
    assert not client.is_alive()
