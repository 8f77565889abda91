"""What Phaseline costs, measured beside the floor of the same machine in the same run. `make bench`."""
