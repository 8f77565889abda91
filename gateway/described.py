"""What both descriptions of the API share: JSON Schemas made from the models, under `#/components/schemas`."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from events.catalog import RECORDED_TYPES

REF = "#/components/schemas/{model}"
Schema = dict[str, Any]

_MAYBE = {"results", "results_ref", "output", "output_ref"}
_ENVELOPE: Schema = {
    "job_id": {"type": "string", "format": "uuid"},
    "seq": {"type": "integer", "minimum": 1, "description": "1, 2, 3 … without a hole."},
    "type": {"type": "string"},
    "attempt": {"type": "integer", "minimum": 0},
    "timestamp": {"type": "string", "format": "date-time"},
    "actor": {"type": "string", "description": "user:…, key:…, worker:… or system:…"},
}


def ref(name: str) -> Schema:
    """A reference to a schema."""
    return {"$ref": REF.format(model=name)}


def schemas_of(models: Iterable[type[BaseModel]]) -> dict[str, Schema]:
    """Each model and what it is made of, by name."""
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    schemas: dict[str, Schema] = made.get("$defs", {})
    return schemas


def event_schemas() -> dict[str, Schema]:
    """Every event as it is on any wire, `event_<type>` by type, and `Event`, any of them."""
    schemas = schemas_of(RECORDED_TYPES.values())
    named = {cls.__name__: name for name, cls in RECORDED_TYPES.items()}
    made: dict[str, Schema] = {name: schema for name, schema in schemas.items() if name not in named}
    for cls_name, name in named.items():
        cls, own = RECORDED_TYPES[name], schemas[cls_name]
        fields = {field: schema for field, schema in own["properties"].items() if field != "type"}
        always = [field for field in fields if field not in cls.omitted | _MAYBE]
        made[f"event_{name}"] = {
            "title": name,
            "description": own.get("description", ""),
            "type": "object",
            "properties": {**_ENVELOPE, "type": {"const": name, "type": "string"}, **fields},
            "required": [*_ENVELOPE, *always],
        }
    made["Event"] = {
        "description": "Any event. New types may appear: ignore what you do not know.",
        "oneOf": [ref(f"event_{name}") for name in RECORDED_TYPES],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name: REF.format(model=f"event_{name}") for name in RECORDED_TYPES},
        },
    }
    return made
