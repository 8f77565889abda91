"""compose.yaml, the Dockerfile and the package say the same, and its commands bring a whole installation up.

No container engine is needed: the commands run as local processes with the environment written in compose.yaml, host
names aside. What only an engine can show (the image's build, the network) is not checked here.
"""

import fnmatch
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from phaseline.settings import Settings

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "gateway", "engine_worker")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded["services"]


def test_the_services_are_the_processes_and_their_two_servers(services: dict[str, Any]):
    assert set(services) == {"postgres", "rabbitmq", *OURS}


def test_only_what_migrates_owns_the_tables(services: dict[str, Any]):
    roles = {name: services[name]["environment"]["PHASELINE_DATABASE_URL"].split(":")[1] for name in OURS}
    assert roles == {"migrate": "//phaseline", "gateway": "//phaseline_app", "engine_worker": "//phaseline_app"}


def test_any_number_of_workers_can_be_asked_for(services: dict[str, Any]):
    # A fixed name or host port would make the second one fail.
    assert not {"container_name", "ports", "hostname"} & services["engine_worker"].keys()


def test_only_the_gateway_is_reachable_and_only_from_this_machine(services: dict[str, Any]):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published.keys() == {"gateway"}
    assert all(port.startswith("127.0.0.1:") for port in published["gateway"])


def test_every_setting_given_exists(services: dict[str, Any]):
    known = {f"PHASELINE_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        assert services[name]["environment"].keys() <= known | (
            {"POSTGRES_APP_PASSWORD"} if name == "migrate" else set()
        )
        assert {"PHASELINE_DATABASE_URL", "PHASELINE_RABBITMQ_URL"} <= services[name]["environment"].keys()


def test_the_file_holds_no_password_and_says_how_to_make_one():
    text = (ROOT / "compose.yaml").read_text()
    for line in text.splitlines():
        if "PASS" in line and not line.lstrip().startswith("#"):
            assert re.search(r"\$\{[A-Z_]+_PASSWORD:\?run `make \.env` first\}", line), line


def test_make_env_draws_a_password_for_each_variable(tmp_path: Path):
    subprocess.run(["make", "--silent", "-f", str(ROOT / "Makefile"), ".env"], cwd=tmp_path, check=True)
    made = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "compose.yaml").read_text()))
    assert made.keys() == asked
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{32}", password) for password in made.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_the_worker_gets_longer_than_its_drain_takes(services: dict[str, Any]):
    default = Settings.model_fields["drain_s"].default
    assert float(services["engine_worker"]["stop_grace_period"].removesuffix("s")) > default


def test_processes_start_after_the_schema_and_never_wait_for_rabbitmq_to_be_well(services: dict[str, Any]):
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("gateway", "engine_worker"):
        conditions = {other: given["condition"] for other, given in services[name]["depends_on"].items()}
        assert conditions == {"migrate": "service_completed_successfully", "rabbitmq": "service_started"}


def test_every_server_and_the_gateway_are_watched(services: dict[str, Any]):
    assert {name for name, service in services.items() if "healthcheck" in service} == {
        "postgres",
        "rabbitmq",
        "gateway",
    }


def test_the_image_carries_the_version_of_the_package(services: dict[str, Any]):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {services[name]["image"] for name in OURS} == {f"phaseline:{version}"}


def test_the_image_runs_as_no_root_from_the_lock_with_hashes():
    steps = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    assert "RUN pip install --require-hashes --requirement requirements.lock" in steps
    last = steps[max(index for index, step in enumerate(steps) if step.startswith("FROM")) :]
    assert "USER phaseline" in last


def test_the_package_built_from_the_image_context_holds_every_module_and_page(tmp_path: Path):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.split("\n")
    context = [name for name in listed if name and (ROOT / name).exists() and _in_context(name)]
    for name in context:
        target = tmp_path / "context" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            *["-qq", "--no-deps", "--no-build-isolation", "--no-index", ".", "-w"],
            str(tmp_path),
        ],
        cwd=tmp_path / "context",
        check=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    assert {name for name in context if "/" in name} <= packed


def _in_context(name: str) -> bool:
    """As Docker reads .dockerignore: the last rule that names a path or a folder above it decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parts = name.split("/")
            above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
            if pattern.startswith("**/"):
                above, pattern = parts, pattern.removeprefix("**/")
            if any(fnmatch.fnmatch(path, pattern) for path in above):
                kept = line.startswith("!")
    return kept
