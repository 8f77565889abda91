"""The codec: one encoding for row and wire, every stored version readable for ever."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import record as codec
from events.catalog import ACT, RECORDED_TYPES, AnyEvent, Event, Frozen, Log, Partial, Progress
from events.cloudevents import cloudevent
from events.errors import Unstorable
from events.record import Recorded, encode_event, job_id_of, seq_of
from events.values import decode

GOLDEN = Path(__file__).parents[1] / "golden"
JOB = "01a20ca3-8f44-71e6-954e-9ff94174bd64"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé€"\\\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)


def recorded(event: AnyEvent, *, seq: int = 7, actor: str = "worker:w1") -> Recorded:
    return Recorded(
        JOB, seq, event.type, event.version, 1, actor, "default", 1_795_508_375_384, "c", encode_event(event)
    )


def typed(row: Recorded) -> Event:
    return row.act() if row.type == ACT else row.event()


def test_every_event_type_and_version_has_a_golden_file() -> None:
    wanted = {
        f"{name}.v{version}.json" for name, cls in RECORDED_TYPES.items() for version in range(1, cls.version + 1)
    }
    assert {path.name for path in GOLDEN.glob("*.v*.json")} == wanted


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.v*.json")), ids=lambda path: path.stem)
def test_a_golden_row_decodes_and_its_line_is_still_the_same_bytes(path: Path) -> None:
    golden = json.loads(path.read_text())
    row = Recorded(**golden["row"])
    assert typed(row).type == row.type  # type: ignore[attr-defined]
    assert row.line().decode() == golden["line"]
    if row.version == RECORDED_TYPES[row.type].version:
        assert encode_event(typed(row)) == row.data


@pytest.mark.parametrize("name", sorted(RECORDED_TYPES))
def test_what_a_newer_build_added_is_left_out_by_an_older_one_and_goes_out_as_it_is(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.v{RECORDED_TYPES[name].version}.json").read_text())
    row = Recorded(**golden["row"])
    news: dict[str, Any] = {"added_later": {"by": [1]}}
    within = {
        field: value | news  # values of ours; an engine's own are kept whole
        for field, value in decode(row.data).items()
        if isinstance(getattr(typed(row), field), Frozen)
    }
    later = row._replace(data=json.dumps(decode(row.data) | within | news))
    assert typed(later) == typed(row)
    assert b'"added_later":' in later.line()


def test_a_line_is_the_envelope_then_exactly_the_stored_bytes() -> None:
    line = recorded(Progress(progress=50.0, phase="finalizing", done=3)).line()
    assert line.decode() == (
        f'{{"job_id":"{JOB}","seq":7,"type":"progress","attempt":1,"timestamp":"2026-11-24T08:19:35.384Z",'
        '"actor":"worker:w1","progress":50.0,"phase":"finalizing","done":3.0}'
    )


@given(json_values, st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_encode_then_decode_is_identity_for_any_value_and_actor(value: object, actor: str) -> None:
    row = recorded(Partial(phase="finalizing", name="n", value=value), actor=actor)
    assert row.event().value == value  # type: ignore[union-attr]
    wire = decode(row.line())
    assert (wire["value"], wire["actor"], wire["seq"]) == (value, actor, 7)


def test_a_line_is_routed_by_slicing() -> None:
    line = recorded(Log(level="info", message="x"), seq=123_456).line()
    assert (job_id_of(line), seq_of(line)) == (JOB, 123_456)
    with pytest.raises(ValueError, match="not an event line"):
        job_id_of(b'{"other":1}')


def test_an_event_over_a_mebibyte_is_refused_with_its_size() -> None:
    with pytest.raises(Unstorable, match="1048576") as refusal:
        encode_event(Partial(phase="p", name="n", value="é" * 600_000))
    assert refusal.value.too_large


def test_an_old_version_is_upcast_on_reading_and_the_stored_bytes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "version", 2)
    monkeypatch.setitem(
        codec.UPCASTERS, ("progress", 1), lambda old: {"progress": old["percent"], "phase": old["phase"]}
    )
    old = Recorded(JOB, 2, "progress", 1, 1, "worker:w", "default", 0, "c", '{"percent":12.5,"phase":"a"}')
    assert old.event() == Progress(progress=12.5, phase="a")
    assert b'"progress":12.5' in old.line()
    assert old.data == '{"percent":12.5,"phase":"a"}'


def test_an_event_of_a_newer_build_goes_out_as_it_is() -> None:
    for kind, version in (("paused", 1), ("progress", 9)):
        row = Recorded(JOB, 2, kind, version, 1, "worker:w", "default", 0, "c", '{"until":"later"}')
        assert row.line().endswith(b'"until":"later"}')
        assert decode(cloudevent(row))["data"] == {"until": "later"}
