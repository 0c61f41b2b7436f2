import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge.ingest.timestamps import JUMP_MAX_US, TimestampValidator

STEP_US = 40_000


def feed(validator: TimestampValidator, camera: list[int | None], spacing_us: int = STEP_US) -> list[int]:
    return [validator.next(time, index * spacing_us * 1000) for index, time in enumerate(camera)]


def test_the_cameras_own_spacing_is_handed_on() -> None:
    camera = [5_000_000, 5_033_000, 5_080_000, 5_120_000]
    assert feed(TimestampValidator(), list(camera)) == [0, 33_000, 80_000, 120_000]


def test_a_camera_whose_clock_starts_again_goes_on_from_where_it_was() -> None:
    validator = TimestampValidator()
    out = feed(validator, [9_000_000_000, 9_000_040_000, 0, 40_000, 80_000])
    assert out == [0, 40_000, 80_000, 120_000, 160_000]
    assert validator.resets == 1


def test_a_jump_forward_by_hours_is_no_jump() -> None:
    validator = TimestampValidator()
    out = feed(validator, [0, 40_000, 3_600_000_000, 3_600_040_000])
    assert out == [0, 40_000, 80_000, 120_000]
    assert validator.resets == 1


def test_a_pause_of_the_camera_is_handed_on_as_one() -> None:
    validator = TimestampValidator()
    assert validator.next(0, 0) == 0
    assert validator.next(8_000_000, 8_000_000_000) == 8_000_000
    assert validator.resets == 0


def test_frames_without_a_time_get_that_of_their_arrival() -> None:
    assert feed(TimestampValidator(), [None, None, None]) == [0, 40_000, 80_000]
    assert feed(TimestampValidator(), [1_000, None, 81_000]) == [0, 40_000, 80_000 + 40_000]


def test_after_a_reconnect_the_step_is_that_of_the_arrivals() -> None:
    validator = TimestampValidator()
    validator.next(1_000_000, 0)
    validator.reconnected()
    assert validator.next(1_040_000, 3_000_000_000) == 3_000_000
    assert validator.resets == 0


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**62), 2**62)),
            st.integers(0, 10 * JUMP_MAX_US),
            st.booleans(),
        )
    )
)
def test_times_never_go_back_whatever_the_camera_sends(frames: list[tuple[int | None, int, bool]]) -> None:
    validator = TimestampValidator()
    arrival_us, out = 0, [-1]
    for camera_us, step_us, reconnect in frames:
        arrival_us += step_us
        if reconnect:
            validator.reconnected()
        out.append(validator.next(camera_us, arrival_us * 1000))
    assert all(earlier < later for earlier, later in itertools.pairwise(out))
    # Nor do they run away: they stay within one accepted jump a frame of the arrivals.
    assert out[-1] <= arrival_us + len(frames) * (JUMP_MAX_US + 1)


def test_the_wrap_of_33_bits_is_no_step_back() -> None:
    """MPEG's clock: 2³³ ticks of 90 kHz, some 26 hours."""
    validator = TimestampValidator()
    wrap_us = (1 << 33) * 100 // 9
    camera = [(wrap_us - 80_000 + index * STEP_US) % wrap_us for index in range(5)]
    assert feed(validator, list(camera)) == [0, 40_000, 80_000, 120_000, 160_000]


def test_another_process_goes_on_from_where_the_last_one_was() -> None:
    """Times begin with the arrival, so that a worker that was started anew does not go back to 0."""
    before, after = TimestampValidator(), TimestampValidator()
    last = max(before.next(index * STEP_US, 7_000_000_000 + index * STEP_US * 1000) for index in range(10))
    assert after.next(0, 9_000_000_000) > last
