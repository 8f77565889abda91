"""What the tests of the pages look at again and again."""

from pathlib import Path

from playwright.async_api import Page, expect

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
BOUND_MS = 60_000


async def sequences(page: Page) -> list[int]:
    """Of the events the page shows, in the order of the page."""
    found: list[int] = await page.locator(".events li").evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
    return found


async def at_least(page: Page, seq: int) -> None:
    await page.locator(f'.events li[data-seq="{seq}"]').wait_for(state="attached", timeout=BOUND_MS)


async def complete(page: Page) -> None:
    await expect(page.locator("#connection")).to_have_text("complete", timeout=BOUND_MS)


async def problems_of(page: Page) -> list[str]:
    """What does not fit the page's width, and what axe finds serious."""
    width = (page.viewport_size or {"width": 0})["width"]
    wide = await page.evaluate("document.documentElement.scrollWidth")
    found = []
    if wide > width:
        beyond = await page.evaluate(
            "width => [...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > width + 1)"
            ".map(one => `${one.localName}.${one.className?.baseVal ?? one.className}`).slice(0, 5).join(' ')",
            width,
        )
        found.append(f"{wide} px wide: {beyond}")
    # By the debugger, not as a script element: the policy of the pages holds for the tests too.
    await page.evaluate(AXE.read_text())
    told = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return found + [
        f"{one['id']}: {one['nodes'][0]['html'][:120]} {one['nodes'][0]['failureSummary'][:200]}"
        for one in told["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
