"""What the metrics promise to whoever scrapes them, and to tests that hold several worlds in one process."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from events.telemetry import Telemetry
from phaseline.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


def test_two_worlds_in_one_process_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.committer.fenced.inc()
    assert one.value("phaseline_fenced_writes_total") == 1
    assert other.value("phaseline_fenced_writes_total") == 0


def test_what_somebody_counts_anyway_is_read_at_the_scrape() -> None:
    telemetry = Telemetry()
    frames = 0
    telemetry.gateway.frames.set_function(lambda: frames)
    frames = 7
    assert telemetry.value("phaseline_frames_sent_total") == 7


def test_every_label_value_stands_at_zero_before_the_first_one_is_counted() -> None:
    """A rate over a series that begins at 1 misses its first."""
    page = Telemetry().page().decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    ours = [family for name, family in families.items() if name.startswith("phaseline_")]
    assert len(ours) > 30
    assert [family.name for family in ours if not family.samples] == []
    assert [family.name for family in ours if not family.documentation] == []


def test_the_monitoring_page_lists_every_metric_as_the_code_has_it() -> None:
    page = (DOCS / "monitoring.md").read_text()
    told = re.findall(r"^\| `[a-z_]+` \| (?:counter|gauge|histogram) \|.*\|$", page, re.MULTILINE)
    assert told == _rows(Telemetry())


def test_the_operations_page_lists_every_setting_as_the_code_has_it() -> None:
    page = (DOCS / "operations.md").read_text()
    told = re.findall(r"^\| `PHASELINE_.*\|$", page, re.MULTILINE)
    rows = []
    for name, field in Settings.model_fields.items():
        default = (
            "cores, at least 2" if name == "slots" else f"`{field.default}`" if field.default not in ("", None) else ""
        )
        rows.append(f"| `PHASELINE_{name.upper()}` | {default} | {field.description} |")
    assert told == rows


def _rows(telemetry: Telemetry) -> list[str]:
    rows = []
    for family in telemetry.registry.collect():
        labels = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
        values = [", ".join(dict.fromkeys(sample.labels[name] for sample in family.samples)) for name in labels]
        label = "; ".join(f"{name}: {of}" for name, of in zip(labels, values, strict=True))
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(f"| `{name}` | {family.type} | {label} | {family.documentation} |")
    return rows
