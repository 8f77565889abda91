"""Large bodies on their way to readers: how many bytes of a process's memory they take, and whose turn is next.

A tenant alone may take all of it. While others wait for room

- the next turn is of the tenant that holds least, and of a tenant's in the order they came;
- a tenant's share is the whole divided by the tenants that hold room or wait for some. Who waited `PATIENCE_S` and is within
  its share gets room from those over theirs: bodies that have been read longest are given up, while a tenant is over its
  share and keeps another;
- whoever waits so long has readers that took `READ_S` leave, of whichever tenant.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

LARGE_BUDGET_BYTES = 64 * 1024 * 1024
PATIENCE_S = 5.0  # a large body that waited this long for room makes slow readers leave
READ_S = 60.0  # what a reader of a large body may take for it while others wait


class TooSlow(Exception):
    """A reader held a large body for longer than it may while others wait for room."""


class _Body:
    """A body somebody is being sent: made by the first who comes, given up by the last who leaves."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.users = 0
        self.making = asyncio.Lock()
        self.body: bytes | None = None
        self.room = AsyncExitStack()
        self.readers: dict[asyncio.Timeout, float] = {}  # since when

    @contextmanager
    def reading(self, reader: asyncio.Timeout) -> Iterator[None]:
        """This one reads it while the block lasts."""
        self.readers[reader] = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            del self.readers[reader]


class LargeBodies:
    """The bytes of all large bodies in flight in this process; whoever does not fit waits for its turn. Readers that are
    sent the same one share it."""

    def __init__(self, bytes_max: int = LARGE_BUDGET_BYTES) -> None:
        self._bytes_max = bytes_max
        self._free = bytes_max
        self._held: Counter[str] = Counter()  # bytes by tenant; only of tenants with some
        self._turns: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}  # likewise
        self._bodies: dict[Hashable, _Body] = {}
        self._made: dict[_Body, int] = {}  # those that are there, longest first, and how many bytes each has

    @property
    def taken(self) -> int:
        """Bytes held now."""
        return self._bytes_max - self._free

    @asynccontextmanager
    async def body(
        self, tenant: str, key: Hashable, size: int, make: Callable[[], Awaitable[bytes]]
    ) -> AsyncIterator[bytes]:
        """This tenant's body of this name, of about `size` bytes: made once for all who ask while somebody holds it. Raises
        `TooSlow` from inside the block."""
        shared = self._bodies.setdefault((tenant, key), _Body(tenant))
        shared.users += 1
        try:
            async with shared.making:  # whoever is cancelled while it makes leaves that to the next
                if shared.body is None:
                    async with AsyncExitStack() as taking:
                        keep = await taking.enter_async_context(self.room(tenant, size))
                        shared.body = await make()
                        keep(len(shared.body))
                        shared.room = taking.pop_all()
                    self._made[shared] = len(shared.body)
            async with _patiently() as reader:
                with shared.reading(reader):
                    yield shared.body
        finally:
            shared.users -= 1
            if not shared.users:
                del self._bodies[tenant, key]
                self._made.pop(shared, None)
                await shared.room.aclose()

    @asynccontextmanager
    async def room(self, tenant: str, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Holds `size` bytes (at most all there are) while the block lasts; yields what gives back all but so many."""
        size = min(size, self._bytes_max)
        if self._turns or size > self._free:
            await self._turn(tenant, size)
        else:
            self._take(tenant, size)

        def keep(needed: int) -> None:
            nonlocal size
            surplus = max(size - needed, 0)
            size -= surplus
            self._give_back(tenant, surplus)

        try:
            yield keep
        finally:
            keep(0)

    # -- turns

    async def _turn(self, tenant: str, size: int) -> None:
        """Returns once the bytes are this one's."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._turns.setdefault(tenant, deque())
        line.append((size, turn))
        try:
            while not turn.done():
                await asyncio.wait({turn}, timeout=PATIENCE_S)
                if not turn.done() and line[0][1] is turn:  # one of a tenant asks for all of it
                    self._press()
                    self._make_way(tenant, size)
        except asyncio.CancelledError:
            if turn.done():
                self._give_back(tenant, size)
            else:
                line.remove((size, turn))
                if not line:
                    del self._turns[tenant]
                self._admit()
            raise

    def _take(self, tenant: str, size: int) -> None:
        self._free -= size
        self._held[tenant] += size

    def _give_back(self, tenant: str, size: int) -> None:
        self._free += size
        self._held[tenant] -= size
        if not self._held[tenant]:
            del self._held[tenant]
        self._admit()

    def _admit(self) -> None:
        """Gives turns as long as the next one fits: nobody overtakes, or what is largest would never be sent."""
        while self._turns:
            tenant = min(self._turns, key=self._held.__getitem__)
            line = self._turns[tenant]
            size, turn = line[0]
            if size > self._free:
                return
            line.popleft()
            if not line:
                del self._turns[tenant]
            self._take(tenant, size)
            turn.set_result(None)

    # -- who has to leave

    def _press(self) -> None:
        """Sends away who has been reading for too long: readers of 1 KiB/s would keep all others out for hours."""
        now = asyncio.get_running_loop().time()
        for shared in self._made:
            for reader, since in shared.readers.items():
                if now - since >= READ_S:
                    reader.reschedule(now)

    def _make_way(self, tenant: str, size: int) -> None:
        """Room for a tenant within its share, from those over theirs."""
        share = self._bytes_max // len(self._held.keys() | self._turns.keys())
        if self._held[tenant] and self._held[tenant] + size > share:
            return
        held, bodies = self._held.copy(), Counter(shared.tenant for shared in self._made)
        missing = size - self._free
        for shared, taken in self._made.items():
            if missing <= 0:
                return
            if shared.tenant != tenant and held[shared.tenant] > share and bodies[shared.tenant] > 1:
                missing -= taken
                held[shared.tenant] -= taken
                bodies[shared.tenant] -= 1
                for reader in shared.readers:
                    reader.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def _patiently() -> AsyncIterator[asyncio.Timeout]:
    """Raises `TooSlow` when what it yields is due."""
    reader = asyncio.timeout(None)
    try:
        async with reader:
            yield reader
    except TimeoutError:
        if reader.expired():
            raise TooSlow from None
        raise
