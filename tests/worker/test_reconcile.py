"""Only what was stable over a beat's round trip counts."""

from engine_worker.reconcile import Key, Reconciler, Snapshot

ONE: Key = ("job one", 1, "lease one")
TWO: Key = ("job two", 1, "lease two")


def seen(*mine: Key, busy: tuple[Key, ...] = (), commands: int = 0, claims: tuple[int, ...] = ()) -> Snapshot:
    """A worker with these attempts, the `busy` ones with a command in flight."""
    return Snapshot(frozenset(mine), {key: commands for key in mine if key not in busy}, frozenset(claims))


def test_nothing_is_said_while_both_agree():
    verdict = Reconciler().judge({ONE, TWO}, seen(ONE, TWO), seen(ONE, TWO))
    assert (verdict.orphans, verdict.lost) == (frozenset(), frozenset())


def test_a_job_unknown_in_two_successive_beats_is_given_back():
    reconciler = Reconciler()
    assert reconciler.judge({ONE}, seen(), seen()).orphans == frozenset()
    assert reconciler.judge({ONE}, seen(), seen()).orphans == {ONE}


def test_a_job_unknown_once_and_known_then_is_left_alone():
    reconciler = Reconciler()
    reconciler.judge({ONE}, seen(), seen())
    reconciler.judge({ONE}, seen(ONE), seen(ONE))
    assert reconciler.judge({ONE}, seen(), seen()).orphans == frozenset()


def test_a_claim_still_in_flight_may_own_it():
    reconciler = Reconciler()
    reconciler.judge({ONE}, seen(claims=(1,)), seen(claims=(1,)))
    assert reconciler.judge({ONE}, seen(claims=(1,)), seen(claims=(1,))).orphans == frozenset()
    # That claim was answered without it; claims begun later cannot own it.
    assert reconciler.judge({ONE}, seen(claims=(2,)), seen(claims=(2,))).orphans == {ONE}


def test_an_attempt_absent_from_the_reply_is_lost():
    assert Reconciler().judge({TWO}, seen(ONE, TWO), seen(ONE, TWO)).lost == {ONE}


def test_an_attempt_begun_while_the_beat_was_under_way_is_not_judged():
    assert Reconciler().judge(set(), seen(), seen(ONE)).lost == frozenset()


def test_an_attempt_with_a_command_under_way_is_not_judged():
    for sent, now in (
        (seen(ONE, busy=(ONE,)), seen(ONE)),
        (seen(ONE), seen(ONE, busy=(ONE,))),
        (seen(ONE, commands=1), seen(ONE, commands=2)),
        (seen(ONE), seen()),
    ):
        assert Reconciler().judge(set(), sent, now).lost == frozenset()


def test_another_attempt_of_the_same_job_is_another_attempt():
    newer = (ONE[0], 2, "another lease")
    verdict = Reconciler().judge({newer}, seen(ONE), seen(ONE))
    assert verdict.lost == {ONE}
