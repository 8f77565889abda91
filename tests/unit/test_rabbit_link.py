"""What waits on a channel of aiormq when that ends, with aiormq's own store of waiting calls."""

import asyncio

import pytest
from aiormq.base import FutureStore
from aiormq.exceptions import ChannelClosed

from events.errors import BusUnavailable
from events.rabbit_link import _told_apart


async def _call(store: FutureStore) -> None:
    """An RPC that never gets its answer."""
    with _told_apart():
        await store.create_task(asyncio.Event().wait())


@pytest.mark.parametrize(
    ("reason", "told"),
    [(None, BusUnavailable), (asyncio.CancelledError, BusUnavailable), (ChannelClosed(404, "gone"), ChannelClosed)],
)
async def test_a_call_on_a_channel_that_ends_is_told_so_whatever_the_reason(reason, told):
    store = FutureStore(asyncio.get_running_loop())
    waiting = asyncio.create_task(_call(store))
    await asyncio.sleep(0)  # one turn of the loop: it waits now
    assert store.futures
    await store.reject_all(reason)
    with pytest.raises(told):
        await waiting


@pytest.mark.parametrize("reason", [None, asyncio.CancelledError, ChannelClosed(404, "gone")])
async def test_whoever_is_cancelled_while_the_channel_ends_is_cancelled(reason):
    store = FutureStore(asyncio.get_running_loop())
    waiting = asyncio.create_task(_call(store))
    await asyncio.sleep(0)  # one turn of the loop: it waits now
    assert store.futures
    waiting.cancel()
    await store.reject_all(reason)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_other_mistakes_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), _told_apart():
        raise ZeroDivisionError
