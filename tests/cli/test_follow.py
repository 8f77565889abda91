"""What a follow promises whoever reads it, whatever the connection does (docs/protocol.md §7)."""

import asyncio
import logging

import pytest

from phaseline import Client
from phaseline.client_errors import NotFound, StreamRefused, TimedOut
from tests.cli.scripted import (
    CAUGHT_UP,
    END,
    JOB,
    Breaks,
    Closes,
    FallsSilent,
    Frame,
    Play,
    batch,
    event,
    hello,
    scripted,
)


async def seqs_of(follow):
    return [each["seq"] async for each in follow]


async def test_every_event_comes_once_and_the_end_is_the_end():
    frames = [hello(), batch(1, 2), event(3), CAUGHT_UP, event(4, "complete")]
    async with scripted((frames, Closes())) as server, Client(server.url) as client:
        follow = client.follow(JOB)
        assert await seqs_of(follow) == [1, 2, 3, 4]
        assert follow.status == "completed"
        assert len(server.queries) == 1
        assert server.queries[0] == {"after": "0", "batch": "1"}


async def test_a_broken_connection_resumes_after_the_last_sequence_in_its_epoch():
    plays = ([hello(), batch(1, 2, 3)], Breaks()), ([hello(), batch(2, 3, 4)], Breaks()), END
    async with scripted(*plays) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB)) == [1, 2, 3, 4]
        assert server.queries[1:] == [
            {"after": "3", "batch": "1", "epoch": "e1"},
            {"after": "4", "batch": "1", "epoch": "e1"},
        ]


async def test_an_event_is_delivered_only_behind_the_one_before_it():
    plays = ([hello(), batch(1, 2), batch(4, 5)], FallsSilent()), ([hello(), batch(3, 4, 5)], Closes())
    async with scripted(*plays) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB)) == [1, 2, 3, 4, 5]
        assert server.queries[1]["after"] == "2"


async def test_one_callback_that_raises_harms_neither_the_others_nor_the_stream(caplog):
    before: list[Frame] = []
    after: list[Frame] = []

    def breaks(event):
        raise RuntimeError(f"no {event['seq']}")

    async def breaks_later(event):
        raise ValueError("nor this")

    callbacks = [before.append, breaks, breaks_later, after.append]
    async with scripted(([hello(), batch(1, 2, 3)], Closes())) as server, Client(server.url) as client:
        with caplog.at_level(logging.ERROR, "phaseline"):
            assert await client.follow(JOB, on_event=callbacks).wait() == "running"
        assert [each["seq"] for each in before] == [each["seq"] for each in after] == [1, 2, 3]
        assert len(server.queries) == 1
    assert [record.args[0] for record in caplog.records] == [1, 1, 2, 2, 3, 3]
    assert "no 2" in caplog.text
    assert "nor this" in caplog.text


async def test_a_sequence_counts_only_when_its_reader_is_done_with_it():
    async with scripted(([hello(), batch(1, 2, 3)], Closes())) as server, Client(server.url) as client:
        follow = client.follow(JOB)
        async for each in follow:
            assert follow.after == each["seq"] - 1
            if each["seq"] == 3:
                break
        assert follow.after == 2


async def test_a_dropped_connection_loses_nothing_it_had_brought_already():
    plays = ([hello(), batch(1, 2, 3)], FallsSilent()), ([hello(), batch(2, 3)], Closes())
    async with scripted(*plays) as server, Client(server.url) as client:
        follow, seen = client.follow(JOB), []
        async for each in follow:
            seen.append(each["seq"])
            if len(seen) == 1:
                await follow.drop()
        assert seen == [1, 2, 3]
        assert server.queries[1]["after"] == "1"


async def test_a_reset_hands_over_the_snapshot_and_goes_on_behind_it():
    snapshot = {"id": JOB, "seq": 2, "status": "running"}
    reset = {"type": "reset", "reason": "epoch_changed", "head_seq": 2, "snapshot": snapshot}
    plays = (
        ([hello(), batch(1, 2, 3)], Breaks()),
        ([hello(epoch="e2", resume="reset"), reset, batch(3, 4)], Breaks()),
        END,
    )
    snapshots: list[Frame] = []
    async with scripted(*plays) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB, on_reset=snapshots.append)) == [1, 2, 3, 3, 4]
        assert snapshots == [snapshot]
        assert server.queries[2] == {"after": "4", "batch": "1", "epoch": "e2"}


async def test_the_next_event_waits_for_whoever_drops_what_was_before_a_reset():
    reset = {"type": "reset", "head_seq": 2, "snapshot": {"id": JOB, "seq": 2, "status": "running"}}
    told: list[object] = []

    async def dropped(snapshot: Frame) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        told.append(f"reset to {snapshot['seq']}")

    plays = (([hello(resume="reset"), reset, batch(3, 4)], Closes()),)
    async with scripted(*plays) as server, Client(server.url) as client:
        follow = client.follow(JOB, 9, on_reset=dropped, on_event=lambda event: told.append(event["seq"]))
        await follow.wait()
    assert told == ["reset to 2", 3, 4]


async def test_after_a_reset_of_a_finished_job_its_terminal_event_comes_again():
    snapshot = {"id": JOB, "seq": 2, "status": "failed"}
    reset = {"type": "reset", "reason": "seq_ahead", "head_seq": 2, "snapshot": snapshot}
    frames = [hello(resume="reset"), reset, event(2, "error"), CAUGHT_UP]
    async with scripted((frames, Closes(4000))) as server, Client(server.url) as client:
        follow = client.follow(JOB, after=9)
        assert await seqs_of(follow) == [2]
        assert follow.status == "failed"


async def test_a_sequence_stays_with_its_epoch_until_the_snapshot_is_taken():
    plays = ([hello(), batch(1)], Breaks()), ([hello(epoch="e2", resume="reset")], Breaks()), END
    async with scripted(*plays) as server, Client(server.url) as client:
        await client.follow(JOB).wait()
        assert server.queries[2] == {"after": "1", "batch": "1", "epoch": "e1"}


async def test_the_connection_is_shown_as_it_is():
    plays = ([hello(), batch(1), CAUGHT_UP], Breaks()), ([hello(), CAUGHT_UP, batch(2)], Closes())
    states: list[str] = []
    async with scripted(*plays) as server, Client(server.url) as client:
        await client.follow(JOB, on_connection=states.append).wait()
    assert states == ["catching_up", "live", "waiting", "catching_up", "live"]


async def test_a_silent_connection_is_given_up_after_two_and_a_half_heartbeats():
    plays = ([hello(heartbeat_s=0.1), batch(1)], FallsSilent()), ([hello(), batch(2)], Closes())
    async with scripted(*plays) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB, timeout_s=10)) == [1, 2]


async def test_two_heartbeats_beyond_what_came_mean_that_something_is_missing():
    beat = {"type": "heartbeat", "seq": 2}
    plays = ([hello(), batch(1), beat, beat], FallsSilent()), ([hello(), batch(2)], Closes())
    async with scripted(*plays) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB, timeout_s=10)) == [1, 2]


async def test_the_server_says_when_to_come_back():
    goodbye = {"type": "goodbye", "reason": "deploy", "reconnect_after_ms": 60_000}
    async with scripted(([hello(), batch(1), goodbye], Closes(1012))) as server, Client(server.url) as client:
        with pytest.raises(TimedOut) as late:
            await client.follow(JOB, timeout_s=0.7).wait()
        assert late.value.after == 1
        assert len(server.queries) == 1


async def test_a_limit_of_connections_names_the_wait_in_its_close_reason():
    refused: Play = ([], Closes(4429, "retry_after=60"))
    async with scripted(refused, END) as server, Client(server.url) as client:
        with pytest.raises(TimedOut):
            await client.follow(JOB, timeout_s=0.7).wait()
        assert len(server.queries) == 1


@pytest.mark.parametrize("code", [4004, 4400, 4401, 4403, 1002, 1003, 1007, 1009])
async def test_some_closes_say_do_not_come_back(code):
    complaint = {"type": "command_error", "code": "bad_query", "message": "after: not a number"}
    async with scripted(([complaint], Closes(code, "no"))) as server, Client(server.url) as client:
        with pytest.raises(StreamRefused, match="after: not a number") as refusal:
            await client.follow(JOB).wait()
        assert refusal.value.code == code
        assert len(server.queries) == 1


async def test_a_url_without_streams_is_no_reason_to_wait():
    async with scripted(END) as server, Client(f"{server.url}/elsewhere") as client:
        with pytest.raises(NotFound):
            await client.follow(JOB).wait()


async def test_control_frames_of_a_later_version_are_passed_over():
    frames = [hello(), {"type": "weather", "seq": 7}, batch(1)]
    async with scripted((frames, Closes())) as server, Client(server.url) as client:
        assert await seqs_of(client.follow(JOB)) == [1]
