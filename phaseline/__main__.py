"""`python -m phaseline` is the command `phaseline`."""

from phaseline.cli import main

main()
