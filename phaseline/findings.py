"""What `phaseline doctor` finds: one line each, and where something is wrong the cure in one sentence."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`failed` keeps Phaseline from working or from keeping what it promises; a `warning` does not, or not yet."""

    check: str
    state: State
    detail: str
    cure: str = ""


def ok(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, cure: str) -> Finding:
    return Finding(check, "warning", detail, cure)


def failed(check: str, detail: str, cure: str) -> Finding:
    return Finding(check, "failed", detail, cure)
