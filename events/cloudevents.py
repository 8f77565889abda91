"""Recorded events as structured CloudEvents 1.0 JSON, for the copy of the log. PURE.

The fields of the event are spliced in as they were stored, so a consumer that has only CloudEvents sees the same
bytes as a viewer. Rules: CloudEvents 1.0.2 core and JSON format; extension names are lower-case letters and digits.
"""

from urllib.parse import quote

from events.catalog import ACT
from events.clock import rfc3339
from events.record import Recorded, upcast
from events.values import encode

CONTENT_TYPE = "application/cloudevents+json"
SEQUENCE_DIGITS = 10  # `sequence` sorts as text: the extension of that name asks for it


def event_id(recorded: Recorded) -> str:
    """`<job id>.<seq>`: unique for ever, and the same however often the event is copied."""
    return f"{recorded.job_id}.{recorded.seq}"


def cloudevent(recorded: Recorded) -> bytes:
    """One structured CloudEvent, the event in its type's current version."""
    current = upcast(recorded)
    kind = "audit" if current.type == ACT else "job"
    return (
        f'{{"specversion":"1.0","id":"{event_id(current)}","source":{_source(current.tenant, kind)},'
        f'"type":"phaseline.{kind}.{current.type}","subject":"{current.job_id}","time":"{rfc3339(current.at)}",'
        f'"datacontenttype":"application/json","dataschema":"urn:phaseline:{kind}:{current.type}:{current.version}",'
        f'"sequence":"{current.seq:0{SEQUENCE_DIGITS}}","attempt":{current.attempt},"actor":{_text(current.actor)},'
        f'"partitionkey":"{current.job_id}","data":{current.data}}}'
    ).encode()


def _source(tenant: str, kind: str) -> str:
    # A URI reference: whatever a tenant is called, it stays one path segment.
    return f'"/tenants/{quote(tenant, safe="")}/{"jobs" if kind == "job" else kind}"'


def _text(words: str) -> str:
    # CloudEvents strings hold no control characters.
    if not words.isprintable():
        words = "".join(sign if sign.isprintable() else "\ufffd" for sign in words)
    return encode(words).decode()
