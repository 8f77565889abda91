"""One fleet for each module of fault tests; every test leaves it mended."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.fleet import SHORT, Fleet, a_fleet
from tests.servers import PostgresServer, RabbitServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    async with a_fleet(postgres, rabbit, tmp_path_factory.mktemp("fleet"), **SHORT) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> AsyncIterator[Fleet]:
    """Gateway and two workers with short leases, all well."""
    await shared_fleet.mend()
    yield shared_fleet
    await shared_fleet.close()
