"""Peers of the benchmark, one file each. They run in a virtual environment of their own and import nothing of ours."""
