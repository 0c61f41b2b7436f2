import random

from edge.ingest.backoff import FIRST_S, JITTER, Backoff


def test_the_first_retry_is_at_once_and_later_ones_wait_longer_up_to_the_bound() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next_s(10.0) for _ in range(10)]
    assert waits[0] == 0.0
    for number, wait in enumerate(waits[1:]):
        bound = min(10.0, FIRST_S * 2**number)
        assert bound * (1 - JITTER) <= wait <= bound


def test_a_refused_password_is_not_tried_again_at_once() -> None:
    assert Backoff(random.Random(1)).next_s(30.0, at_once=False) >= FIRST_S * (1 - JITTER)


def test_a_camera_that_is_away_for_a_month_does_not_overflow() -> None:
    backoff = Backoff(random.Random(1), failures=300_000)
    assert 7.5 <= backoff.next_s(10.0) <= 10.0


def test_two_cameras_that_fail_together_do_not_retry_together() -> None:
    waits = {Backoff(random.Random(seed), failures=5).next_s(10.0) for seed in range(8)}
    assert len(waits) == 8


def test_after_success_the_next_failure_is_a_first_one() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.next_s(10.0)
    backoff.reset()
    assert backoff.next_s(10.0) == 0.0
