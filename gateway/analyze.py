"""`/api/v1/analyze`: the same jobs, for the engine `fpl`, under the names its first clients know."""

from aiohttp import web

from events.log import JobRow
from events.values import encode
from gateway.bodies import asked, checked, read_object
from gateway.deps import ENGINES
from gateway.jobs import answer, row_of, show_document
from gateway.queries import Query
from gateway.schemas import Hooked
from gateway.submissions import Draft, How, accept, replayed
from gateway.webhooks import allowed_webhook

ENGINE = "fpl"


async def create(request: web.Request) -> web.Response:
    """`POST /api/v1/analyze`: the body is the engine's params, which have no `webhook`, and may say `webhook`."""
    plain = await read_object(request)
    ask = asked(request, plain)
    if row := await replayed(request, ask):
        return _made(row, "replayed")
    beside = checked(Hooked, {name: plain.pop(name) for name in Hooked.model_fields if name in plain})
    webhook = await allowed_webhook(request, beside.webhook)
    engine = await request.app[ENGINES].get(ENGINE)
    return _made(*await accept(request, engine, Draft(params=plain, params_root="", webhook=webhook), ask))


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/analyze/{id}`: the job, with `analysis_id` and its classic stream."""
    query = Query(request, "results")
    inline = query.choice("results", ("inline", "ref"), "ref") == "inline"
    row = await row_of(request, engine=ENGINE)
    extra = {"analysis_id": row.job.id, "stream_url": _stream_url(row)}
    return await show_document(request, row, inline=inline, **extra)


def _made(row: JobRow, how: How) -> web.Response:
    body = {"analysis_id": row.job.id, "status": row.job.status, "stream_url": _stream_url(row)}
    headers = {"Location": f"/api/v1/analyze/{row.job.id}"} | (
        {"Idempotency-Replayed": "true"} if how == "replayed" else {}
    )
    return answer(encode(body), status=202, headers=headers)


def _stream_url(row: JobRow) -> str:
    return f"/api/v1/analyze/{row.job.id}/stream"
