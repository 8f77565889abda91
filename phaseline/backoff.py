"""How long to wait before the next connection. PURE but for the draw it is given."""

from collections.abc import Callable

# Full jitter between zero and a cap that doubles (protocol §6): a thousand viewers of one restarted gateway come
# back spread out.
CAP_FIRST_S = 0.5
CAP_LAST_S = 20.0
HINT_MAX_S = 300.0  # a server, or what stands before it, may say later: nobody waits longer without asking


class Backoff:
    """Waits of one connection that keeps breaking. `draw` returns a float in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._cap_s = CAP_FIRST_S

    def next_s(self, hint_s: float | None = None) -> float:
        """Seconds to wait now. A server's hint wins over the draw, and still counts as one more failure."""
        cap_s = self._cap_s
        self._cap_s = min(CAP_LAST_S, cap_s * 2)
        return min(hint_s, HINT_MAX_S) if hint_s is not None and hint_s >= 0 else self._draw() * cap_s

    def reset(self) -> None:
        """The connection proved itself: the next wait is short again."""
        self._cap_s = CAP_FIRST_S
