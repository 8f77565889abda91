"""Any value an engine offers becomes JSON, or the path that cannot is named."""

import dataclasses
import enum
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pydantic
import pytest

from events.values import DEPTH_MAX, Unserializable, decode, encode, first_problem, jsonable, storable_text


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    when: datetime
    amount: Decimal


class Outer(pydantic.BaseModel):
    inner: list[Inner]
    ids: tuple[uuid.UUID, ...]
    colour: Colour
    tags: set[str]
    deep: dict[str, Any]


class Measured(pydantic.BaseModel):
    speed: float


def test_a_deep_nested_model_with_every_kind_of_value_becomes_json() -> None:
    value = Outer(
        inner=[Inner(datetime(2026, 11, 24, tzinfo=UTC), Decimal("1.50"))],
        ids=(uuid.UUID(int=1),),
        colour=Colour.RED,
        tags={"a"},
        deep={"x": {"y": [(1, 2.0, None)]}},
    )
    assert jsonable(value) == {
        "inner": [{"when": "2026-11-24T00:00:00Z", "amount": "1.50"}],
        "ids": ["00000000-0000-0000-0000-000000000001"],
        "colour": "red",
        "tags": ["a"],
        "deep": {"x": {"y": [[1, 2.0, None]]}},
    }


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": float("nan")}]}, "value.a[1].b"),
        ({"a": float("inf")}, "value.a"),
        ([{"handle": object()}], "value[0].handle"),
        ({"text": "nul \x00"}, "value.text"),
        (
            Outer.model_construct(inner=[], ids=(), colour=Colour.RED, tags=set(), deep={"x": [float("nan")]}),
            "value.deep.x[0]",
        ),
        ([Measured(speed=float("inf"))], "value[0].speed"),
        ({"text": "half \ud800"}, "value"),
    ],
)
def test_what_is_not_json_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(Unserializable) as refusal:
        jsonable(value)
    assert refusal.value.path.startswith(path)


def test_an_integer_no_reader_would_take_is_refused() -> None:
    with pytest.raises(Unserializable, match=r"value\.n: an integer of more than 1000 digits"):
        jsonable({"n": 10**1001})


def test_nesting_has_a_bound() -> None:
    deep: Any = 1
    for _ in range(DEPTH_MAX + 5):
        deep = [deep]
    with pytest.raises(Unserializable, match="nested deeper"):
        jsonable(deep)


def test_floats_stay_floats_and_large_integers_stay_whole() -> None:
    assert encode({"p": 50.0, "n": 2**80}) == b'{"p":50.0,"n":1208925819614629174706176}'
    assert decode(encode({"n": 2**80})) == {"n": 2**80}


def test_nan_in_a_text_is_not_json() -> None:
    with pytest.raises(ValueError, match="expected value"):
        decode(b'{"x": NaN}')


def test_a_report_that_ends_an_attempt_is_mended_instead_of_refused() -> None:
    assert storable_text("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert len(storable_text("x" * 100_000)) == 16 * 1024


def test_the_first_problem_of_a_parsed_body_is_named() -> None:
    assert first_problem({"params": {"name": ["ok", "\x00"]}}) == ("params.name[1]", "contains a NUL character")
    assert first_problem({"fine": [1, "é", None]}) is None
