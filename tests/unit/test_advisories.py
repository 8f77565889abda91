"""`make advisories DATABASE=…`: a vulnerable pin is found in a local copy of the advisory database, a clean one is not."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.advisories import serving

RECORD = """\
id: PYSEC-2026-1
modified: 2026-02-06T20:20:18.162431Z
published: 2026-01-29T23:15:00Z
affected:
- package: {{ecosystem: PyPI, name: Some.Package}}
  ranges:
  - type: GIT
    events: [{{introduced: "0"}}]
    repo: https://example.org/
  - type: ECOSYSTEM
    events: {events}
  versions: {versions}
"""
BEFORE_3_9_2 = '[{introduced: "0"}, {fixed: 3.9.2}]'
TWO_LINES = '[{introduced: 2.0.0}, {fixed: 2.0.7}, {introduced: "0"}, {fixed: 1.26.18}]'
UP_TO_2 = '[{introduced: "1"}, {last_affected: "2.0"}]'


def a_database(folder: Path, events: str, versions: str = "[]") -> Path:
    (folder / "vulns/some-package").mkdir(parents=True)
    (folder / "vulns/some-package/PYSEC-2026-1.yaml").write_text(RECORD.format(events=events, versions=versions))
    return folder


def asked(url: str, version: str, name: str = "some-package") -> dict[str, Any]:
    """As pip-audit asks."""
    query = {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(query).encode()), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("events", "versions", "hit", "clean"),
    [
        (BEFORE_3_9_2, "[]", ["0.0.1.dev0", "3.9.1", "3.9.2rc1"], ["3.9.2", "3.10", "3.9.2.post1"]),
        (TWO_LINES, "[]", ["1.26.17", "2.0.6"], ["1.26.18", "1.27", "2.0.7"]),
        (UP_TO_2, "[]", ["1", "2"], ["0.9", "2.0.1"]),
        ('[{introduced: "0"}]', "[]", ["1", "99"], []),
        ('[{introduced: "8"}, {fixed: "9"}]', '["1.0", 2004d, 1.0.post2]', ["1", "1.0-2", "8"], ["1.1", "9"]),
    ],
)
def test_a_version_is_found_where_a_record_covers_it(
    tmp_path: Path, events: str, versions: str, hit: list[str], clean: list[str]
):
    with serving(a_database(tmp_path, events, versions)) as url:
        assert [version for version in hit + clean if asked(url, version)] == hit
        assert asked(url, "1", "another-package") == {}
        for version in hit:
            (record,) = asked(url, version)["vulns"]
            assert (record["id"], record["published"]) == ("PYSEC-2026-1", "2026-01-29T23:15:00Z")


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.advisories", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_is_told_where_to_ask_and_its_exit_code_is_ours(tmp_path: Path):
    done = ran(
        str(a_database(tmp_path, BEFORE_3_9_2)), sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(3)"
    )
    assert done.returncode == 3
    assert "'--vulnerability-service', 'osv', '--osv-url', 'http://127.0.0.1:" in done.stdout


def test_a_folder_that_is_no_database_is_an_error_and_not_a_clean_bill(tmp_path: Path):
    done = ran(str(tmp_path), "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"DATABASE={tmp_path} is no clone" in done.stderr
