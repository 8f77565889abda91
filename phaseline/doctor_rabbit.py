"""Whether RabbitMQ answers, lets us work, and holds what we declare with the arguments we declare."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from events.rabbit_drift import OLDEST, Held, look
from events.rabbit_topology import RabbitSettings
from phaseline.findings import Finding, failed, ok, warning


async def examined(url: str, engines: Sequence[str], settings: RabbitSettings) -> list[Finding]:
    """Raises `BusUnavailable`, `ValueError` for what is no URL of RabbitMQ."""
    seen = await look(url, engines, settings)
    version = tuple(int(part) for part in seen.version.split(".")[:2] if part.isdecimal())
    found = [ok("rabbitmq", f"RabbitMQ {seen.version} answers")]
    if version and version < OLDEST:
        found = [failed("rabbitmq", f"RabbitMQ {seen.version} is older than 3.10", "upgrade it to 3.10 or later")]
    user = urlsplit(url).username or "USER"
    if seen.carried:
        cure = (
            f"let {user} work on what is ours: rabbitmqctl set_permissions -p VHOST {user} "
            r"'^phaseline\..*' '^phaseline\..*' '^phaseline\..*'"
        )
        if "alarm" in seen.carried:
            cure = "free memory or disk on RabbitMQ's machine until `rabbitmqctl status` shows no alarm"
        found.append(failed("rabbitmq permissions", seen.carried, cure))
    else:
        found.append(ok("rabbitmq permissions", "may declare, bind, publish and read"))
    differing = [_told(held) for held in seen.held if held.problem]
    return found + (differing or [ok("rabbitmq queues", f"{len(seen.held)} exchanges and queues are as declared")])


def _told(held: Held) -> Finding:
    what = f"{held.kind} {held.name}"
    if held.problem == "missing":
        return warning("rabbitmq queues", f"{what} is not there yet", "start a gateway and a worker: they make it")
    if held.kind == "exchange":
        cure = (
            f"stop gateways and workers, delete the exchange {held.name} in RabbitMQ and start them: they make it anew"
        )
    else:
        again = "the leader fills it again from the log" if held.kind == "stream" else "tickets are sent again"
        cure = f"unless you meant it so: rabbitmqctl delete_queue {held.name}, and start the processes anew; {again}"
    return warning("rabbitmq queues", f"{what} differs: {held.problem}", cure)
