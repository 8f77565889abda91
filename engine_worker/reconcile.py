"""What a beat's reply says about the jobs of this worker, and what only seems so. PURE.

The reply is a moment of the database's, between the beat's departure and its return. Only what did not change over
that round trip counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

Key = tuple[str, int, str]  # job, attempt, lease


@dataclass(frozen=True, slots=True)
class Snapshot:
    """This worker at one moment: its attempts, those without a command in flight with the number of commands
    answered so far, and the claims in flight."""

    mine: frozenset[Key]
    quiet: Mapping[Key, int]
    claims: frozenset[int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Jobs the log thinks we run though nobody does, and attempts we run though the log knows better."""

    orphans: frozenset[Key]
    lost: frozenset[Key]


class Reconciler:
    """Compares reply after reply."""

    def __init__(self) -> None:
        self._unknown: dict[Key, frozenset[int]] = {}  # -> the claims in flight when it was first seen

    def judge(self, held: Collection[Key], sent: Snapshot, now: Snapshot) -> Verdict:
        """`held` is what the reply says, `sent` and `now` are this worker before and after the round trip."""
        unknown = set(held) - now.mine
        # A claim whose answer is still on its way may own it; a claim begun later cannot.
        orphans = {key for key in unknown & set(self._unknown) if not self._unknown[key] & now.claims}
        self._unknown = {key: self._unknown.get(key, now.claims) for key in unknown}
        lost = {key for key, commands in sent.quiet.items() if now.quiet.get(key) == commands} - set(held)
        return Verdict(frozenset(orphans), frozenset(lost))
