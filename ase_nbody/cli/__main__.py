"""``python -m ase_nbody.cli``: the command line without its installed script."""

from ase_nbody.cli import main

main()
