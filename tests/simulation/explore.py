"""Runs many seeds, each in a process of its own, forked from one that has everything imported."""

import gc
import logging
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.simulation.scenario import Outcome, simulate

PROCESSES = 2
SEED_S = 120.0  # real seconds of one seed; more means that something never gives the loop back


@dataclass
class _Running:
    seed: int
    pid: int
    since: float
    data: bytearray


def explore(
    seeds: Iterable[int], *, processes: int = PROCESSES, prepare: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """The outcome of each seed, in the order they end. `prepare` is called in each seed's process, to spoil something."""
    gc.collect()
    gc.freeze()  # what is imported is never looked at again by the children
    waiting = iter(seeds)
    running: dict[int, _Running] = {}
    more = True
    try:
        while running or more:
            while more and len(running) < processes:
                seed = next(waiting, None)
                if seed is None:
                    more = False
                else:
                    fd, one = _start(seed, prepare)
                    running[fd] = one
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for fd in ready:
                if part := os.read(fd, 1 << 20):
                    running[fd].data += part
                else:
                    yield _end(fd, running.pop(fd))
            for one in running.values():
                if time.monotonic() - one.since > SEED_S:
                    os.kill(one.pid, signal.SIGKILL)
    finally:
        for fd, one in running.items():  # nobody wants to know any more
            os.kill(one.pid, signal.SIGKILL)
            _end(fd, one)


def _start(seed: int, prepare: Callable[[], None]) -> tuple[int, _Running]:
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            prepare()
            logging.captureWarnings(capture=False)
            _write(write, pickle.dumps(simulate(seed)))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)  # nothing of the simulated world is wound up
    os.close(write)
    return read, _Running(seed, pid, time.monotonic(), bytearray())


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _end(fd: int, one: _Running) -> Outcome:
    os.close(fd)
    _, status = os.waitpid(one.pid, 0)
    if status or not one.data:
        return Outcome(one.seed, violations=[f"the simulator itself ended with status {status}; see stderr"])
    outcome: Outcome = pickle.loads(bytes(one.data))  # our own child's
    return outcome
