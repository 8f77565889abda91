"""Crash points: a closed list, the same in the docs, and nothing happens at one unless it was asked for."""

import re
from pathlib import Path

import pytest

from events import crash_points
from events.crash_points import POINTS, arm, reached

ROOT = Path(__file__).parents[2]


def test_the_docs_list_every_point_with_its_sentence():
    page = (ROOT / "docs/reliability.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == POINTS


def test_an_unknown_point_is_refused():
    with pytest.raises(ValueError, match=r"there is no crash point 'no\.such'"):
        arm("no.such")


def test_nothing_is_armed_unless_asked():
    assert crash_points.on_reached is None
    reached("submit.committed")  # and this process is still there


def test_a_test_may_listen_instead(monkeypatch: pytest.MonkeyPatch):
    passed: list[str] = []
    monkeypatch.setattr(crash_points, "on_reached", passed.append)
    reached("submit.committed")
    assert passed == ["submit.committed"]
