"""When a camera's BGR is wanted in advance: by the share of its frames that the application looks at."""

import pytest

from panoramasdk._looks import RECENT_FRAMES, Looks


def _after(looks, frames, looked_at):
    """What is asked for with each of so many frames; `looked_at(number)`: this one's pixels are used."""
    asked = []
    for number in range(frames):
        asked.append(looks.wants_in_advance())
        looks.delivered()
        if looked_at(number):
            looks.looked()
    return asked


def test_the_first_frames_are_asked_for_with_bgr():
    assert all(_after(Looks(), RECENT_FRAMES // 2, lambda _: False))


@pytest.mark.parametrize("late", range(4))
def test_who_looks_at_every_frame_always_has_it_in_advance_even_some_frames_later(late):
    looks = Looks()
    assert all(_after(looks, late, lambda _: False) + _after(looks, 500, lambda _: True))


@pytest.mark.parametrize("every", [2, 3, 6])
def test_who_looks_at_every_second_frame_or_fewer_has_them_on_demand_from_soon_on(every):
    asked = _after(Looks(), 500, lambda number: number % every == 0)
    assert not any(asked[4 * RECENT_FRAMES :]) and asked.count(True) < 4 * RECENT_FRAMES


def test_who_leaves_out_every_fifth_frame_has_all_in_advance():
    assert all(_after(Looks(), 500, lambda number: number % 5 > 0))


def test_what_is_asked_for_does_not_come_and_go_between_the_shares():
    looks = Looks()
    two_of_three = _after(looks, 500, lambda number: number % 3 > 0)
    assert all(two_of_three), "it began with BGR in advance"
    _after(looks, 100, lambda _: False)
    assert not any(_after(looks, 500, lambda number: number % 3 > 0)[1:]), "and without"


def test_who_begins_to_look_at_every_frame_has_it_in_advance_soon():
    looks = Looks()
    _after(looks, 500, lambda _: False)
    asked = _after(looks, 2 * RECENT_FRAMES, lambda _: True)
    assert not asked[0] and asked[-1] and asked == sorted(asked)
