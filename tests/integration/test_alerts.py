"""The dashboard and the alerts ask for what a gateway and a worker really answer, and each alert has its runbook."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.installation import Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.scrape import scraped_until
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/phaseline.json").read_text())
RUNBOOK = (ROOT / "docs/monitoring.md").read_text()
BY_PROMETHEUS = {"instance", "job"}  # labels a scrape adds; `up` is its own metric
Answered = dict[str, dict[str, set[str]]]

pytestmark = pytest.mark.asyncio(loop_scope="module")


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and its text with Grafana's variables filled in."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            yield f"panel {panel['title']}", text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answered(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Answered]:
    """Name of each sample -> label -> values, as both processes answer once a job was run and watched."""
    settings = await postgres_settings(postgres, tmp_path_factory.mktemp("alerts"))
    port = free_port()
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT, PHASELINE_METRICS_PORT=str(port))
    async with running(made), api(made.url) as http:
        job_id = await http.submit("countdown", {"steps": 2, "step_s": 0.01})
        await Viewer(made.url, job_id).follow_to_the_end()
        gateway = await scraped_until(made.url, lambda scrape: scrape["phaseline_resumes_total", "fresh"] == 1)
        worker = await scraped_until(
            f"http://127.0.0.1:{port}", lambda scrape: scrape["phaseline_queue_wait_seconds_count"] == 1
        )
        assert gateway["phaseline_catch_up_seconds_count"] == 1
        assert gateway["phaseline_opens_total", "websocket"] == 1
        assert worker["phaseline_attempts_ended_total", "complete"] == 1
        found: Answered = defaultdict(lambda: defaultdict(set))
        for url in (made.url, f"http://127.0.0.1:{port}"):
            async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
                for family in text_string_to_metric_families(await answer.text()):
                    for sample in family.samples:
                        values = found[sample.name]
                        for label, value in sample.labels.items():
                            values[label].add(value)
        yield found


async def test_every_query_asks_for_names_and_labels_that_are_answered(answered: Answered):
    asked = list(queries())
    assert len(asked) > 60
    wrong = [f"{where}: {what}" for where, text in asked for what in complaints(text, answered)]
    assert wrong == []


async def test_a_query_for_what_nobody_answers_is_found(answered: Answered):
    """The check itself: one wrong name, label, value and grouping each."""
    for text in (
        "rate(phaseline_typo_total[5m])",
        'phaseline_slots{stat="busy"}',
        'phaseline_slots{state=~"busy|idle"}',
        "sum by (cause) (phaseline_slots)",
        "histogram_quantile(0.9, phaseline_lag_seconds)",
    ):
        assert len(list(complaints(text, answered))) == 1, text


async def test_every_alert_has_its_line_in_the_runbook_and_no_line_is_left_over():
    told = re.findall(r"^\| `(Phaseline\w+)` \|", RUNBOOK, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]
    assert [rule["alert"] for rule in RULES if rule["labels"]["severity"] not in {"page", "ticket"}] == []


def complaints(text: str, answered: Answered) -> Iterator[str]:
    """What a query asks for in vain. Raises `ValueError` when it is no PromQL."""
    yield from _of(promql_parser.parse(text), answered)


def _of(node: Any, answered: Answered) -> Iterator[str]:
    if isinstance(node, promql_parser.VectorSelector):
        yield from _of_selector(node, answered)
        return
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        known = BY_PROMETHEUS.union(*(answered[name] for name in _names(node.expr) if name in answered))
        yield from (f"no label {label}" for label in node.modifier.labels if label not in known)
    for part in _parts(node):
        yield from _of(part, answered)


def _of_selector(node: Any, answered: Answered) -> Iterator[str]:
    if node.name not in answered:
        if node.name != "up":
            yield f"no metric {node.name}"
        return
    for matcher in node.matchers.matchers:
        if matcher.name in BY_PROMETHEUS:
            continue
        values = answered[node.name].get(matcher.name)
        if values is None:
            yield f"{node.name} has no label {matcher.name}"
        elif missing := set(matcher.value.split("|")) - values:
            yield f"{node.name} has no {matcher.name} {missing}"


def _parts(node: Any) -> list[Any]:
    named = (getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector"))
    return [part for part in (*named, *getattr(node, "args", ())) if part is not None]


def _names(node: Any) -> set[str]:
    if isinstance(node, promql_parser.VectorSelector):
        return {str(node.name)}
    return set().union(*(_names(part) for part in _parts(node)))
