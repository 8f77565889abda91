"""The types a client's events have are those of what is recorded."""

import json
from pathlib import Path
from typing import Annotated, get_args

import pytest
from pydantic import Field, TypeAdapter

from events.catalog import RECORDED_TYPES, ActName
from phaseline import event_types

GOLDEN = Path(__file__).parents[1] / "golden"
EVENTS: TypeAdapter[event_types.Event] = TypeAdapter(Annotated[event_types.Event, Field(discriminator="type")])
LARGE = {"checkpoint": {"output", "output_ref"}, "complete": {"results", "results_ref"}}  # one of the two


@pytest.mark.parametrize("kind", RECORDED_TYPES)
def test_an_event_has_the_fields_that_are_recorded(kind: str) -> None:
    recorded, typed = (
        RECORDED_TYPES[kind],
        next(t for t in get_args(event_types.Event) if t.__name__ == RECORDED_TYPES[kind].__name__),
    )
    envelope = set(event_types.Envelope.__annotations__)
    assert typed.__required_keys__ | typed.__optional_keys__ == set(recorded.model_fields) | envelope
    assert typed.__optional_keys__ == recorded.omitted | LARGE.get(kind, set())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_an_event_as_clients_get_it_is_of_its_type(path: Path) -> None:
    line = json.loads(path.read_text())["line"]
    assert EVENTS.validate_json(line) == json.loads(line)  # a value of another type would not be equal, or refused


def test_every_act_is_known_to_clients_and_told() -> None:
    assert event_types.ActName == ActName
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    assert [act for act in get_args(ActName) if f"`{act}`" not in protocol] == []
