"""What a consumer that knows only CloudEvents may rely on."""

import json
import re
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from events.catalog import RECORDED_TYPES, Progress
from events.cloudevents import cloudevent, event_id
from events.record import Recorded, encode_event

JOB = "0199aaaa-0000-7000-8000-000000000001"
# The attribute names CloudEvents 1.0 defines; all others are extensions.
DEFINED = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def recorded(
    seq: int = 3, *, actor: str = "engine", tenant: str = "default", kind: str = "progress", data: str | None = None
):
    return Recorded(
        job_id=JOB,
        seq=seq,
        type=kind,
        version=RECORDED_TYPES[kind].version,
        attempt=2,
        actor=actor,
        tenant=tenant,
        at=1_764_000_000_123,
        command_id="c",
        data=data or encode_event(Progress(progress=12.5, phase="collecting_data", message="größer")),
    )


def check(event: dict[str, object]) -> None:
    """The rules of CloudEvents 1.0.2 for structured JSON, by hand."""
    assert event["specversion"] == "1.0"
    for name in ("id", "source", "type"):
        assert isinstance(event[name], str)
        assert event[name]
    assert "data_base64" not in event
    for name, value in event.items():
        if name == "data":
            continue
        assert re.fullmatch("[a-z0-9]+", name), f"{name} is no attribute name"
        assert isinstance(value, str | bool | int), f"{name} has no CloudEvents type"
        assert not (isinstance(value, str) and CONTROL.search(value)), f"{name} holds control characters"
        assert not (isinstance(value, int) and not -(2**31) <= value < 2**31), f"{name} is no CloudEvents integer"
    assert datetime.fromisoformat(str(event["time"])).tzinfo is not None
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", str(event["dataschema"])), "dataschema is no absolute URI"
    assert re.fullmatch(r"[A-Za-z0-9\-._~%!$&'()*+,;=:@/]+", str(event["source"])), "source is no URI reference"


def test_an_event_is_exactly_this_cloudevent() -> None:
    assert json.loads(cloudevent(recorded())) == {
        "specversion": "1.0",
        "id": f"{JOB}.3",
        "source": "/tenants/default/jobs",
        "type": "phaseline.job.progress",
        "subject": JOB,
        "time": "2025-11-24T16:00:00.123Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:phaseline:job:progress:1",
        "sequence": "0000000003",
        "attempt": 2,
        "actor": "engine",
        "partitionkey": JOB,
        "data": {"progress": 12.5, "phase": "collecting_data", "message": "größer"},
    }


def test_the_fields_are_the_stored_bytes() -> None:
    # 1.0 and 1e0 are one number and two texts; only splicing keeps the text.
    stored = '{"progress":50.0,"phase":"a","done":1e0}'
    assert cloudevent(recorded(data=stored)).endswith(b',"data":' + stored.encode() + b"}")


def test_sequences_sort_as_text() -> None:
    sequences = [json.loads(cloudevent(recorded(seq)))["sequence"] for seq in (1, 2, 10, 99, 100, 123_456)]
    assert sequences == sorted(sequences)


def test_the_id_is_the_same_however_often_it_is_copied() -> None:
    assert event_id(recorded(7)) == json.loads(cloudevent(recorded(7)))["id"] == f"{JOB}.7"


@given(
    actor=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    tenant=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_whatever_actors_and_tenants_are_called_it_stays_valid(actor: str, tenant: str) -> None:
    event = json.loads(cloudevent(recorded(actor=actor, tenant=tenant)))
    check(event)
    assert {name for name in event if name not in DEFINED} == {"sequence", "attempt", "actor", "partitionkey"}


def test_events_without_fields_have_an_empty_object_as_data() -> None:
    assert json.loads(cloudevent(recorded(kind="reopened", data="{}")))["data"] == {}


def test_an_administrative_act_is_of_the_audit_and_of_no_job() -> None:
    event = json.loads(cloudevent(recorded(1, kind="administered", data='{"act":"key_revoked"}')))
    check(event)
    assert (event["type"], event["source"]) == ("phaseline.audit.administered", "/tenants/default/audit")
    assert event["dataschema"] == "urn:phaseline:audit:administered:1"
