"""`python -m benchmarks.compression`: what compression costs here, in memory and time, and what it saves. Half a minute.

No server: a page of a job's events as the gateway sends it, packed as the gateway packs it, and the state a WebSocket
keeps for permessage-deflate. Prints a Markdown table.
"""

import statistics
import time
import zlib
from collections.abc import Callable

from events.catalog import Log, Progress
from events.record import Recorded, encode_event
from gateway.compression import packer

REPEATS = 9
SOCKETS = 200


def lines(count: int) -> list[bytes]:
    """Events such as a running job's: progress with a message, and log lines."""
    made = []
    for seq in range(1, count + 1):
        event = (
            Log(level="info", message=f"solved subproblem {seq} of {count}", fields={"gap": 1 / seq, "nodes": seq * 7})
            if seq % 3 == 0
            else Progress(
                progress=seq / count * 100, phase="analyzing_transfers", message="solving", done=seq, total=count
            )
        )
        recorded = Recorded(
            "01a20cae-f0fd-7c5c-90af-8d1914daffc9", seq, event.type, 1, 1, "worker:7a5c0d3e-1111-4222-8333-944445555666",
            "default", 1_795_508_375_384 + seq * 37, "", encode_event(event),
        )  # fmt: skip
        made.append(recorded.line())
    return made


def timed(work: Callable[[], object]) -> float:
    """Milliseconds, the median of some runs."""
    spent = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) * 1000)
    return statistics.median(spent)


def packed(coding: str, body: bytes) -> bytes:
    """As an HTTP answer."""
    pack = packer(coding)
    return pack.compress(body) + pack.flush()


def deflated(frames: list[bytes]) -> int:
    """As one WebSocket's frames; the bytes that travel."""
    pack = zlib.compressobj(wbits=-15)
    return sum(len(pack.compress(frame)) + len(pack.flush(zlib.Z_SYNC_FLUSH)) - 4 for frame in frames)


def deflate_state() -> float:
    """KiB a compressing WebSocket keeps, measured over many."""
    began = resident()
    kept = []
    for _ in range(SOCKETS):
        pack = zlib.compressobj(wbits=-15)
        pack.compress(b"x" * 200)
        pack.flush(zlib.Z_SYNC_FLUSH)
        kept.append(pack)
    return (resident() - began) / SOCKETS / 1024


def resident() -> int:
    """Bytes this process holds."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 not a file one has
        return int(statm.read().split()[1]) * 4096


def main() -> None:
    """Measures and prints."""
    page = lines(1000)
    body = b"\n".join(page)
    mib = len(body) / 2**20
    print(f"{len(page)} events, {len(body) / 1024:.0f} KiB, {len(body) / len(page):.0f} bytes each\n")
    print("| what | size | CPU per MiB |\n|---|---|---|")
    for coding in ("gzip", "zstd"):
        share = len(packed(coding, body)) / len(body)
        print(f"| HTTP, {coding} | {share:.0%} | {timed(lambda c=coding: packed(c, body)) / mib:.1f} ms |")  # type: ignore[misc]
    share = deflated(page) / len(body)
    print(f"| WebSocket, a frame an event | {share:.0%} | {timed(lambda: deflated(page)) / mib:.1f} ms |")
    batches = [b"".join(page[start : start + 200]) for start in range(0, len(page), 200)]
    share = deflated(batches) / len(body)
    print(f"| WebSocket, `batch=1` | {share:.0%} | {timed(lambda: deflated(batches)) / mib:.1f} ms |")
    print(f"\nA compressing WebSocket keeps {deflate_state():.0f} KiB more.")


if __name__ == "__main__":
    main()
