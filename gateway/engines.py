"""Which engines can be asked for, and whether params fit them.

An engine installed here is checked by its own pydantic model and `check`; one only known from the log, because a worker
declared it, by its JSON Schema. Where both are known and differ, the higher version is the one workers run.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import ValidationError

from events.catalog import PhaseEnd
from events.declaration import Engine, InvalidParams, subject_of
from events.errors import LogUnavailable
from events.log import EngineRow, Log
from events.values import encode, first_problem
from gateway.checks import Checks
from gateway.problems import Problem, field_path, invalid, validation_errors

KNOWN_S = 5.0  # how long what the log knows is trusted before it is asked again
CHECKS_MAX = 4  # at once, those included that hang

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownEngine:
    """An engine jobs can be submitted for; `installed` when its code is in this process too. Its `row` says then nothing
    of its result: see `described`."""

    row: EngineRow
    installed: Engine | None

    @property
    def phases(self) -> tuple[PhaseEnd, ...]:
        """The declared phases, in order."""
        return tuple(PhaseEnd(name=phase["name"], until=phase["until"]) for phase in self.row.phases)

    def described(self) -> EngineRow:
        """All there is to say of it. The schema of an installed engine's result is made when somebody asks."""
        return self.row if self.installed is None else replace(self.row, result_schema=_result_schema(self.installed))

    def subject(self, params: Mapping[str, Any]) -> str | None:
        """Whom a job with these params is about, or None."""
        return subject_of(self.row.params_schema, params)


class EngineBook:
    """Installed engines and those the fleet has declared."""

    def __init__(self, store: Log, installed: Mapping[str, Engine], *, check_s: float) -> None:
        self._store = store
        self._installed = {name: KnownEngine(engine.row({}), engine) for name, engine in installed.items()}
        self._check_s = check_s
        self._checks = Checks(CHECKS_MAX)
        self._known = dict(sorted(self._installed.items()))
        self._known_at = float("-inf")

    async def all(self) -> dict[str, KnownEngine]:
        """Every engine by name, as of a few seconds ago at most; while the log is away, as it was known before: what is
        installed here can be described without it."""
        now = asyncio.get_running_loop().time()
        if now - self._known_at > KNOWN_S:
            with suppress(LogUnavailable):
                await self._read()
            self._known_at = now
        return self._known

    async def get(self, name: str) -> KnownEngine:
        """The engine of this name; 404 naming the known ones. Raises `LogUnavailable`, for a name that only the log may
        know."""
        if name not in await self.all():
            await self._read()
        if name in self._known:
            return self._known[name]
        names = sorted(self._known)
        raise Problem(
            404, "unknown_engine", f"There is no engine {name!r}; known are {', '.join(names) or 'none'}.",
            errors=[("engine", "is not known")], known=names,
        )  # fmt: skip

    async def accepted(self, engine: KnownEngine, params: dict[str, Any], *, root: str) -> dict[str, Any]:
        """The params to store: checked, defaults filled in. 422 naming each field, under `root`."""
        if engine.installed is None:
            _fit_schema(engine.row.params_schema, params, root)
            return params
        try:
            model = engine.installed.params.model_validate_json(encode(params))
        except ValidationError as failure:
            raise invalid(validation_errors(failure, root)) from None
        await self._check(engine.installed, model, root)
        stored: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
        if problem := first_problem(stored, root):
            raise invalid([problem])  # such as "inf", which a model may take for a float
        return stored

    async def _read(self) -> None:
        known = {row.name: KnownEngine(row, None) for row in await self._store.engines()}
        for name, engine in self._installed.items():
            if name not in known or known[name].row.version <= engine.row.version:
                known[name] = engine
        self._known = dict(sorted(known.items()))

    async def _check(self, engine: Engine, model: Any, root: str) -> None:
        if engine.check is None:
            return
        try:
            async with asyncio.timeout(self._check_s):
                await self._checks.run(engine.check, model)
        except TimeoutError:
            log.warning("the check of engine %s did not answer within %g s", engine.name, self._check_s)
            raise Problem(
                503, "check_timeout", f"The engine {engine.name} did not check the params in time; try again."
            ) from None
        except InvalidParams as refusal:
            raise invalid([(field_path(where, root), message) for where, message in refusal.problems]) from None


@cache
def _result_schema(engine: Engine) -> dict[str, Any]:
    return engine.result_schema()


def _fit_schema(schema: dict[str, Any], params: dict[str, Any], root: str) -> None:
    from jsonschema import Draft202012Validator

    errors = [
        (field_path(list(error.absolute_path), root), error.message)
        for error in Draft202012Validator(schema).iter_errors(params)
    ]
    if errors:
        raise invalid(sorted(errors))
