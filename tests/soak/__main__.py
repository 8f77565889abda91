"""`make soak MINUTES=n SEED=s`: prints the seed first, the summary last; exits 1 at a violation."""

import argparse
import asyncio
import secrets
import sys

from tests.servers import Servers
from tests.soak.run import soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed when not given")
    asked = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    sys.stdout.write(f"make soak MINUTES={asked.minutes:g} SEED={seed}\n")
    sys.stdout.flush()
    servers = Servers()
    try:
        servers.prepare("postgres", "rabbit")
        summary = asyncio.run(soak(seed, asked.minutes, servers.postgres(), servers.rabbit()))
    finally:
        servers.close()
    sys.stdout.write(f"{summary}\n")


if __name__ == "__main__":
    main()
