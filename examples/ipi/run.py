"""Ethanol at 300 K with i-PI: classical dynamics, or path-integral dynamics with several beads.

    python run.py [--beads 8] [--steps 300] [--model ethanol] [--output output]

It starts ``i-pi`` with a copy of ``ethanol.xml`` and, as its client, ``i-pi-py_driver`` with the network. The two talk
over a Unix socket, or with ``--inet PORT`` over a socket of the internet.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent  # i-pi and i-pi-py_driver stand beside this Python
PATIENCE_SECONDS = 300


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beads", type=int, default=8, help="beads of the ring polymer; 1 is classical (default: 8)")
    parser.add_argument("--steps", type=int, default=300, help="steps of 0.5 fs (default: %(default)s)")
    parser.add_argument("--model", default="ethanol", help="shipped model or model file (default: %(default)s)")
    parser.add_argument("--inet", type=int, metavar="PORT", help="use this port of localhost instead of a Unix socket")
    parser.add_argument("--output", type=Path, default=HERE / "output", help="folder to fill (default: %(default)s)")
    return parser.parse_args()


def write_input(options: argparse.Namespace, address: str) -> None:
    """Copy ``ethanol.xml`` with another number of beads and steps, and another socket."""
    tree = ElementTree.parse(HERE / "ethanol.xml")
    root = tree.getroot()
    root.find("total_steps").text = str(options.steps)
    root.find("system/initialize").set("nbeads", str(options.beads))
    server = root.find("ffsocket")
    server.find("address").text = address
    server.find("batch_size").text = str(options.beads)
    if options.inet:
        server.set("mode", "inet")
        ElementTree.SubElement(server, "port").text = str(options.inet)
    tree.write(options.output / "ethanol.xml")
    shutil.copy(HERE / "ethanol.xyz", options.output)


def driver_file() -> str:
    """The file that ``python -m ase_nbody.engines.ipi_driver`` names, found without importing it."""
    package = find_spec("ase_nbody")
    if package is None or package.origin is None:
        raise SystemExit("ase-nbody is not installed in this Python")
    return str(Path(package.origin).parent / "engines" / "ipi_driver.py")


def wait_for(server: subprocess.Popen[bytes], address: str, port: int | None) -> None:
    """Wait until i-PI listens."""
    for _ in range(10 * PATIENCE_SECONDS):
        if server.poll() is not None:
            raise SystemExit("i-PI has ended; ipi.log says why")
        family, where = (socket.AF_INET, (address, port)) if port else (socket.AF_UNIX, f"/tmp/ipi_{address}")
        with socket.socket(family) as probe:
            if port and probe.connect_ex(where) == 0:
                return
        if not port and os.path.exists(where):
            return
        time.sleep(0.1)
    raise SystemExit("i-PI does not listen; see ipi.log")


def follow(client: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the driver ends. Where i-PI's steps have failed, its socket may live on, and the driver would wait."""
    written = [folder / name for name in ("ipi.log", "ethanol.out")]
    try:
        while client.poll() is None:
            if time.time() - max(file.stat().st_mtime for file in written if file.exists()) > PATIENCE_SECONDS:
                raise SystemExit(f"i-PI has written nothing for {PATIENCE_SECONDS} seconds; ipi.log says why")
            time.sleep(0.1)
    finally:
        client.terminate()
    if client.returncode:
        raise SystemExit("the driver has failed; it has said why above, or in ipi.log")


def end(server: subprocess.Popen[bytes]) -> None:
    """End i-PI. It heeds no signal where its steps have failed and its socket lives on."""
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def main() -> None:
    options = command_line()
    options.output.mkdir(parents=True, exist_ok=True)
    address = "localhost" if options.inet else f"nbody_{os.getpid()}"
    write_input(options, address)
    where = ["-a", address, "-p", str(options.inet)] if options.inet else ["-u", "-a", address]
    model = str(Path(options.model).resolve()) if Path(options.model).is_file() else options.model
    driver = [SCRIPTS / "i-pi-py_driver", "-m", "custom", "-P", driver_file(), *where]
    print(f"i-PI and its driver start; {options.output / 'ipi.log'} has what they say.", flush=True)
    with open(options.output / "ipi.log", "w") as log:
        server = subprocess.Popen([SCRIPTS / "i-pi", "ethanol.xml"], cwd=options.output, stdout=log, stderr=log)
        try:
            wait_for(server, address, options.inet)
            command = [sys.executable, *driver, "-o", f"model={model},template=ethanol.xyz"]
            with subprocess.Popen(command, cwd=options.output, stdout=log) as client:
                follow(client, options.output)
            if server.wait(PATIENCE_SECONDS):
                raise SystemExit("i-PI has failed; ipi.log says why")
        finally:
            end(server)
            Path(f"/tmp/ipi_{address}").unlink(missing_ok=True)
    report(options)


def report(options: argparse.Namespace) -> None:
    """Print what the second half of the run says."""
    step, picoseconds, conserved, kelvin, potential, kinetic = np.loadtxt(options.output / "ethanol.out", unpack=True)
    late = step >= step[-1] / 2
    print(f"{options.beads} beads, {step[-1]:.0f} steps, {picoseconds[-1]:.3f} ps")
    print(f"Conserved energy: drifts by {1000 * np.ptp(conserved):.2f} meV per bead at most")
    print(f"Temperature: {kelvin[late].mean():.0f} K (target 300 K)")
    print(f"Kinetic energy: {kinetic[late].mean():.3f} eV (classical nuclei at 300 K: {27 * 0.5 * 0.025852:.3f} eV)")
    print(f"Potential energy: {potential[late].mean():.3f} eV. Files are in {options.output}.")


if __name__ == "__main__":
    main()
