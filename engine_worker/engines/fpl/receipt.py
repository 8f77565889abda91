"""What fixes a decision, and its fingerprint: two runs with equal receipts gave the same answer. PURE."""

from hashlib import sha256
from typing import Any

from engine_worker.engines.fpl.decision import DecisionOutput, Receipt
from engine_worker.engines.fpl.params import FplParams
from events.values import encode, jsonable


def receipt(decision: DecisionOutput, params: FplParams, *, repeats: bool) -> DecisionOutput:
    """The decision with its receipt. `repeats` says whether no clock had a part in it."""
    header = decision.header
    made = Receipt(
        snapshot_sha256=header.snapshot_sha256,
        ruleset_version=header.ruleset_version,
        engine_version=header.engine_version,
        solver=header.solver,
        seed=params.seed,
        previous_sha256=decision.review.result_sha256 if decision.review else None,
        options_sha256=sha256(encode(_sorted(jsonable(params)))).hexdigest(),
        repeats=repeats,
        canonical_sha256=sha256(canonical(decision)).hexdigest(),
    )
    return decision.model_copy(update={"receipt": made})


def canonical(decision: DecisionOutput) -> bytes:
    """The decision as JSON without what differs between two runs on the same ground.

    A page that is asked for again and has not changed is the same ground, whenever it was fetched last.
    """
    plain: dict[str, Any] = jsonable(decision)
    plain.pop("receipt")
    plain.pop("timings_s")
    for moment in ("generated_at", "snapshot_time"):
        plain["header"].pop(moment)
    plain["warnings"] = [warning for warning in plain["warnings"] if warning["code"] != "stale"]
    return encode(_sorted(plain))


def _sorted(value: Any) -> Any:
    """The same JSON with the keys of its objects in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
