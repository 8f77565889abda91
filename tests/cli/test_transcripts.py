"""A person at a terminal: what is asked, what Ctrl-C does, what is coloured."""

import json

import pytest

from tests.cli.program import in_terminal, terminal

CTRL_C = "\x03"
NEVER = ("--not-before", "2999-01-01T00:00:00Z")


@pytest.fixture
def waiting(a_job, cli, request):
    """A tag that two jobs have, and what has become of them."""
    tag = request.node.name
    made = [a_job(*NEVER, "--tag", tag)["id"] for _ in range(2)]

    def statuses():
        return [json.loads(cli("jobs", "get", job_id, "-o", "json").out)["status"] for job_id in made]

    yield tag, made, statuses
    cli("jobs", "bulk", "cancel", f"tag:{tag}", "--yes")


@pytest.fixture
def long_job(a_job, cli):
    """The id of a job that goes on for the whole test."""
    job_id = a_job("-p", "steps=100000", "-p", "step_s=0.1")["id"]
    yield job_id
    cli("jobs", "cancel", job_id, "--force")


def test_a_bulk_action_says_how_many_and_asks(up, waiting):
    tag, made, statuses = waiting
    with terminal("jobs", "bulk", "cancel", f"tag:{tag}", PHASELINE_URL=up.url) as person:
        person.see("2 jobs to cancel")
        person.asked("Cancel them? [y/N]: ")
        assert statuses() == ["queued", "queued"]
        person.type("y\n")
        assert person.end() == 0
    assert all(job_id in person.shown for job_id in made)
    assert statuses() == ["cancelled", "cancelled"]


@pytest.mark.parametrize("answer, code", [("n\n", 1), ("\n", 1), (CTRL_C, 130)])
def test_whoever_does_not_say_yes_changes_nothing(up, waiting, answer, code):
    tag, _, statuses = waiting
    with terminal("jobs", "bulk", "cancel", f"tag:{tag}", PHASELINE_URL=up.url) as person:
        person.asked("[y/N]: ")
        person.type(answer)
        assert person.end() == code
    assert "Traceback" not in person.shown
    assert statuses() == ["queued", "queued"]


def test_ctrl_c_ends_the_feed_and_says_how_to_go_on(up, long_job):
    with terminal("feed", "--after", "now", "--follow", PHASELINE_URL=up.url) as person:
        person.see(long_job)
        person.type(CTRL_C)
        assert person.end() == 130
    assert "feed --after " in person.shown
    assert "Traceback" not in person.shown


def test_ctrl_c_ends_the_watching_and_leaves_the_picture(up, long_job):
    with terminal("jobs", "events", long_job, "--follow", PHASELINE_URL=up.url) as person:
        person.see("initializing")
        person.type(CTRL_C)
        assert person.end() == 130
    assert f"follow {long_job} --after " in person.shown
    assert "the job goes on" in person.shown
    assert "Traceback" not in person.shown
    assert "\x1b[?25h" in person.shown  # the cursor is back


def test_lists_are_coloured_for_a_person(up, a_job):
    job_id = a_job("-p", "steps=5", "-p", "step_s=0", "--follow")["id"]
    shown = in_terminal("jobs", "list", "status:completed", "--limit", "3", PHASELINE_URL=up.url)
    assert job_id in shown
    assert "\x1b[32mcompleted" in shown
    dumb = in_terminal("jobs", "list", "--limit", "3", PHASELINE_URL=up.url, TERM="dumb")
    assert "\x1b" not in dumb


def test_a_screen_shows_what_a_job_says_and_colours_only_where_they_are_welcome(up):
    said = ("-p", "text=\x1b]0;mine\x07", "-p", "fail=true", "--max-attempts", "1")
    with terminal("submit", "echo", *said, "--follow", PHASELINE_URL=up.url, NO_COLOR="1") as person:
        assert person.end() == 3
    assert "␛]0;mine␇" in person.shown
    assert "\x1b]0;mine" not in person.shown
    assert "failed after" in person.shown
    assert "\x1b[31m" not in person.shown
