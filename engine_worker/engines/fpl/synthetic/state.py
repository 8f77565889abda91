"""Which moment of a made-up season is asked for. PURE."""

from dataclasses import dataclass

from engine_worker.engines.fpl.seasons import LAST_GAMEWEEK

PRESEASON, OVER = "preseason", "over"


@dataclass(frozen=True)
class State:
    """`played` gameweeks are over, the one after them is next: 0 before the season, 38 when there is no next."""

    played: int = 11

    @classmethod
    def named(cls, name: str) -> "State":
        """`preseason`, `over`, the number of the next gameweek, or nothing for the usual one. Raises `ValueError`."""
        if not name:
            return cls()
        if name in (PRESEASON, OVER):
            return cls(0 if name == PRESEASON else LAST_GAMEWEEK)
        if not 1 <= int(name) <= LAST_GAMEWEEK:
            raise ValueError(f"no gameweek {name}")
        return cls(int(name) - 1)
