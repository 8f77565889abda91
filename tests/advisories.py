"""`make advisories DATABASE=folder`: a clone of github.com/pypa/advisory-database, asked instead of the internet.

    python -m tests.advisories FOLDER COMMAND...

Serves the folder on loopback as an OSV service, as pip-audit asks one (`--osv-url`), while the command runs.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def main(arguments: list[str]) -> int:
    folder, command = Path(arguments[0]), arguments[1:]
    if not any(folder.glob("vulns/*/*.yaml")):
        print(
            f"DATABASE={folder} is no clone of the advisory database: vulns/<package>/*.yaml is missing",
            file=sys.stderr,
        )
        return 2
    with serving(folder) as url:
        return subprocess.run([*command, "--vulnerability-service", "osv", "--osv-url", url], check=False).returncode


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a service that answers from the folder."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = covering(folder, asked["package"]["name"], Version(asked["version"]))
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing of requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()


def covering(folder: Path, name: str, version: Version) -> list[dict[str, Any]]:
    """The records that say this version is affected."""
    name = canonicalize_name(name)
    found = []
    for path in sorted((folder / "vulns" / name).glob("*.yaml")):
        # Strings only: times stay as they are written.
        record: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        ours = [one for one in record["affected"] if canonicalize_name(one["package"]["name"]) == name]
        if any(_affected(one, version) for one in ours):
            found.append(record)
    return found


def _affected(package: dict[str, Any], version: Version) -> bool:
    """By https://ossf.github.io/osv-schema/#evaluation."""
    ranges = [one["events"] for one in package.get("ranges", ()) if one["type"] == "ECOSYSTEM"]
    return version in map(_version, package.get("versions", ())) or any(_within(events, version) for events in ranges)


def _within(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    turns = [(_version(text), what) for event in events for what, text in event.items()]
    for at, what in sorted((at, what) for at, what in turns if at is not None):
        match what:
            case "introduced" if version >= at:
                inside = True
            case "fixed" | "limit" if version >= at:
                inside = False
            case "last_affected" if version > at:
                inside = False
            case _:
                pass
    return inside


def _version(text: str) -> Version | None:
    """None for one that pip would not read either. `0` is before all, pre-releases of 0 too."""
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
