"""Loopback ports for the processes of tests, each given once."""

import random
import socket
from contextlib import suppress

# Below the range the kernel takes ports for outgoing connections from: whoever was given one finds it free, and a
# stopped server finds it again.
PORTS = range(20_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A loopback port nobody listens on, never the same twice."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
