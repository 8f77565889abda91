"""The API as OpenAPI 3.1, made from the models that check requests. One entry a route; a test holds it to the routes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from events.acts import REASON_CHARS_MAX
from events.webhook_url import URL_CHARS_MAX
from gateway import answers as a
from gateway.access import EVENT_STREAM
from gateway.bodies import KEY_CHARS_MAX
from gateway.described import Schema, event_schemas, ref, schemas_of
from gateway.holds import HoldBody
from gateway.job_events import NDJSON, PAGE_DEFAULT, PAGE_MAX
from gateway.jobs import LIST_MAX
from gateway.passes import NewPass
from gateway.pins import PinBody
from gateway.queries import SEQ_MAX
from gateway.schedules import NewSchedule, Why
from gateway.schemas import BulkBody, CancelBody, NewJob, RerunBody, RetryBody
from gateway.search import STATUSES
from gateway.sessions import Login

JSON = "application/json"
PROBLEM = "application/problem+json"
SEQ: Schema = {"type": "integer", "minimum": 0, "maximum": SEQ_MAX}
TEXT: Schema = {"type": "string"}
INLINE: Schema = {"type": "string", "enum": ["inline", "ref"], "default": "ref"}
FLAG: Schema = {"type": "string", "enum": ["0", "1"], "default": "0"}

Answers = Mapping[int, tuple[str, dict[str, Schema]]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a route's query or header parameters."""

    name: str
    says: str
    schema: Schema
    where: str = "query"

    def described(self) -> Schema:
        """As OpenAPI has it."""
        return {"name": self.name, "in": self.where, "description": self.says, "schema": self.schema}


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `fails` are the errors it may answer with, beside 500 and 503."""

    call: str
    says: str
    answers: Answers
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | str | None = None
    body_optional: bool = False
    fails: tuple[int, ...] = ()

    @property
    def method(self) -> str:
        return self.call.partition(" ")[0].lower()

    @property
    def path(self) -> str:
        return self.call.partition(" ")[2]

    @property
    def guarded(self) -> bool:
        """Whether it asks for a key, where keys are asked for."""
        return self.path.startswith("/api/v1/") or self.path == "/metrics"


def model(name: type[BaseModel]) -> dict[str, Schema]:
    """A JSON answer of this model."""
    return {JSON: ref(name.__name__)}


def _ok(says: str, content: dict[str, Schema], status: int = 200) -> Answers:
    return {status: (says, content)}


AFTER = Parameter("after", "The last sequence you have; exclusive.", SEQ)
RESULTS = Parameter("results", "`inline` brings a result stored apart as its value.", INLINE)
CURSOR = Parameter("cursor", "Where to go on, from the page before.", TEXT)
KEY = Parameter(
    "Idempotency-Key",
    "Repeat the request with the same key: the same job.",
    {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX},
    "header",
)
LAST_EVENT_ID = Parameter("Last-Event-ID", "Event streams only: the `id` of the last event you have.", TEXT, "header")
WAITS = "What was and then what comes, with `Accept: text/event-stream`; NDJSON up to the end by `Accept` too."
SOCKET: Answers = {101: ("A WebSocket: see the AsyncAPI description.", {})}
ANY_JSON: dict[str, Schema] = {JSON: {}}
JOB = model(a.Job)
ID = "/api/v1/jobs/{job_id}"
SCHEDULE = "/api/v1/schedules/{name}"


def _events(page: Schema) -> Answers:
    lines = {"type": "string", "description": "One event a line."}
    stream = {"type": "string", "description": "Server-sent events; each `data:` is a frame of the full protocol."}
    return {200: ("Events.", {JSON: page, NDJSON: lines, EVENT_STREAM: stream})}


ENDED: Answers = {204: ("Event streams: you have all there will ever be.", {})}


ROUTES = (
    Route(
        "POST /api/v1/jobs",
        "Makes a job.",
        {**_ok("Accepted.", JOB, 202), **_ok("The unfinished job that has this unique key; none was made.", JOB)},
        (KEY,),
        NewJob,
        fails=(400, 404, 409, 413, 422),
    ),
    Route(
        "GET /api/v1/jobs",
        "Jobs, newest first.",
        _ok("A page.", model(a.JobPage)),
        (
            Parameter("q", "All filters as one: `status:failed engine:fpl tag:weekly created_after:1h`.", TEXT),
            Parameter("status", "Any of these, commas between.", {"type": "string", "examples": [",".join(STATUSES)]}),
            Parameter("engine", "Of this engine.", TEXT),
            Parameter("tag", "With this tag.", TEXT),
            Parameter("created_after", "A time, or how long ago: `1h`.", TEXT),
            CURSOR,
            Parameter("limit", "", {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 50}),
        ),
        fails=(400,),
    ),
    Route(
        f"GET {ID}",
        "One job, now or as of a sequence.",
        _ok("The job.", JOB),
        (Parameter("at", "As it stood at this sequence.", SEQ | {"minimum": 1}), RESULTS),
        fails=(400, 404),
    ),
    Route(
        f"GET {ID}/deliveries",
        "The webhooks the job owes, and what became of each attempt.",
        _ok("They.", model(a.Deliveries)),
        fails=(400, 404),
    ),
    Route(f"GET {ID}/hold", "Whether the job is held.", _ok("It.", model(a.Hold)), fails=(400, 404)),
    Route(
        f"POST {ID}/hold",
        "Holds the job, so that nothing of it may go, or lets it go.",
        _ok("Recorded.", model(a.Hold)),
        body=HoldBody,
        fails=(400, 404, 413, 422),
    ),
    Route(f"GET {ID}/pin", "Whether retention leaves the job alone.", _ok("It.", model(a.Pin)), fails=(400, 404)),
    Route(
        f"POST {ID}/pin",
        "Keeps the job whatever retention says, or no longer.",
        _ok("Done.", model(a.Pin)),
        body=PinBody,
        fails=(400, 404, 409, 413, 422),
    ),
    Route(f"GET {ID}/results", "The result's exact bytes.", _ok("JSON.", ANY_JSON), fails=(400, 404, 409)),
    Route(
        f"GET {ID}/artifacts/{{sha256}}",
        "The exact bytes an `output_ref` refers to.",
        _ok("JSON.", ANY_JSON),
        fails=(400, 404),
    ),
    Route(
        f"GET {ID}/events",
        f"The recorded events of a job. {WAITS}",
        {**_events(ref("EventPage")), **ENDED},
        (
            AFTER,
            Parameter(
                "limit",
                "JSON and NDJSON.",
                {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
            ),
            Parameter("order", "JSON only.", {"type": "string", "enum": ["asc", "desc"], "default": "asc"}),
            LAST_EVENT_ID,
        ),
        fails=(400, 404, 406, 409),
    ),
    Route(f"GET {ID}/stream", "WebSocket, full protocol.", SOCKET, fails=(403, 426)),
    Route(
        f"POST {ID}/cancel",
        "Asks a job to stop.",
        _ok("The job, also if it is cancelled already.", JOB),
        body=CancelBody,
        body_optional=True,
        fails=(400, 404, 409, 413, 422),
    ),
    Route(
        f"POST {ID}/retry",
        "Tries a failed or cancelled job again under the same id.",
        _ok("Queued again.", JOB, 202),
        body=RetryBody,
        body_optional=True,
        fails=(400, 404, 409, 413, 422),
    ),
    Route(
        f"POST {ID}/rerun",
        "Makes a new job from this one.",
        _ok("Accepted.", JOB, 202),
        (KEY,),
        RerunBody,
        body_optional=True,
        fails=(400, 404, 409, 413, 422),
    ),
    Route(
        "POST /api/v1/bulk",
        "Cancels, retries or reruns all a query finds: counts without `confirm`, then does it page by page.",
        _ok("Counted, or done.", {JSON: {"oneOf": [ref("BulkCounted"), ref("BulkDone")]}}),
        body=BulkBody,
        fails=(400, 413, 422),
    ),
    Route(
        "GET /api/v1/events",
        f"The feed: every event of every job. {WAITS}",
        _events(ref("FeedPage")),
        (
            Parameter("cursor", "Where to go on; without it the start, `now` for the end.", TEXT),
            Parameter(
                "limit", "JSON only.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}
            ),
            LAST_EVENT_ID,
        ),
        fails=(400, 406),
    ),
    Route("GET /api/v1/stream", "WebSocket, many jobs and the feed on one.", SOCKET, fails=(403, 426)),
    Route(
        "POST /api/v1/analyze",
        "Makes a job of the engine `fpl`; the body is its params, and may have a `webhook`.",
        _ok("Accepted.", model(a.AnalysisMade), 202),
        (KEY,),
        "AnalysisParams",
        fails=(400, 404, 413, 422),
    ),
    Route(
        "GET /api/v1/analyze/{job_id}",
        "The job of an analysis.",
        _ok("The job.", model(a.Analysis)),
        (RESULTS,),
        fails=(400, 404),
    ),
    Route(
        "GET /api/v1/analyze/{job_id}/stream",
        "WebSocket, classic protocol unless asked otherwise.",
        SOCKET,
        fails=(403, 426),
    ),
    Route(
        "POST /api/v1/schedules",
        "Makes jobs again and again, at the ticks of a cron expression.",
        _ok("The schedule.", model(a.Schedule), 201),
        body=NewSchedule,
        fails=(400, 404, 409, 413, 422),
    ),
    Route("GET /api/v1/schedules", "Schedules, by name.", _ok("All.", model(a.Schedules)), fails=(400,)),
    Route(
        f"GET {SCHEDULE}",
        "One schedule, and what was done with it.",
        _ok("It.", model(a.ScheduleShown)),
        fails=(400, 404),
    ),
    Route(
        f"POST {SCHEDULE}/pause",
        "Makes no jobs until it is resumed.",
        _ok("The schedule.", model(a.ScheduleShown)),
        body=Why,
        body_optional=True,
        fails=(400, 404, 413, 422),
    ),
    Route(
        f"POST {SCHEDULE}/resume",
        "Goes on with its next tick.",
        _ok("The schedule.", model(a.ScheduleShown)),
        body=Why,
        body_optional=True,
        fails=(400, 404, 413, 422),
    ),
    Route(
        f"DELETE {SCHEDULE}",
        "Removes it; its jobs stay.",
        _ok("As it was.", model(a.Schedule)),
        (
            Parameter(
                "reason", "Why, for the audit.", {"type": "string", "minLength": 1, "maxLength": REASON_CHARS_MAX}
            ),
        ),
        fails=(400, 404),
    ),
    Route("GET /api/v1/engines", "What can run.", _ok("Every engine.", model(a.Engines)), fails=(400,)),
    Route(
        "GET /api/v1/audit",
        "The tenant's administrative acts, newest first.",
        _ok("A page.", {JSON: ref("ActPage")}),
        (
            CURSOR,
            Parameter("limit", "Acts a page.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 50}),
        ),
        fails=(400,),
    ),
    Route(
        "GET /api/v1/audit/check",
        "Holds the tenant's stored events against their seals.",
        _ok("Progress and findings, one a line; the last line is `done`.", {NDJSON: TEXT}),
        (Parameter("cursor", "Where to go on, from the `done` of the check before.", TEXT),),
        fails=(400,),
    ),
    Route(
        "GET /api/v1/audit/export",
        "Every event of the tenant with its exact data, and what seals it.",
        _ok("One a line; the last line is the `end`.", {NDJSON: TEXT}),
        fails=(400,),
    ),
    Route("GET /api/v1/workers", "Who runs what.", _ok("Every worker.", model(a.Workers)), fails=(400,)),
    Route("GET /api/v1/stats", "Counts.", _ok("Counts.", model(a.Stats)), fails=(400,)),
    Route("GET /api/v1/gateway", "The gateway that answers.", _ok("It.", model(a.GatewayState)), fails=(400,)),
    Route(
        "POST /api/v1/passes",
        "Lets a page that cannot send a key watch a few streams.",
        _ok("The pass, shown this once.", model(a.PassMade), 201),
        body=NewPass,
        fails=(400, 404, 413, 422, 429),
    ),
    Route(
        "GET /api/v1/session",
        "Whether a key is asked for, and whose this is.",
        _ok("It.", model(a.Session)),
        fails=(400,),
    ),
    Route(
        "POST /api/v1/session",
        "Keeps a key in the browser, for the pages.",
        _ok("Whose it is.", model(a.Session)),
        body=Login,
        fails=(400, 413, 422),
    ),
    Route("DELETE /api/v1/session", "The browser forgets the key.", _ok("Done.", model(a.Session)), fails=(400,)),
    Route("GET /healthz", "This process runs.", _ok("It does.", model(a.Alive))),
    Route("GET /readyz", "This process serves.", _ok("It does.", model(a.Ready))),
    Route("GET /metrics", "Of this process, for Prometheus.", _ok("Text.", {"text/plain": TEXT})),
    Route("GET /openapi.json", "This description.", _ok("OpenAPI 3.1.", ANY_JSON)),
    Route("GET /asyncapi.json", "The streams' description.", _ok("AsyncAPI 3.0.", ANY_JSON)),
    Route("GET /docs", "Both descriptions, for people.", _ok("A page.", {"text/html": TEXT})),
    Route("GET /", "Where things are.", _ok("Links.", ANY_JSON)),
)

_FAILURES = {
    400: "The query, a header, or the JSON of the body is wrong; `errors` names it.",
    401: "No key, or none that is good.",
    403: "The key lacks the scope, or this Origin may not do this.",
    404: "There is no such thing, or it is not yours.",
    406: "Nobody serves this form.",
    409: "The job's status, or its head, does not allow it.",
    408: "The body did not arrive in time.",
    413: "The body is over 1 MiB, of a login over 16 KiB.",
    422: "The body is JSON and not what the call takes; `errors` names each field.",
    426: "This is a WebSocket.",
    429: "Too many, or too much of one client: come back after `Retry-After` seconds.",
    500: "A mistake here; it was logged.",
    503: "Something this needs is away, or too much is going on: come back after `Retry-After` seconds.",
}


@dataclass(frozen=True, slots=True)
class Description:
    """The whole document."""

    version: str

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        paths: dict[str, Any] = {}
        for route in ROUTES:
            paths.setdefault(route.path, {})[route.method] = self._operation(route)
        return {
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": {
                "title": "Phaseline",
                "version": self.version or "0",
                "summary": "Runs long jobs in named phases and lets anyone watch them.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": self._schemas(),
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            },
        }

    def _operation(self, route: Route) -> dict[str, Any]:
        operation: dict[str, Any] = {
            "operationId": operation_id(route),
            "summary": route.says,
            "parameters": [*_path_parameters(route.path), *(each.described() for each in route.parameters)],
            "responses": dict(_responses(route)),
        }
        if route.guarded:
            operation["security"] = [{"key": []}, {}]  # without keys nobody is asked
        if route.body is not None:
            name = route.body if isinstance(route.body, str) else route.body.__name__
            operation["requestBody"] = {"required": not route.body_optional, "content": {JSON: {"schema": ref(name)}}}
        return operation

    def _schemas(self) -> dict[str, Schema]:
        models = [route.body for route in ROUTES if isinstance(route.body, type)]
        return {
            **schemas_of([*models, *ANSWERS]),
            **event_schemas(),
            "EventPage": _page_schema({"job_id": TEXT, "head_seq": SEQ, "next_after": SEQ}),
            "FeedPage": _page_schema({"next_cursor": TEXT}),
            "ActPage": _page_schema({"next_cursor": {"type": ["string", "null"]}}),
            "AnalysisParams": {
                "type": "object",
                "description": "The params of the engine `fpl`: see `GET /api/v1/engines`.",
                "required": ["team_id"],
                "properties": {
                    "team_id": {"type": "integer", "minimum": 1},
                    "webhook": {"type": ["string", "null"], "minLength": 1, "maxLength": URL_CHARS_MAX},
                },
            },
        }


ANSWERS: tuple[type[BaseModel], ...] = (
    a.Problem, a.Job, a.Analysis, a.AnalysisMade, a.JobPage, a.BulkCounted, a.BulkDone, a.Engines, a.Workers, a.Stats, a.GatewayState, a.Session, a.PassMade,
    a.Ready, a.Alive, a.Schedule, a.ScheduleShown, a.Schedules, a.Deliveries, a.Hold, a.Pin,
)  # fmt: skip


def operation_id(route: Route) -> str:
    """A name for generated clients, such as `post_jobs_id_cancel`."""
    path = (
        route.path.removeprefix("/api/v1")
        .replace("{job_id}", "id")
        .replace("{sha256}", "sha256")
        .replace("{name}", "name")
    )
    words = [word for word in path.replace(".", "/").split("/") if word]
    return "_".join([route.method, *words]) if words else f"{route.method}_index"


def _page_schema(others: Mapping[str, Schema]) -> Schema:
    properties: Schema = {**others, "events": {"type": "array", "items": ref("Event")}}
    return {"type": "object", "properties": properties, "required": list(properties)}


_IN_PATHS = {
    "job_id": "A UUIDv7 in lower case.",
    "sha256": "Of the bytes, in hexadecimal.",
    "name": "Of the schedule.",
}


def _path_parameters(path: str) -> Iterable[Schema]:
    for name, says in _IN_PATHS.items():
        if f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, "description": says, "schema": {"type": "string"}}


def _responses(route: Route) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, (says, content) in route.answers.items():
        media = {kind: {"schema": schema} for kind, schema in content.items()}
        yield str(status), {"description": says} | ({"content": media} if media else {})
    guarded = (401, 403) if route.guarded else ()
    reads = route.guarded and route.method == "get" and route.path.startswith("/api/")
    limited = (408, 429) if 413 in route.fails else (429,) if reads else ()
    for status in sorted({*route.fails, *guarded, *limited, 500, 503}):
        yield str(status), {"description": _FAILURES[status], "content": {PROBLEM: {"schema": ref("Problem")}}}
