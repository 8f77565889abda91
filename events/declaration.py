"""What gateway and worker know of an engine without running it, and the decorator that declares one.

PURE but for `installed_engines` and `find_engine`, which import the modules named by the entry-point group
`phaseline.engines` and those an operator adds (`PHASELINE_ENGINE_MODULES`: an engine tried without packaging it).
A declaration must be importable without the engine's heavy dependencies: import those inside the function.
"""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError

from events.log import EngineRow
from events.values import encode

ENTRY_POINT_GROUP = "phaseline.engines"
SUBJECT = "x-subject"
SUBJECT_BYTES_MAX = 200  # it is part of an index
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Phase:
    """A named stage of an attempt; `until` is the overall percent (0 < until ≤ 100) at which it ends."""

    name: str
    until: float


class InvalidParams(ValueError):
    """The params cannot be run. `problems` are (location, message) pairs, location as pydantic gives it.

    Raised by an engine's `check` the submit is refused with 422; raised while running, the job fails with
    code `invalid_params` and is not retried.
    """

    def __init__(self, *problems: tuple[tuple[str | int, ...], str]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, location))}: {message}" for location, message in problems))
        self.problems = problems


class NotRetryable(Exception):
    """Raised by an engine: this failure is final, another attempt would not help."""


class RetryAfter(Exception):
    """Raised by an engine: try again, but not before `seconds` from now."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Engine:
    """A declared engine. `run(params, context)` is sync or async and returns the result (see `phaseline.Context`)."""

    name: str
    version: int
    params: type[BaseModel]
    result: Any
    phases: tuple[Phase, ...]
    run: Callable[..., Any]
    check: Callable[[Any], None] | None = None
    summary: str = ""
    subject: tuple[str, ...] = ()

    def params_schema(self) -> dict[str, Any]:
        """The JSON Schema of the params. It names those that say whom a job is about: what reads a declaration from the
        log, an older version too, knows it by its schema."""
        schema = self.params.model_json_schema()
        return schema | {SUBJECT: list(self.subject)} if self.subject else schema

    def result_schema(self) -> dict[str, Any]:
        """The JSON Schema of the result; that of any JSON where the annotation says nothing pydantic understands. Made anew
        each time, and for a large model it takes memory: only for who is told."""
        try:
            return TypeAdapter(self.result).json_schema(mode="serialization")
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError):
            return {}

    def row(self, result_schema: dict[str, Any]) -> EngineRow:
        """The declaration as JSON values: what gateways need of an engine that does not run in them."""
        phases = [{"name": phase.name, "until": phase.until} for phase in self.phases]
        return EngineRow(self.name, self.version, self.summary, phases, self.params_schema(), result_schema)


def engine(
    name: str,
    *,
    version: int,
    phases: Mapping[str, float] | Sequence[Phase],
    check: Callable[[Any], None] | None = None,
    subject: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Engine]:
    """Declares a function `(params: Model, context: Context) -> Result` as an engine.

    `phases` maps each phase to the percent it ends at, rising to exactly 100. `check(params)` may raise
    `InvalidParams` for what needs configured data; it runs at submit, in a thread, and must be quick. `subject` names
    the params that say whom a job is about: an attempt is then given the result of the job before it (`previous`).
    Raises `ValueError` when a name is no `snake_case` word, the percents do not rise to 100, or no such param exists.
    """
    declared = (
        tuple(phases) if not isinstance(phases, Mapping) else tuple(Phase(n, float(p)) for n, p in phases.items())
    )
    _check_names(name, version, declared)

    def declare(function: Callable[..., Any]) -> Engine:
        hints = get_type_hints(function)
        first = next(iter(inspect.signature(function).parameters), "")
        params = hints.get(first)
        if not (isinstance(params, type) and issubclass(params, BaseModel)):
            raise ValueError(f"engine {name}: annotate the first parameter with the pydantic model of its params")
        if unknown := set(subject) - set(params.model_json_schema().get("properties", {})):
            raise ValueError(f"engine {name}: its subject names {', '.join(sorted(unknown))}, which are no params")
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        result = hints.get("return", Any)
        return Engine(name, version, params, result, declared, function, check, summary, tuple(subject))

    return declare


def subject_of(params_schema: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """Whom a job with these params is about, by the schema of its engine's params: the values of its subject as JSON, a
    digest when they are long. None where the first of them is missing or null: then the job is about nobody."""
    names = params_schema.get(SUBJECT) or ()
    values = [params.get(name) for name in names]
    if not values or values[0] is None:
        return None
    text = encode(values)
    return text.decode() if len(text) <= SUBJECT_BYTES_MAX else hashlib.sha256(text).hexdigest()


def installed_engines(extra_modules: Sequence[str] = ()) -> dict[str, Engine]:
    """Every engine installed in this environment or declared in one of `extra_modules`, by name.

    Raises `ValueError` when two claim one name, `ImportError` naming a module that cannot be imported.
    """
    found: dict[str, Engine] = {}
    for declared in (*map(_loaded, entry_points(group=ENTRY_POINT_GROUP)), *_declared_in(extra_modules)):
        if found.setdefault(declared.name, declared) is not declared:
            raise ValueError(f"two engines are declared with the name {declared.name}")
    return found


def find_engine(name: str, extra_modules: Sequence[str] = ()) -> Engine:
    """One engine by name, importing no other where that can be. Raises `LookupError` naming what to install."""
    named = map(_loaded, entry_points(group=ENTRY_POINT_GROUP, name=name))
    for declared in (*named, *_declared_in(extra_modules)):
        if declared.name == name:
            return declared
    try:
        return installed_engines()[name]
    except KeyError:
        raise LookupError(f"no engine {name!r} is installed here; install its package where the worker runs") from None


def _loaded(point: EntryPoint) -> Engine:
    declared = point.load()
    if not isinstance(declared, Engine):
        raise ValueError(f"entry point {point.name} = {point.value} is not an engine (use @phaseline.engine)")
    return declared


def _declared_in(modules: Sequence[str]) -> list[Engine]:
    return [
        declared
        for module in modules
        for declared in vars(importlib.import_module(module)).values()
        if isinstance(declared, Engine)
    ]


def _check_names(name: str, version: int, phases: tuple[Phase, ...]) -> None:
    for word in (name, *(phase.name for phase in phases)):
        if not _NAME.fullmatch(word):
            raise ValueError(f"engine {name}: {word!r} is not a snake_case word of at most 63 letters")
    if version < 1:
        raise ValueError(f"engine {name}: version starts at 1")
    ends = [phase.until for phase in phases]
    if not ends or ends[-1] != 100 or any(b <= a for a, b in zip([0.0, *ends], ends, strict=False)):
        raise ValueError(f"engine {name}: phase percents must rise from above 0 to exactly 100, got {ends}")
    if len({phase.name for phase in phases}) != len(phases):
        raise ValueError(f"engine {name}: a phase is declared twice")
