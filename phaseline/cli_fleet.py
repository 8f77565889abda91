"""Commands that show what can run, who runs it and how it goes."""

from typing import Any

import click

from phaseline.cli_options import Shape, closing, server_options, show, talk


@click.command(epilog=closing("phaseline engines", "phaseline engines -o json | jq '.[0].params_schema'"))
@server_options
def engines(shape: Shape, url: str) -> None:
    """Lists the engines jobs can be made for. With -o json also the JSON Schemas of their params and results."""
    from phaseline.render import engines_table

    show(shape, talk(url, lambda client: client.engines()), engines_table)


@click.command(epilog=closing("phaseline workers", "phaseline workers -o jsonl | jq 'select(.draining)'"))
@server_options
def workers(shape: Shape, url: str) -> None:
    """Lists the workers: slots, what they run, since when, until when their lease holds."""
    from phaseline.render import workers_table

    show(shape, talk(url, lambda client: client.workers()), workers_table)


@click.command(
    epilog=closing(
        "phaseline stats", "phaseline stats -o json | jq .jobs.queued", "phaseline stats --gateway -o json | jq .lag"
    )
)
@click.option("--gateway", is_flag=True, help="Of the gateway that answers: its streams, memory, repairs and lag.")
@server_options
def stats(gateway: bool, shape: Shape, url: str) -> None:
    """Counts jobs by status, events, workers and viewers, and says how RabbitMQ is."""
    if gateway:
        show(shape, talk(url, lambda client: client.gateway()), _gateway_facts)
        return
    show(shape, talk(url, lambda client: client.stats()), _facts)


def _facts(counts: dict[str, Any]) -> None:
    facts = {
        **{f"jobs {status}": count for status, count in counts["jobs"].items()},
        "oldest due": "none" if counts["oldest_due_ms"] is None else f"{counts['oldest_due_ms'] / 1000:.1f} s",
    }
    if "bus" in counts:  # told to `admin` only
        facts |= {name: counts[name] for name in ("events", "workers", "slots", "running", "viewers", "log")}
        facts["bus"] = _bus(counts["bus"])
    _lines(facts)


def _gateway_facts(itself: dict[str, Any]) -> None:
    lag = {f"lag {name}": value for name, value in itself["lag"].items()}
    _lines({**itself, **lag, "lag": None, "bus": _bus(itself["bus"])})


def _bus(bus: dict[str, Any]) -> str:
    return f"{bus['name']}, {'connected' if bus['connected'] else 'away'}"


def _lines(facts: dict[str, Any]) -> None:
    width = max(15, *map(len, facts))
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<{width}} {value}")
