"""The source `live`: the official API over HTTP, politely, with a folder that only ever holds good pages.

Each page is fetched once for all processes of a machine, kept for minutes, and asked for again with its ETag. What
comes back is judged before it is saved: while the game is being updated the site answers 503, or 200 with a web page, and
neither takes the place of a good page. A page stands in for one that cannot be fetched as long as no deadline has passed
since: after a deadline everything is different, and the job waits.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine_worker.engines.fpl.snapshot import Page, Snapshot
from engine_worker.engines.fpl.source import Answer, BrokenSource, NotAtHand, NotThere, digest, parsed
from engine_worker.engines.fpl.source_directory import DirectorySource
from events.clock import Clock, parse_instant, rfc3339

OFFICIAL = "https://fantasy.premierleague.com/api"
_USER_AGENT = f"phaseline/{version('phaseline')}"
_LOCK = ".lock"
_LOCK_EVERY_S = 0.02


@dataclass(frozen=True)
class Manners:
    """How a site is treated; seconds unless named otherwise."""

    spacing_s: float = 0.3  # between two requests of this machine
    attempts: int = 3
    first_wait_s: float = 0.5  # doubled before each further attempt; the site's Retry-After comes first
    silence_s: float = 8.0  # a connection that says nothing for so long is given up
    page_s: float = 20.0  # all attempts at one page together
    busy_s: float = 60.0  # for another process that is fetching
    trouble_s: float = 15.0  # after a page could not be had, others that have a stand-in are not asked for
    season_kept_s: float = 600.0  # bootstrap and fixtures
    entry_kept_s: float = 300.0
    bytes_max: int = 16 * 1024 * 1024
    # Pages kept of entries and single players; beyond it the longest unasked go, an eighth of them at once.
    pages_max: int = 1000


@dataclass(frozen=True)
class _Fetched:
    """What came back: a good page, or nothing because the page at hand is still the one."""

    content: bytes | None
    body: Any
    etag: str | None


class LiveSource:
    """One site and the folder of its pages."""

    def __init__(self, base_url: str, root: Path, clock: Clock | None = None, manners: Manners | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._snapshot = Snapshot(root)
        self._saved = DirectorySource(root)
        self._clock = clock or Clock()
        self._manners = manners or Manners()
        # What went wrong last, and when (monotonic): the pages of one decision do not all wait for a site that is down.
        self._trouble: tuple[str | None, float] = (None, 0.0)

    def answer(self, path: str) -> Answer:
        """See `Source.answer`."""
        kept = self._kept(path)
        if kept is None or not self._fresh(path, kept[1]):
            with self._lock():
                kept = self._kept(path)  # another process may have fetched it meanwhile
                if kept is None or not self._fresh(path, kept[1]):
                    return self._renewed(path, kept)
        return kept[0]

    def at_hand(self, path: str) -> Answer:
        """See `Source.at_hand`."""
        kept = self._kept(path)
        if kept is None or not self._fresh(path, kept[1]):
            raise NotAtHand(path)
        return kept[0]

    def _renewed(self, path: str, kept: tuple[Answer, Page] | None) -> Answer:
        standby = kept[0] if kept is not None and self._usable(kept[1]) else None
        trouble, since = self._trouble
        if standby and trouble and time.monotonic() - since < self._manners.trouble_s:
            return standby._replace(stale=trouble)
        try:
            fetched = asyncio.run(self._fetch(path, kept))
        except BrokenSource as failure:
            self._trouble = (str(failure), time.monotonic())
            if standby is None:
                raise
            return standby._replace(stale=str(failure))
        self._trouble = (None, 0.0)
        now = rfc3339(self._clock.now_ms())
        if fetched.content is None and kept is not None:
            self._snapshot.note(path, kept[1].model_copy(update={"fetched_at": now, "final": self._final(path)}))
            return kept[0]._replace(taken_at=now)
        content = fetched.content or b""
        page = Page(sha256=digest(content), fetched_at=now, etag=fetched.etag, final=self._final(path))
        self._snapshot.save(path, content, page)
        self._make_room()
        return Answer(fetched.body, page.sha256, now)

    def _make_room(self) -> None:
        """Anybody may ask for any entry: without a bound the folder would grow for ever, and its manifest with it."""
        pages, most = self._snapshot.manifest().pages or {}, self._manners.pages_max
        others = [path for path in pages if path.startswith(("entry/", "element-summary/"))]
        if len(others) > most:
            others.sort(key=lambda path: (pages[path].fetched_at, path))
            self._snapshot.drop(others[: len(others) - most + most // 8])

    def _kept(self, path: str) -> tuple[Answer, Page] | None:
        page = (self._snapshot.manifest().pages or {}).get(path)
        try:
            answer = self._saved.answer(path)
        except (NotThere, BrokenSource):
            return None  # never fetched; or not what was saved, and then it is fetched anew
        while page is not None and page.sha256 != answer.sha256:
            page = page.before
        return None if page is None else (answer, page)

    def _fresh(self, path: str, page: Page) -> bool:
        kept_s = self._manners.entry_kept_s if path.startswith("entry/") else self._manners.season_kept_s
        age_ms = self._clock.now_ms() - parse_instant(page.fetched_at)
        return page.final or (0 <= age_ms < 1000 * kept_s and not self._deadline_since(page))

    def _usable(self, page: Page) -> bool:
        """Whether an old page may stand in: deadlines are known, and none has passed since it was fetched."""
        return page.final or (bool(self._events()) and not self._deadline_since(page))

    def _deadline_since(self, page: Page) -> bool:
        fetched, now = parse_instant(page.fetched_at), self._clock.now_ms()
        return any(fetched < parse_instant(event["deadline_time"]) <= now for event in self._events())

    def _events(self) -> list[dict[str, Any]]:
        kept = self._kept("bootstrap-static")
        return list(kept[0].body["events"]) if kept else []

    def _final(self, path: str) -> bool:
        """Picks and minutes of a gameweek whose points are checked change no more."""
        match path.split("/"):
            case ["entry", _, "event", gameweek, "picks"] | ["event", gameweek, "live"]:
                return any(str(event["id"]) == gameweek and event.get("data_checked") for event in self._events())
            case _:
                return False

    async def _fetch(self, path: str, kept: tuple[Answer, Page] | None) -> _Fetched:
        """Asks until the page is good. Raises `NotThere`, `BrokenSource` with the last thing that went wrong."""
        import aiohttp

        manners, problem = self._manners, BrokenSource(f"{path}: no answer within {self._manners.page_s:g} s")
        silence = aiohttp.ClientTimeout(total=None, sock_connect=manners.silence_s, sock_read=manners.silence_s)
        headers = {"User-Agent": _USER_AGENT, "Accept": "application/json"}
        try:
            async with (
                asyncio.timeout(manners.page_s),
                aiohttp.ClientSession(timeout=silence, headers=headers, trust_env=True) as session,
            ):
                for number in range(manners.attempts):
                    await self._space()
                    try:
                        return await self._ask(session, path, kept)
                    except BrokenSource as broken:
                        problem = broken
                    except (aiohttp.ClientError, TimeoutError) as broken:
                        problem = BrokenSource(f"{path}: {type(broken).__name__} {broken}".rstrip())
                    wait_s = problem.retry_after_s or manners.first_wait_s * 2**number
                    if number + 1 == manners.attempts or wait_s > manners.page_s:
                        break
                    await asyncio.sleep(wait_s)
        except TimeoutError:
            pass  # the time for this page is over; what went wrong last is the reason
        raise problem

    async def _ask(self, session: Any, path: str, kept: tuple[Answer, Page] | None) -> _Fetched:
        etag = kept[1].etag if kept else None
        conditional = {"If-None-Match": etag} if etag else {}
        async with session.get(f"{self._base_url}/{path}/", headers=conditional) as response:
            if response.status == 304 and kept is not None:
                self._refuse_passed_deadline(path, kept[0].body)
                return _Fetched(None, kept[0].body, etag)
            if response.status == 404:
                raise NotThere(path)
            if response.status != 200:
                busy = "the game is being updated" if response.status == 503 else f"the site answered {response.status}"
                raise BrokenSource(f"{path}: {busy}", _seconds(response.headers.get("Retry-After")))
            content = await self._bounded(response, path)
            body = parsed(path, content, path)
            self._refuse_passed_deadline(path, body)
            return _Fetched(content, body, response.headers.get("ETag"))

    async def _bounded(self, response: Any, path: str) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > self._manners.bytes_max:
                raise BrokenSource(f"{path}: more than {self._manners.bytes_max} bytes")
        return bytes(content)

    def _refuse_passed_deadline(self, path: str, body: Any) -> None:
        """Between a deadline and the update the site still calls the gameweek that closed the next one."""
        for event in body["events"] if path == "bootstrap-static" else ():
            if event["is_next"] and parse_instant(event["deadline_time"]) <= self._clock.now_ms():
                raise BrokenSource(f"bootstrap-static: the deadline of gameweek {event['id']} has passed")

    async def _space(self) -> None:
        """Waits out the spacing since this machine's last request: the lock file's time, which the holder sets."""
        lock = self._snapshot.root / _LOCK
        since_s = (self._clock.now_ms() - lock.stat().st_mtime_ns // 1_000_000) / 1000
        if 0 <= since_s < self._manners.spacing_s:
            await asyncio.sleep(self._manners.spacing_s - since_s)
        now_ns = self._clock.now_ms() * 1_000_000
        os.utime(lock, ns=(now_ns, now_ns))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One fetching process at a time. Raises `BrokenSource` when another does not finish."""
        self._snapshot.root.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + self._manners.busy_s
        with (self._snapshot.root / _LOCK).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise BrokenSource("another process has been fetching for too long") from None
                    time.sleep(_LOCK_EVERY_S)
                else:
                    break
            yield  # closing the file gives the lock back


def _seconds(retry_after: str | None) -> float | None:
    """The seconds form of `Retry-After`; its date form is not used by the site and is read as nothing said."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None
