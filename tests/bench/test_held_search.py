"""B12's search, against parties whose bound is known."""

from __future__ import annotations

import pytest

from tests.bench.held_search import MOST, Outcome, most_held

LASTS_S = 60.0


@pytest.mark.parametrize("bound", [0, 1, 3, 7, 11, 13, MOST])
@pytest.mark.parametrize("begin", [1, 10])
def test_the_bound_is_found_from_wherever_it_begins(bound: int, begin: int) -> None:
    def attempt(count: int) -> Outcome:
        return Outcome(1.0 if count <= bound else 0.5, min(2.0, count * 0.15))

    assert most_held(attempt, 2, begin, LASTS_S) == (bound, bound + 1)


def test_a_try_that_nearly_held_is_made_once_more() -> None:
    tries: list[int] = []

    def attempt(count: int) -> Outcome:
        tries.append(count)
        unlucky = count == 10 and tries.count(10) == 1
        return Outcome(1.0 if count <= 11 and not unlucky else 0.9, count * 0.17)

    assert most_held(attempt, 2, 10, LASTS_S) == (11, 12)
    assert tries == [10, 10, 11, 12, 12]


def test_pictures_that_were_dropped_are_not_held_however_many_answers_came() -> None:
    def attempt(count: int) -> Outcome:
        return Outcome(1.0, 1.0, "" if count < 3 else "1 pictures dropped")

    assert most_held(attempt, 2, 4, LASTS_S) == (2, 3)
