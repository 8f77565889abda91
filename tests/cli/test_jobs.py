"""The commands against a real server: what they print, how they exit."""

import json

import pytest

from tests.cli.program import phaseline, running

QUICK = ("-p", "steps=5", "-p", "step_s=0")
LONG = ("-p", "steps=1000", "-p", "step_s=0.05")
FAILING = ("-p", "steps=5", "-p", "step_s=0", "-p", "fail_at=2", "--max-attempts", "1")

# Name the window, clear the screen, colour the rest: what a terminal would do if it were told.
COMMANDS = "\x1b]0;mine\x07\x1b[2J\x9b31mred\x7f"


def seqs(text):
    return [json.loads(line)["seq"] for line in text.splitlines()]


def test_submit_prints_the_id_alone_so_that_a_shell_can_keep_it(cli):
    run = cli("submit", "countdown", *QUICK)
    assert run.code == 0
    job_id = run.out.strip()
    assert json.loads(cli("jobs", "get", job_id, "-o", "json").out)["id"] == job_id
    assert f"follow {job_id}" in run.err


def test_following_a_job_that_completes_exits_0_with_every_event_once(cli):
    run = cli("submit", "countdown", *QUICK, "--follow", "-o", "jsonl")
    assert run.code == 0
    events = [json.loads(line) for line in run.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("submitted", "complete")


def test_a_failed_job_exits_3_and_says_why(cli):
    run = cli("submit", "countdown", *FAILING, "--follow")
    assert run.code == 3
    assert "told to fail at step 2" in run.out


def test_a_cancelled_job_exits_4(cli, a_job, up):
    job_id = a_job(*LONG)["id"]
    with running("follow", job_id, PHASELINE_URL=up.url) as follow:
        follow.lines(2)
        assert cli("jobs", "cancel", job_id, "--reason", "seen enough").code == 0
        rest = follow.rest()
    assert rest.code == 4
    assert "cancelled" in rest.out
    assert "seen enough" in rest.out


def test_a_timeout_exits_5_and_tells_how_to_go_on(cli):
    run = cli("submit", "countdown", *LONG, "--follow", "-o", "jsonl", "--timeout", "1")
    assert run.code == 5
    seen = seqs(run.out)
    job_id = json.loads(run.out.splitlines()[0])["job_id"]
    assert f"follow {job_id} --after {seen[-1]}" in run.err
    cli("jobs", "cancel", job_id, "--force")
    rest = cli("follow", job_id, "--after", str(seen[-1]), "-o", "jsonl")
    assert seen + seqs(rest.out) == list(range(1, seqs(rest.out)[-1] + 1))
    assert rest.code == 4


def test_a_place_beyond_the_end_is_told_and_the_end_is_shown(cli, a_job):
    job = a_job(*QUICK, "--follow")
    run = cli("follow", job["id"], "--after", "999", "-o", "jsonl")
    assert (run.code, seqs(run.out)) == (0, [job["seq"]])
    assert f"going on from seq {job['seq']} (completed)" in run.err


def test_json_while_following_is_one_document_the_job_as_it_ended(cli):
    run = cli("submit", "countdown", *QUICK, "--follow", "-o", "json")
    job = json.loads(run.out)
    assert (job["status"], job["results"]["steps"]) == ("completed", 5)


@pytest.mark.parametrize("shape", ["table", "json", "jsonl"])
def test_into_a_pipe_go_plain_lines_only(cli, shape, up):
    run = phaseline("submit", "countdown", *QUICK, "--follow", "-o", shape, PHASELINE_URL=up.url)
    assert run.code == 0
    job_id = json.loads(cli("jobs", "list", "--limit", "1", "-o", "jsonl").out)["id"]
    outputs = [run.out, run.err]
    for words in (
        ["jobs", "list"],
        ["jobs", "get", job_id],
        ["jobs", "events", job_id],
        ["engines"],
        ["workers"],
        ["stats"],
    ):
        outputs.append(cli(*words, "-o", shape).out)
    for output in outputs:
        assert "\x1b" not in output
        assert "\r" not in output
    assert all(output for output in outputs if output != run.err)


def test_what_a_job_says_is_shown_and_no_terminal_obeys_it(cli):
    words = ("-p", f"text={COMMANDS}", "-p", "fail=true", "--max-attempts", "1", "--tag", COMMANDS)
    followed = cli("submit", "echo", *words, "--follow")
    assert followed.code == 3
    job_id = json.loads(cli("jobs", "list", "--limit", "1", "-o", "jsonl").out)["id"]
    shown = [cli(*asked).out for asked in (("jobs", "list", "--limit", "1"), ("jobs", "get", job_id), ("feed",))]
    for output in [followed.out, *shown]:
        assert "␛]0;mine␇" in output
        assert not set(output) & set("\x1b\x07\x7f\x9b"), output


def test_piped_lines_tell_the_story(cli):
    lines = cli("submit", "countdown", *QUICK, "--follow").out.splitlines()
    assert lines[0].split()[0] == "1"
    assert "submitted" in lines[0]
    assert any("counting" in line and "%" in line for line in lines)
    assert any(line.startswith("completed after ") for line in lines)


def test_params_come_from_a_file_or_stdin_and_single_ones_win(cli, tmp_path):
    path = tmp_path / "params.json"
    path.write_text('{"steps": 7, "step_s": 0}')
    from_file = cli("submit", "countdown", "--params", f"@{path}", "-p", "steps=6", "-o", "json")
    assert json.loads(from_file.out)["params"]["steps"] == 6
    from_stdin = cli("submit", "countdown", "--params", "-", "-o", "json", stdin=path.read_text())
    assert json.loads(from_stdin.out)["params"]["steps"] == 7


def test_the_options_of_submit_reach_the_job(cli):
    words = ["--priority", "high", "--max-attempts", "7", "--tag", "a", "--tag", "b", "--attempt-timeout", "9"]
    run = cli("submit", "countdown", *QUICK, *words, "--not-before", "2999-01-01T00:00:00Z", "-o", "json")
    job = json.loads(run.out)
    assert (job["priority"], job["max_attempts"], job["tags"]) == ("high", 7, ["a", "b"])
    assert job["not_before"] == "2999-01-01T00:00:00.000Z"
    submitted = json.loads(cli("jobs", "events", job["id"], "--limit", "1", "-o", "jsonl").out)
    assert submitted["timeouts"]["attempt_s"] == 9
    assert cli("jobs", "cancel", job["id"]).out == "cancelled\n"


def test_the_same_key_is_the_same_job(a_job):
    first, second = a_job(*QUICK, "--key", "once"), a_job(*QUICK, "--key", "once")
    assert first["id"] == second["id"]


def test_refusals_name_the_field_and_change_nothing(cli):
    run = cli("submit", "countdown", "-p", "steps=many")
    assert run.code == 1
    assert "params.steps" in run.err
    unknown = cli("submit", "teleport")
    assert unknown.code == 1
    assert "countdown" in unknown.err


def test_an_unknown_job_exits_1(cli):
    for words in (["follow"], ["jobs", "get"], ["jobs", "events"], ["jobs", "cancel"], ["jobs", "retry"]):
        run = cli(*words, "01900000-0000-7000-8000-000000000000")
        assert (run.code, run.out) == (1, "")
        assert "no such job" in run.err


def test_list_filters_and_pages(cli, a_job):
    made = [a_job(*QUICK, "--tag", "listed")["id"] for _ in range(3)]
    other = a_job(*FAILING, "--tag", "listed", "--follow")["id"]
    listed = json.loads(cli("jobs", "list", "--tag", "listed", "-o", "json").out)
    assert [job["id"] for job in listed] == sorted([other, *made], reverse=True)
    failed = cli("jobs", "list", "--tag", "listed", "--status", "failed", "--status", "cancelled", "-o", "jsonl")
    assert [json.loads(line)["id"] for line in failed.out.splitlines()] == [other]
    table = cli("jobs", "list", "--tag", "listed", "--limit", "2").out.splitlines()
    assert table[0].split()[:3] == ["ID", "ENGINE", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == [other, made[-1]]


def test_a_query_lists_what_the_query_box_finds(cli, a_job):
    mine = a_job(*FAILING, "--tag", "asked for", "--follow")["id"]
    a_job(*QUICK, "--tag", "asked for", "--follow")
    for query in (["status:failed,cancelled", 'tag:"asked for"'], ['status:failed tag:"asked for" created_after:1h']):
        found = cli("jobs", "list", *query, "-o", "jsonl")
        assert [json.loads(line)["id"] for line in found.out.splitlines()] == [mine]
    wrong = cli("jobs", "list", "flavour:sweet")
    assert (wrong.code, wrong.out) == (1, "")
    assert "flavour" in wrong.err


NEVER = ("--not-before", "2999-01-01T00:00:00Z")


def test_a_bulk_action_prints_what_it_changed_and_says_what_it_left(cli, a_job):
    made = [a_job(*QUICK, *NEVER, "--tag", "many")["id"] for _ in range(3)]
    done = cli("jobs", "bulk", "cancel", "tag:many", "--yes", "--reason", "spring cleaning")
    assert (done.code, sorted(done.out.split())) == (0, sorted(made))
    assert done.err == "3 jobs to cancel\n"
    cancelled = json.loads(cli("jobs", "events", made[0], "-o", "jsonl").out.splitlines()[-1])
    assert (cancelled["type"], cancelled["reason"]) == ("cancelled", "spring cleaning")
    again = json.loads(cli("jobs", "bulk", "rerun", "tag:many", "status:cancelled", "--yes", "-o", "json").out)
    assert (again["count"], len(again["jobs"]), again["refused"]) == (3, 3, [])
    assert {json.loads(cli("jobs", "get", new, "-o", "json").out)["rerun_of"] for new in again["jobs"]} == set(made)
    nothing = cli("jobs", "bulk", "retry", "tag:nobody", "--yes")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "0 jobs to retry\n")


def test_a_bulk_action_nobody_can_confirm_needs_to_be_told_yes(cli, a_job):
    job_id = a_job(*QUICK, *NEVER, "--tag", "unasked")["id"]
    run = cli("jobs", "bulk", "cancel", "tag:unasked")
    assert (run.code, run.out) == (2, "")
    assert "--yes" in run.err
    assert json.loads(cli("jobs", "get", job_id, "-o", "json").out)["status"] == "queued"
    cli("jobs", "cancel", job_id)


def test_the_feed_goes_on_where_it_said(cli, a_job):
    def cursor(run):
        return run.err.split("--after ")[1].split()[0]

    begun = cli("feed", "--after", "now", "--follow", "--timeout", "0.5", "-o", "jsonl")
    assert begun.code == 5
    jobs = [a_job(*QUICK, "--follow") for _ in range(2)]
    run = cli("feed", "--after", cursor(begun), "-o", "jsonl")
    assert run.code == 0
    events = [json.loads(line) for line in run.out.splitlines()]
    for job in jobs:
        assert [event["seq"] for event in events if event["job_id"] == job["id"]] == list(range(1, job["seq"] + 1))
    shown = cli("feed", "--after", cursor(begun)).out.splitlines()
    assert [line.split()[:2] for line in shown] == [[event["job_id"], str(event["seq"])] for event in events]
    assert cli("feed", "--after", cursor(run)).out == ""
    assert cli("feed", "--after", "made-up").code == 1


def test_workers_and_counts_are_shown(cli):
    (worker,) = json.loads(cli("workers", "-o", "json").out)
    assert worker["id"] in cli("workers").out
    counts = json.loads(cli("stats", "-o", "json").out)
    assert counts["workers"] == 1
    assert "bus             memory, connected" in cli("stats").out.splitlines()
    itself = json.loads(cli("stats", "--gateway", "-o", "json").out)
    assert itself["connections_max"] == 10_000
    assert f"id                     {itself['id']}" in cli("stats", "--gateway").out.splitlines()


def test_a_job_can_be_seen_as_of_any_sequence(cli, a_job):
    job = a_job(*QUICK, "--follow")
    past = json.loads(cli("jobs", "get", job["id"], "--at", "1", "-o", "json").out)
    assert (past["status"], past["seq"]) == ("queued", 1)
    assert cli("jobs", "get", job["id"], "--at", str(job["seq"] + 1)).code == 1


def test_the_same_has_a_command_of_its_own(cli, a_job):
    job = a_job(*QUICK, "--follow")
    past = json.loads(cli("jobs", "at", job["id"], "--seq", "2", "-o", "json").out)
    assert (past["status"], past["seq"]) == ("running", 2)
    beyond = cli("jobs", "at", job["id"], "--seq", str(job["seq"] + 1))
    assert (beyond.code, beyond.out) == (1, "")
    assert f"at sequence {job['seq']}" in beyond.err


def test_events_are_replayed_in_part_or_as_a_whole(cli, a_job):
    job = a_job(*QUICK, "--follow")
    whole = cli("jobs", "events", job["id"], "-o", "jsonl").out
    assert seqs(whole) == list(range(1, job["seq"] + 1))
    assert whole == cli("follow", job["id"], "-o", "jsonl").out
    part = json.loads(cli("jobs", "events", job["id"], "--after", "2", "--limit", "2", "-o", "json").out)
    assert [event["seq"] for event in part] == [3, 4]


def test_events_may_be_followed_to_the_end(cli, a_job):
    job_id = a_job("-p", "steps=20", "-p", "step_s=0.05")["id"]
    run = cli(
        "jobs", "events", job_id, "--after", "1", "--follow", "-o", "jsonl"
    )  # of a later one it may know nothing yet
    assert run.code == 0
    assert seqs(run.out) == list(range(2, json.loads(cli("jobs", "get", job_id, "-o", "json").out)["seq"] + 1))


def test_the_log_is_replayed_from_its_folder_as_the_server_sends_it(cli, a_job, up):
    job = a_job(*QUICK, "--follow")
    words = ["jobs", "events", job["id"], "-o", "jsonl"]
    assert cli(*words, "--data-dir", str(up.data_dir)).out == cli(*words).out


def test_results_are_the_exact_document(cli, a_job):
    job = a_job(*QUICK, "--follow")
    assert json.loads(cli("jobs", "results", job["id"]).out) == job["results"]


@pytest.mark.parametrize("size", [10, 400_000])
def test_results_go_to_a_file_whatever_their_size(cli, tmp_path, size):
    job = json.loads(cli("submit", "sized", "-p", f"size={size}", "--follow", "-o", "json").out)
    file = tmp_path / "result.json"
    assert cli("jobs", "results", job["id"], "--to", str(file)).out == ""
    assert json.loads(file.read_text()) == "x" * size


def test_retry_goes_on_in_the_same_stream_and_rerun_makes_a_new_one(cli, a_job):
    failed = a_job(*FAILING, "--follow")
    again = cli("jobs", "retry", failed["id"], "--follow", "-o", "jsonl")
    assert again.code == 3
    events = [json.loads(line) for line in again.out.splitlines()]
    assert (events[0]["seq"], events[0]["type"]) == (failed["seq"] + 1, "reopened")
    rerun = json.loads(cli("jobs", "rerun", failed["id"], "-p", "fail_at=null", "--follow", "-o", "json").out)
    assert (rerun["rerun_of"], rerun["status"]) == (failed["id"], "completed")
    assert rerun["params"]["steps"] == failed["params"]["steps"]
    assert cli("jobs", "retry", rerun["id"]).code == 1


def test_engines_are_listed_with_their_phases(cli):
    assert "initializing collecting_data counting" in cli("engines").out
    known = {engine["name"]: engine for engine in json.loads(cli("engines", "-o", "json").out)}
    assert known["countdown"]["params_schema"]["properties"]["steps"]
