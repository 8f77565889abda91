"""The README is true: its commands run, its engine runs, and it names every command of the Makefile it needs."""

import asyncio
import re
import sys
from pathlib import Path

from tests.installation import Viewer, api, embedded, running

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIRST_SCREEN_LINES = 22


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


async def test_the_readmes_engine_and_commands_run_as_written(tmp_path: Path) -> None:
    (tmp_path / "your_module.py").write_text(blocks("python")[0])
    made = embedded(tmp_path / "data", PHASELINE_ENGINE_MODULES="your_module", PYTHONPATH=f"{tmp_path}:{ROOT}")
    async with running(made), api(made.url) as http:
        viewer = await Viewer(made.url, await http.submit("read_pages", {"pages": 2})).follow()
        assert viewer.events[-1]["results"] == {"letters": 22}
        job_id = await http.submit("countdown", {"steps": 2, "step_s": 0})
        await Viewer(made.url, job_id).follow()
        for command in re.findall(r"^phaseline (.*?)(?: +#.*)?$", "".join(blocks("console")), re.MULTILINE):
            words = command.replace("JOB", job_id).split()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "phaseline", *words, env=made.environment | {"PHASELINE_URL": made.url}
            )
            assert await process.wait() == 0, command


def test_the_first_screen_says_what_shows_one_picture_and_two_commands() -> None:
    first = "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
    assert first.count("```") == 4
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["demo", "up"]


def test_every_make_command_and_page_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w.]+)", README, re.MULTILINE):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    for page in re.findall(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)", README):
        assert (ROOT / page).exists(), page
