"""A process's /metrics as a test reads it."""

import asyncio
from collections.abc import Callable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


class Scrape(dict[tuple[str, ...], float]):
    """(sample's name, *label values in order) -> value; a sample without labels by its name alone."""

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return super().__getitem__((key,) if isinstance(key, str) else key)


async def scraped(url: str) -> Scrape:
    """Everything the process at this URL says about itself now."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        page = await answer.text()
        assert answer.status == 200, page
    return Scrape(
        ((sample.name, *(value for _, value in sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    )


async def scraped_until(url: str, holds: Callable[[Scrape], bool], within_s: float = 30.0) -> Scrape:
    """The first scrape of which this holds. Raises `AssertionError` with the last one."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not holds(scrape := await scraped(url)):
        if loop.time() > until:
            raise AssertionError("\n".join(f"{' '.join(key)} {value:g}" for key, value in scrape.items() if value))
        await asyncio.sleep(0.1)  # another process's gauges; the bound is above
    return scrape
