"""Waits between connections: full jitter, a server's hint wins."""

from phaseline.backoff import Backoff


def test_the_cap_of_the_draw_doubles_from_half_a_second_to_twenty():
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_the_whole_range_below_the_cap_is_drawn_from():
    draws = iter([0.0, 0.25, 0.999])
    backoff = Backoff(lambda: next(draws))
    assert [backoff.next_s() for _ in range(3)] == [0.0, 0.25, 1.998]


def test_a_hint_wins_and_still_counts_as_a_failure():
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_s(3.0), backoff.next_s(0.0), backoff.next_s()] == [3.0, 0.0, 2.0]


def test_a_hint_is_followed_for_five_minutes_at_most_and_one_that_is_no_time_not_at_all():
    backoff = Backoff(lambda: 1.0)
    hints = [300.0, 301.0, float("inf"), -1.0, float("nan")]
    assert [backoff.next_s(hint) for hint in hints] == [300.0, 300.0, 300.0, 4.0, 8.0]


def test_a_connection_that_proved_itself_starts_again_from_half_a_second():
    backoff = Backoff(lambda: 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5
