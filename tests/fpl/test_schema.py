"""What a reader of a decision is promised about its fields."""

import re
from pathlib import Path

from engine_worker.engines.fpl.decision import DecisionOutput

DOCS = Path(__file__).parents[2] / "docs" / "fpl.md"


def nullable() -> set[str]:
    """The names of all fields of a decision that its schema lets be null."""
    schema = DecisionOutput.model_json_schema(mode="serialization")
    parts = [schema, *schema["$defs"].values()]
    fields = [(name, field) for part in parts for name, field in part.get("properties", {}).items()]
    return {name for name, field in fields if {"type": "null"} in field.get("anyOf", [])}


def documented() -> set[str]:
    """Those the table of docs/fpl.md names, without where they are."""
    told = DOCS.read_text().split("**What a reader of `schema_version` 1", 1)[1].split("**The receipt**", 1)[0]
    first = [line.split("|")[1] for line in told.splitlines() if line.startswith("| `")]
    names = [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]
    return {name.rpartition(".")[2] for name in names if not name.endswith(".")}


def test_only_the_fields_that_the_docs_name_may_be_null():
    assert documented() == nullable()
