"""docs/reliability.md promises nothing that no test shows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
PROMISES = PAGE.partition("## The promise, fault by fault")[2].partition("\n## ")[0]
ROWS = [row for row in PROMISES.splitlines() if row.startswith("| ")][1:]


def test_every_promise_names_a_test_that_exists():
    for row in ROWS:
        shown = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\) `(test_\w+)`", row)
        assert shown, row
        for file, name in shown:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {name}"


def test_every_kind_of_process_and_server_has_a_promise():
    for named in ("worker", "engine", "gateway", "RabbitMQ", "PostgreSQL", "phaseline up"):
        assert any(named in row for row in ROWS), named
