"""An engine's declaration as the fleet reads it: JSON Schemas and phases."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError

from events.declaration import Engine
from events.log import EngineRow


def engine_row(engine: Engine) -> EngineRow:
    """What gateways need to validate, show and document an engine that does not run in them."""
    return EngineRow(
        name=engine.name,
        version=engine.version,
        summary=engine.summary,
        phases=[{"name": phase.name, "until": phase.until} for phase in engine.phases],
        params_schema=engine.params_schema(),
        result_schema=_result_schema(engine.result),
    )


def _result_schema(result: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(result).json_schema(mode="serialization")
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError):
        return {}  # any JSON: the annotation says nothing pydantic understands
