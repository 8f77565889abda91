"""The process that runs engines, one attempt at a time: `python -m engine_worker.child <fd>`.

The main thread runs the engine. A control thread reads what the parent says and ends this process, with everything
the engine started, when the parent is gone or the lease (plus the outage grace) has passed: past that moment another
worker may own the job.
"""

import contextlib
import faulthandler
import inspect
import os
import queue
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from engine_worker.context import Cancelled, Context, Previous
from engine_worker.failure import ResultTooLarge, SaidTooLarge, failed_fields, invalid_params
from engine_worker.frames import Frame, Garbled, pack, read_frame
from events.declaration import Engine, find_engine
from events.values import DATA_BYTES_MAX, decode, encode, jsonable

SAID_BYTES_MAX = DATA_BYTES_MAX - 16 * 1024  # leaves room for the event's other fields
WATCHDOG_S = 1.0  # how long after the deadline the watchdog ends a process whose engine never lets go of the GIL
VALUE_FIELDS = {"checkpoint": "output", "best": "results", "result": "results"}  # what travels as a frame's body


class Child:
    """One child process: reads runs from the parent, says what engines say."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._runs: queue.SimpleQueue[Frame] = queue.SimpleQueue()  # the parent sends the next run after an end
        self._sending = threading.Lock()
        self._context: Context | None = None
        self._cancelled = self._draining = False  # said since the last run, whether or not its engine began
        self._deadline: float | None = None
        self._value_bytes_max = 0
        self._modules: list[str] = []
        self._engines: dict[str, Engine] = {}

    def serve(self) -> None:
        """Runs attempts until the parent closes the socket; never returns."""
        setup = self._read()
        self._value_bytes_max = setup.fields["result_bytes_max"]
        self._modules = setup.fields["modules"]
        self._deadline = setup.fields["until"]  # a parent that froze while it started us never tells of a lease
        _limit_memory(setup.fields.get("memory_bytes_max"))
        sys.path[:] = setup.fields["path"]
        threading.Thread(target=self._control, name="control", daemon=True).start()
        for name in setup.fields["engines"]:
            with contextlib.suppress(Exception):  # told when a job needs it
                self._engine(name)
        self._send(pack({"op": "ready"}))
        while True:
            self._attempt(self._runs.get())

    # -- the main thread

    def _attempt(self, run: Frame) -> None:
        """Runs one attempt and says how it ended, exactly once."""
        frame: bytes | None = None
        try:
            result = self._call(run)
            frame = self._result(result)
        except BaseException as problem:
            if isinstance(problem, MemoryError):
                traceback.clear_frames(problem.__traceback__)  # what filled the memory goes, or nothing can be said
            if not isinstance(problem, Cancelled):
                traceback.print_exception(problem)
            frame = pack(failed_fields(problem) | {"rss_bytes": _rss_bytes()})
        finally:
            with self._sending:
                self._context = None  # a thread the engine left behind can say nothing more
        self._send(frame)

    def _call(self, run: Frame) -> Any:
        fields = run.fields
        engine = self._engine(fields["engine"])
        if engine.version != fields["version"]:
            raise RuntimeError(
                f"version {engine.version} of {engine.name} is installed now, the worker took the job for version "
                f"{fields['version']}: restart the worker"
            )
        try:
            params = engine.params.model_validate(fields["params"])
        except ValidationError as problem:
            raise invalid_params(problem) from None
        context = Context(
            engine.phases,
            lambda said: self._say(context, said),
            job_id=fields["job_id"],
            attempt=fields["attempt"],
            recorded=decode(run.body) if run.body else {},
            deadline=fields["deadline"],
            previous=Previous(**fields["previous"]) if fields.get("previous") else None,
        )
        self._context = context
        context.notify(cancelled=self._cancelled, draining=self._draining)
        returned = engine.run(params, context)
        return _completed(returned) if inspect.iscoroutine(returned) else returned

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = find_engine(name, self._modules)
        return self._engines[name]

    def _result(self, result: Any) -> bytes:
        body = encode(jsonable(result, "results"))
        if len(body) > self._value_bytes_max:
            raise ResultTooLarge(f"the result is {len(body)} bytes of JSON, at most {self._value_bytes_max} fit")
        return pack({"op": "result", "rss_bytes": _rss_bytes()}, body)

    def _say(self, context: Context, said: dict[str, Any]) -> None:
        """What the engine said, on its way. Blocks while the parent reads nothing: that is the back-pressure."""
        body = b""
        if name := VALUE_FIELDS.get(said["op"]):
            body = encode(said.pop(name))
        frame = pack(said, body)
        if len(frame) > SAID_BYTES_MAX and not body:
            raise SaidTooLarge(f"a {said['op']} event of {len(frame)} bytes is over 1 MiB; return it or checkpoint it")
        if len(body) > self._value_bytes_max:
            raise SaidTooLarge(f"a {said['op']} of {len(body)} bytes, at most {self._value_bytes_max} fit")
        self._send(frame, lambda: context is self._context)

    def _send(self, frame: bytes, allowed: Callable[[], bool] = lambda: True) -> None:
        with self._sending:
            if not allowed():
                raise RuntimeError("this attempt is over")
            try:
                self._pipe.sendall(frame)
            except OSError:
                end_now("the parent is gone")

    # -- the control thread

    def _control(self) -> None:
        try:
            while True:
                self._wait_readable()
                self._told(self._read())
        except EOFError:
            end_now()
        except (OSError, Garbled) as gone:
            end_now(f"the parent is gone: {gone}")
        except BaseException as problem:  # an engine that takes all memory takes it from this thread too
            end_now(f"nobody hears the parent any more: {type(problem).__name__}")

    def _wait_readable(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        left_s = None if self._deadline is None else self._deadline - time.monotonic()
        if not poll.poll(None if left_s is None else max(left_s, 0.0) * 1000):
            end_now("the worker's lease has ended")

    def _told(self, frame: Frame) -> None:
        match frame.op:
            case "run":
                self._cancelled = self._draining = False
                self._runs.put(frame)
            case "lease":
                self._extend(frame.fields["until"])
            case "cancel":
                self._cancelled = True
            case "drain":
                self._draining = True
            case _:
                raise Garbled(f"the parent says {frame.op!r}")
        if context := self._context:
            context.notify(cancelled=self._cancelled, draining=self._draining)

    def _extend(self, until: float) -> None:
        """`until` is on the monotonic clock, which processes of one machine share: a late frame extends nothing."""
        self._deadline = until
        # A thread in C that needs no GIL: it ends even a process whose engine never lets the control thread run.
        faulthandler.dump_traceback_later(max(until - time.monotonic(), 0.0) + WATCHDOG_S, exit=True)

    def _read(self) -> Frame:
        return read_frame(self._exactly)

    def _exactly(self, size: int) -> bytes:
        read = bytearray()
        while len(read) < size:
            part = self._pipe.recv(size - len(read))
            if not part:
                raise EOFError
            read += part
        return bytes(read)


def end_now(why: str = "") -> NoReturn:
    """Ends this process and everything the engine started, from any thread, whatever the engine does."""
    if why:
        with contextlib.suppress(Exception):  # no last word is worth living on
            os.write(2, _line(f"engine child {os.getpid()} ends: {why}"))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _completed(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # a quarter of what starting this process costs, and few engines are coroutines

    return asyncio.run(coroutine)


def _line(words: str) -> bytes:
    """One line of log as `phaseline/logs.py` has it, without what could not be used any more while a process dies."""
    if os.environ.get("PHASELINE_LOG_FORMAT") != "json":
        return f"{words}\n".encode()
    line = {
        "level": "WARNING",
        "logger": "engine_worker.child",
        "message": words,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    now = datetime.now(UTC).isoformat(timespec="milliseconds")  # noqa: TID251 who dies loads no clock
    return encode(line | {"time": now.replace("+00:00", "Z")}) + b"\n"


def _limit_memory(bytes_max: int | None) -> None:
    """Past it, allocations fail: a `MemoryError` of the engine's, instead of the kernel choosing a process to kill.
    Data, not address space: libraries map much more than they use."""
    if bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_max, bytes_max))


def _rss_bytes() -> int:
    """The most memory this process ever held itself."""
    # Linux's `ru_maxrss` begins at what the process that started this one held (`exec` keeps the mark), so a child of
    # a large worker would look large, and never be used again.
    with (
        contextlib.suppress(OSError, StopIteration),
        Path("/proc/self/status").open(encoding="ascii", errors="replace") as status,
    ):
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Speaks over the socket whose number is the only argument."""
    pipe = socket.socket(fileno=int(sys.argv[1]))
    pipe.set_inheritable(False)  # or what the engine starts would keep the socket open
    try:
        Child(pipe).serve()
    except (EOFError, OSError):
        end_now()


if __name__ == "__main__":
    main()
