"""What may be set about a worker. The front door maps its settings to it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Units last. `engine_modules` are importable modules that declare engines beside the installed ones."""

    slots: int = 2
    lease_s: float = 6.0
    beat_s: float = 2.0
    poll_s: float = 5.0
    drain_s: float = 30.0
    outage_grace_s: float = 30.0
    result_bytes_max: int = 16 * 1024 * 1024
    engine_modules: tuple[str, ...] = ()
    child_attempts_max: int = 1000  # then a fresh process takes the slot: whatever an engine leaks ends with it
    child_rss_bytes_max: int = 1024 * 1024 * 1024  # likewise after an attempt that left it larger than this
    child_memory_bytes_max: int | None = (
        None  # what an engine process may allocate; None: as much as the system lets it
    )
    build: str = ""

    @property
    def answer_s(self) -> float:
        """How long a command may go unanswered before its attempt is given up: nobody's lease lasts longer."""
        return self.lease_s + self.outage_grace_s
