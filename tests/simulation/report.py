"""What a person reads of simulated runs."""

from collections import Counter

from tests.simulation.scenario import Outcome


def schedule(outcome: Outcome) -> str:
    """One run: its faults and transactions with their virtual times, then what was wrong."""
    lines = [f"seed {outcome.seed}: {outcome.virtual_s:.1f} virtual s, {outcome.steps} steps, trace {outcome.digest}"]
    lines += outcome.trace
    lines += [f"VIOLATION {one}" for one in outcome.violations]
    lines += [f"again: make sim SEED={outcome.seed}", ""] if outcome.violations else []
    return "\n".join(lines)


class Summary:
    """Counts over many seeds."""

    def __init__(self) -> None:
        self.outcomes = 0
        self.failed: list[int] = []
        self.faults: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._takeovers: list[float] = []
        self._gaps: list[float] = []
        self._slowest = (0.0, 0)

    def add(self, outcome: Outcome) -> None:
        """One more seed."""
        self.outcomes += 1
        if outcome.violations:
            self.failed.append(outcome.seed)
        self.faults.update(outcome.faults)
        for name in ("virtual_s", "real_s", "steps", "jobs", "events", "transactions", "rollbacks", "requests",
                     "connections", "frames", "boots"):  # fmt: skip
            self._totals[name] += getattr(outcome, name)
        if outcome.takeover_s is not None:
            self._takeovers.append(outcome.takeover_s)
        self._gaps += outcome.gaps_s
        self._slowest = max(self._slowest, (outcome.real_s, outcome.seed))

    def text(self, real_s: float) -> str:
        """A paragraph of figures."""
        total = self._totals
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        text = (
            f"{self.outcomes} seeds in {real_s:.0f} s: {total['virtual_s'] / 3600:.1f} virtual hours, "
            f"{total['steps']} steps, {total['boots']} process starts; slowest seed {self._slowest[1]} "
            f"({self._slowest[0]:.1f} s)\n"
            f"{total['jobs']} jobs, {total['events']} events checked, {total['transactions']} transactions committed, "
            f"{total['rollbacks']} rolled back, {total['requests']} requests, {total['connections']} streams opened, "
            f"{total['frames']} frames checked\n"
            f"{sum(self.faults.values())} faults: {kinds}\n"
        )
        if self._takeovers:
            ordered = sorted(self._takeovers)
            median_s = ordered[len(ordered) // 2]
            text += f"{len(ordered)} measured takeovers: median {median_s:.1f} s, worst {ordered[-1]:.1f} s\n"
        if self._gaps:
            ordered = sorted(self._gaps)
            text += (
                f"{len(ordered)} streams reconnected: median {ordered[len(ordered) // 2]:.2f} s without a frame, "
                f"worst {ordered[-1]:.1f} s, outages included\n"
            )
        return text + (f"violations in {len(self.failed)} seeds: {self.failed}" if self.failed else "no violation")
