"""The Python client: `async with Client("http://127.0.0.1:8000") as phaseline: …`.

Jobs, events and engines are the JSON objects of docs/protocol.md, as dicts. Every call ends within `timeout_s` with an
answer or an exception of `phaseline.client_errors`. A call that may be repeated (reads, cancels, and whatever makes a
job, since each carries an Idempotency-Key) is repeated within that limit when the connection breaks, the server is away
after it answered before, or asks to come back later. A server that never answered is an error at once.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from phaseline.bulk import Action, Bulk
from phaseline.calls import Calls, given
from phaseline.event_types import Event
from phaseline.feed import Feed
from phaseline.follow import Follow
from phaseline.pages import JobPage, Jobs
from phaseline.reading import Callbacks, Connection, Listeners

Job = dict[str, Any]
Engine = dict[str, Any]

TIMEOUT_S = 30.0
PAGE = 500

__all__ = ["Bulk", "Client", "Engine", "Event", "Feed", "Follow", "Job", "JobPage", "Jobs"]


class Client:
    """Talks to one gateway, or to a load balancer before many. Close it, or use it as a context manager."""

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._calls = Calls(self.base_url, headers, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every connection, those of running follows too."""
        await self._calls.close()

    # -- jobs
    async def submit(  # noqa: PLR0913 all but one may be left out
        self,
        engine: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: str | None = None,
        not_before: str | None = None,
        max_attempts: int | None = None,
        timeouts: Mapping[str, float | None] | None = None,
        tags: Sequence[str] = (),
        unique_key: str | None = None,
        unique_mode: Literal["return", "refuse", "replace"] | None = None,
        webhook: str | None = None,
        concurrency: tuple[str, int] | None = None,
        key: str | None = None,
    ) -> Job:
        """Makes a job. `not_before` is an RFC 3339 time; `timeouts` has start_s, attempt_s, total_s, stall_s.
        `webhook` is an https:// URL that is told how the job ended.

        The same `key` with the same request gives the same job; without one each call makes its own. While a job with
        the same `unique_key` has not ended, that one is returned; with `unique_mode` refuse this raises `UniqueKeyTaken`,
        with replace it cancels that one. Of jobs with the key of `concurrency` at most its number run at once. Raises `Invalid` naming the field, `NotFound` for an unknown engine.
        """
        asked = {
            "priority": priority,
            "not_before": not_before,
            "max_attempts": max_attempts,
            "timeouts": dict(timeouts) if timeouts else None,
            "tags": list(tags) or None,
            "unique_key": unique_key,
            "unique_mode": unique_mode,
            "webhook": webhook,
            "concurrency": {"key": concurrency[0], "limit": concurrency[1]} if concurrency else None,
        }
        body = {"engine": engine, "params": dict(params or {})} | given(asked)
        return await self._make("/api/v1/jobs", body, key)

    async def job(self, job_id: str, *, at: int | None = None) -> Job:
        """The job now, or as of sequence `at`."""
        return await self._calls.object("GET", _path(job_id), query=given({"at": at}))

    def jobs(
        self,
        query: str | None = None,
        *,
        status: Sequence[str] = (),
        engine: str | None = None,
        tag: str | None = None,
        created_after: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Jobs:
        """Jobs, newest first: `async for job in client.jobs("status:failed engine:fpl")` reads all there are, page by
        page; `await client.jobs(…)` is one page, with the cursor of the next.

        `query` is what the query box takes (docs/protocol.md, Lists) and stands for the four filters beside it.
        `created_after` is an RFC 3339 time or how long ago, such as `1h`. `limit` is a page's, up to 200.
        """
        filters = {
            "q": query,
            "status": ",".join(status) or None,
            "engine": engine,
            "tag": tag,
            "created_after": created_after,
        }
        return Jobs(self._calls, given(filters), cursor, limit)

    async def events(self, job_id: str, after: int = 0, *, limit: int | None = None) -> AsyncIterator[Event]:
        """The recorded events after `after` up to the head, page by page; at most `limit`."""
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(PAGE, limit)
            page = await self._calls.object("GET", _path(job_id, "events"), query={"after": after, "limit": size})
            for event in page["events"]:
                yield event
                after = event["seq"]
            limit = None if limit is None else limit - len(page["events"])
            if not page["events"] or after >= page["head_seq"]:
                return

    async def results(self, job_id: str) -> bytes:
        """The exact JSON bytes of a job's result, whatever its size. Raises `NoResult`, `WrongStatus` before the end."""
        return await self._calls.body("GET", _path(job_id, "results"))

    async def download(self, ref: Mapping[str, Any], path: Path | str) -> int:
        """Writes what a `results_ref` or `output_ref` refers to into a file, piece by piece, and returns its bytes.

        The file appears once all of it arrived and has the SHA-256 of the ref. Raises `Corrupt`, `NoResult`, `OSError`.
        """
        return await self._calls.download(ref, Path(path))

    async def cancel(
        self, job_id: str, *, force: bool = False, grace_s: float | None = None, reason: str | None = None
    ) -> Job:
        """Asks a job to stop; with `force` its engine is not waited for. Raises `Conflict` when it ended otherwise."""
        body = given({"mode": "force" if force else None, "grace_s": grace_s, "reason": reason})
        return await self._calls.object("POST", _path(job_id, "cancel"), body=body)

    async def retry(self, job_id: str, *, reason: str | None = None) -> Job:
        """Tries a failed or cancelled job again under the same id. Raises `Conflict` for any other."""
        return await self._calls.object(
            "POST", _path(job_id, "retry"), body=given({"reason": reason}), repeatable=False
        )

    async def rerun(
        self,
        job_id: str,
        *,
        from_phase: str | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        """A new job with the params of this one, or others; `from_phase` reuses the phases recorded before it."""
        body = given({"from_phase": from_phase, "params": None if params is None else dict(params)})
        return await self._make(_path(job_id, "rerun"), body, key)

    async def schedules(self) -> list[dict[str, Any]]:
        """Jobs made again and again: name, cron, timezone, catch_up, job, paused, next_at, last_at, last_job_id."""
        found: list[dict[str, Any]] = (await self._calls.object("GET", "/api/v1/schedules"))["schedules"]
        return found

    async def schedule(self, name: str) -> dict[str, Any]:
        """One of them, with its `acts`: what was done with it and by it, newest first. Raises `NotFound`."""
        return await self._calls.object("GET", _schedule(name))

    async def create_schedule(
        self,
        name: str,
        cron: str,
        job: Mapping[str, Any],
        *,
        timezone: str | None = None,
        catch_up: Literal["skip", "last", "all"] | None = None,
        catch_up_max: int | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Makes `job` (what `submit` sends: engine, params, …) at every tick of `cron`, five fields, in `timezone` (UTC).

        Of ticks missed in an outage `catch_up` makes none, the last (default) or all, of which the newest `catch_up_max`.
        `reason` is for the audit. Raises `Conflict` for a name that is taken, `Invalid` naming the field.
        """
        asked = {"timezone": timezone, "catch_up": catch_up, "catch_up_max": catch_up_max, "reason": reason}
        body = {"name": name, "cron": cron, "job": given(job)} | given(asked)
        return await self._calls.object("POST", "/api/v1/schedules", body=body, repeatable=False)

    async def pause_schedule(self, name: str, reason: str | None = None) -> dict[str, Any]:
        """No jobs until it is resumed."""
        return await self._calls.object("POST", _schedule(name, "pause"), body=given({"reason": reason}))

    async def resume_schedule(self, name: str, reason: str | None = None) -> dict[str, Any]:
        """Goes on with its next tick; what was missed meanwhile is not made up."""
        return await self._calls.object("POST", _schedule(name, "resume"), body=given({"reason": reason}))

    async def delete_schedule(self, name: str, reason: str | None = None) -> dict[str, Any]:
        """Removes it and returns it as it was; the jobs it made stay."""
        query = given({"reason": reason})
        return await self._calls.object("DELETE", _schedule(name), query=query, repeatable=False)

    async def engines(self) -> list[Engine]:
        """What can run: name, version, summary, phases, JSON Schemas of params and result."""
        found: list[Engine] = (await self._calls.object("GET", "/api/v1/engines"))["engines"]
        return found

    async def workers(self) -> list[dict[str, Any]]:
        """Who runs what: id, host, pid, build, slots, running, engines, draining, beat_at, lease_until."""
        found: list[dict[str, Any]] = (await self._calls.object("GET", "/api/v1/workers"))["workers"]
        return found

    async def stats(self) -> dict[str, Any]:
        """Counts of jobs by status, the age of the oldest that is due, workers, slots, viewers, log and bus."""
        return await self._calls.object("GET", "/api/v1/stats")

    async def gateway(self) -> dict[str, Any]:
        """The gateway process that answers: its streams, rings, repairs, and lag from commit to socket."""
        return await self._calls.object("GET", "/api/v1/gateway")

    async def ready(self) -> dict[str, Any]:
        """What `/readyz` says. Raises `Busy` at once when this gateway cannot serve."""
        return await self._calls.object("GET", "/readyz", repeatable=False)

    # -- many jobs
    async def bulk(
        self,
        action: Action,
        query: str,
        *,
        reason: str | None = None,
        grace_s: float | None = None,
        from_phase: str | None = None,
    ) -> Bulk:
        """Counts the jobs `query` finds that `action` (`cancel`, `retry` or `rerun`) can take, and changes nothing.

        `await bulk.do()` on what comes back does it, to exactly those, within 10 minutes. `grace_s` is for a cancel,
        `from_phase` for a rerun. Raises `Invalid` for a query that names nothing or finds over 10 000.
        """
        asked = {"action": action, "q": query, "reason": reason, "grace_s": grace_s, "from_phase": from_phase}
        return await Bulk.counted(self._calls, given(asked))

    def feed(
        self,
        cursor: str | None = None,
        *,
        follow: bool = True,
        on_event: Callbacks = (),
        on_progress: Callbacks = (),
        on_connection: Callable[[Connection], None] | None = None,
        timeout_s: float | None = None,
    ) -> Feed:
        """Every event of every job behind `cursor`, then live ones, across broken connections and restarts.

        Without a cursor it begins at the start, with `now` at the end. `feed.cursor` says where to go on, after any event.
        With `follow=False` it ends once everything there was has come.
        """
        return Feed(
            self._calls.session,
            self.base_url + "/api/v1/events",
            Listeners(on_event, on_progress, on_connection),
            cursor=cursor,
            follow=follow,
            timeout_s=timeout_s,
        )

    # -- one job, as it goes
    def follow(  # noqa: PLR0913 all but one may be left out
        self,
        job_id: str,
        after: int = 0,
        *,
        epoch: str | None = None,
        on_event: Callbacks = (),
        on_progress: Callbacks = (),
        on_connection: Callable[[Connection], None] | None = None,
        on_reset: Callable[[Job], Any] | None = None,
        on_line: Callable[[str], None] | None = None,
        timeout_s: float | None = None,
    ) -> Follow:
        """Every event after `after`, then live ones until the job ends, across broken connections and restarts.

        Callbacks, one or several, plain or async, get each event before the loop does, those of `on_progress` the events
        of that type only. One that raises is logged, the others and the stream go on. `on_reset`, plain or async too, gets the job when the log does not know our sequence: drop what was built from it; the next event waits for it.
        `on_line` gets the lines of a recording (docs/cli.md): every frame as it was received, and each connection.
        After `timeout_s` seconds in all it raises `TimedOut`; the job itself goes on.
        """
        follow = Follow(
            self._calls.session,
            self.base_url + _path(job_id, "stream"),
            Listeners(on_event, on_progress, on_connection),
            after=after,
            epoch=epoch,
            on_reset=on_reset,
            timeout_s=timeout_s,
        )
        follow.on_line = on_line
        return follow

    async def wait(
        self,
        job_id: str,
        *,
        on_event: Callbacks = (),
        on_progress: Callbacks = (),
        timeout_s: float | None = None,
    ) -> Job:
        """Follows a job to its end and returns it as it is then, completed or not. Raises `TimedOut`; the job goes on."""
        await self.follow(job_id, on_event=on_event, on_progress=on_progress, timeout_s=timeout_s).wait()
        return await self.job(job_id)

    # -- calls
    async def _make(self, path: str, body: dict[str, Any], key: str | None) -> Job:
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return await self._calls.object("POST", path, body=body, headers=headers)


def _schedule(name: str, part: str = "") -> str:
    return f"/api/v1/schedules/{quote(name, safe='')}" + (f"/{part}" if part else "")


def _path(job_id: str, part: str = "") -> str:
    return f"/api/v1/jobs/{quote(job_id, safe='')}" + (f"/{part}" if part else "")
