"""Query parameters: each known, each given once, each what it says. A misspelled one fails loudly."""

import re

from aiohttp import web

from gateway.problems import bad_parameter

SEQ_MAX = 2**53 - 1  # the largest integer every JSON reader keeps exact
PASS = "pass"  # noqa: S105 the parameter's name
PASSED = web.RequestKey("passed", bool)  # it came with a pass, which is no parameter of the call
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")


class Query:
    """The query of one request. Every method raises the 400 `Problem` naming the parameter."""

    def __init__(self, request: web.Request, *known: str, repeatable: tuple[str, ...] = ()) -> None:
        self._values: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        for name, value in request.query.items():
            if name == PASS and request.get(PASSED):
                continue
            if name not in known and name not in repeatable:
                choices = ", ".join((*known, *repeatable)) or "none"
                raise bad_parameter(name, f"unknown parameter; known here: {choices}")
            if name in repeatable:
                self._lists.setdefault(name, []).extend(part for part in value.split(",") if part)
            elif name in self._values:
                raise bad_parameter(name, "given twice")
            else:
                self._values[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str | None:
        """The value as it is, None when absent."""
        return self._values.get(name)

    def words(self, name: str) -> tuple[str, ...]:
        """All values of a repeatable parameter, commas between or not."""
        return tuple(self._lists.get(name, ()))

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of `choices`."""
        value = self._values.get(name, default)
        if value not in choices:
            raise bad_parameter(name, f"must be one of {', '.join(choices)}")
        return value

    def number(self, name: str, default: int, *, least: int = 0, most: int = SEQ_MAX) -> int:
        """A plain decimal: no sign, no leading zero, no exponent."""
        if (value := self._values.get(name)) is None:
            return default
        if not _DECIMAL.fullmatch(value) or not least <= int(value) <= most:
            raise bad_parameter(name, f"must be a plain decimal from {least} to {most}")
        return int(value)

    def flag(self, name: str) -> bool:
        """`1` for yes; absent or `0` for no."""
        return self.choice(name, ("0", "1"), "0") == "1"
