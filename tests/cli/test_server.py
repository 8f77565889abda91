"""Servers that come and go: `phaseline up`, what a follow does meanwhile, Ctrl-C, the database's own commands."""

import json
import signal

from tests.cli.program import in_terminal, phaseline, running


def submitted(up, *words):
    run = phaseline("submit", "countdown", "-p", "step_s=0.05", *words, PHASELINE_URL=up.url)
    assert run.code == 0, run.err
    return run.out.strip()


def test_up_prints_its_url_first_keeps_its_data_and_ends_on_sigterm(fresh_up):
    job_id = json.loads(submitted(fresh_up, "-p", "steps=3", "--follow", "-o", "json"))["id"]
    assert fresh_up.stop() == 0
    fresh_up.start()
    assert phaseline("follow", job_id, PHASELINE_URL=fresh_up.url).code == 0


def test_a_follow_survives_a_killed_server_and_shows_each_event_once(fresh_up):
    job_id = submitted(fresh_up, "-p", "steps=40")
    recording = str(fresh_up.data_dir / "recording.ndjson")
    with running("follow", job_id, "-o", "jsonl", "--record", recording, PHASELINE_URL=fresh_up.url) as follow:
        lines = follow.lines(6)
        fresh_up.kill()
        fresh_up.start()
        rest = follow.rest()
    assert rest.code == 0, rest.err
    events = [json.loads(line) for line in [*lines, *rest.out.splitlines()]]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("complete") == 1
    assert events[-1]["attempt"] == 2
    assert "connection dropped at seq " in rest.err
    assert "resumed after seq " in rest.err
    verified = phaseline("verify", "--settled", "--recording", recording, "--data-dir", str(fresh_up.data_dir))
    assert verified.out == f"1 jobs, {len(events)} events, 1 recordings, no copy: no violation\n", verified.err


def test_ctrl_c_ends_the_watching_and_not_the_job(fresh_up):
    job_id = submitted(fresh_up, "-p", "steps=1000")
    with running("follow", job_id, "-o", "jsonl", PHASELINE_URL=fresh_up.url) as follow:
        seen = follow.lines(3)
        follow.process.send_signal(signal.SIGINT)
        rest = follow.rest()
    assert rest.code == 130
    last = json.loads([*seen, *rest.out.splitlines()][-1])["seq"]
    assert f"follow {job_id} --after {last}" in rest.err
    assert "Traceback" not in rest.err
    job = json.loads(phaseline("jobs", "get", job_id, "-o", "json", PHASELINE_URL=fresh_up.url).out)
    assert job["status"] == "running"


def test_a_reader_that_leaves_the_pipe_ends_the_command_quietly(fresh_up):
    job_id = submitted(fresh_up, "-p", "steps=1000")
    with running("follow", job_id, PHASELINE_URL=fresh_up.url) as follow:
        follow.lines(2)
        follow.leave()
        follow.process.wait(60)
        assert "Traceback" not in follow.errors()


def test_a_terminal_sees_phases_move(fresh_up):
    shown = in_terminal("submit", "countdown", "-p", "steps=5", "--follow", "--url", fresh_up.url)
    assert "\x1b[" in shown
    for phase in ("initializing", "collecting_data", "counting", "evaluating", "finalizing"):
        assert phase in shown
    assert "completed" in shown


def test_two_servers_cannot_share_a_data_directory(fresh_up):
    second = phaseline("up", "--port", "0", "--data-dir", str(fresh_up.data_dir))
    assert second.code == 1
    assert "--data-dir" in second.err
    assert "Traceback" not in second.err


def test_a_taken_port_is_said_so(fresh_up, tmp_path):
    port = fresh_up.url.rpartition(":")[2]
    second = phaseline("up", "--port", port, "--data-dir", str(tmp_path / "other"))
    assert second.code == 1
    assert port in second.err
    assert "Traceback" not in second.err


def test_the_database_commands_find_the_rows_equal_to_their_events(fresh_up):
    submitted(fresh_up, "-p", "steps=3", "--follow")
    fresh_up.stop()
    where = ["--data-dir", str(fresh_up.data_dir)]
    assert phaseline("db", "migrate", *where).code == 0
    assert phaseline("db", "check", *where).code == 0
    assert phaseline("db", "rebuild", *where).out == "0 rows rewritten\n"
