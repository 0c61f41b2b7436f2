import threading
import time

import pytest

from edge.inference.queue import FairQueue, QueueClosed, QueueFull


def test_clients_take_turns_whatever_each_has_waiting() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for number in range(5):
        queue.put("greedy", f"greedy {number}")
    queue.put("modest", "modest 0")
    queue.put("third", "third 0")
    queue.put("modest", "modest 1")
    assert [queue.gather(0, 1, 0.0, lambda: 1)[0] for _ in range(8)] == [
        "greedy 0", "modest 0", "third 0", "greedy 1", "modest 1", "greedy 2", "greedy 3", "greedy 4",
    ]  # fmt: skip


def test_a_client_beyond_its_bound_is_refused_and_counted_and_others_are_not() -> None:
    queue: FairQueue[int] = FairQueue(2)
    queue.put("a", 1)
    queue.put("a", 2)
    with pytest.raises(QueueFull):
        queue.put("a", 3)
    queue.put("b", 4)
    assert (len(queue), queue.refused) == (3, 1)


def test_unwanted_items_are_taken_out_and_the_rest_keeps_its_order() -> None:
    queue: FairQueue[int] = FairQueue(8)
    for number in range(6):
        queue.put("a" if number < 4 else "b", number)
    assert sorted(queue.take_if(lambda number: number % 2 == 1)) == [1, 3, 5]
    assert [queue.gather(0, 1, 0.0, lambda: 1)[0] for _ in range(3)] == [0, 4, 2]


def test_closing_gives_back_what_waits_and_ends_who_waits() -> None:
    queue: FairQueue[int] = FairQueue(8)
    ended = threading.Event()

    def take() -> None:
        with pytest.raises(QueueClosed):
            queue.gather(0, 1, 0.0, lambda: 1)[0]
        ended.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert queue.close() == []
    thread.join(30)
    assert ended.is_set()
    with pytest.raises(QueueClosed):
        queue.put("a", 1)

    full: FairQueue[int] = FairQueue(8)
    full.put("a", 1)
    assert full.close() == [1]


def test_while_others_compute_what_comes_is_gathered_and_a_free_place_begins_it() -> None:
    queue: FairQueue[int] = FairQueue(8)
    queue.free()
    queue.put("a", 1)
    assert queue.gather(0, 4, 0.0, lambda: 1) == [1]
    assert queue.gather(1, 4, 0.0, lambda: 1) == [], "the only place is taken"
    queue.put("a", 2)
    assert queue.gather(0, 4, 0.0, lambda: 1) == [2]
    gathered: list[list[int]] = []

    def gather() -> None:
        gathered.append(queue.gather(1, 4, 0.0, lambda: 1))
        gathered.append(queue.gather(2, 4, 0.0, lambda: 1))

    thread = threading.Thread(target=gather)
    thread.start()
    queue.put("b", 3)
    queue.free()
    thread.join(30)
    assert gathered == [[3], []]


def test_a_batch_begins_when_as_many_as_expected_are_there_or_its_time_is_over() -> None:
    queue: FairQueue[int] = FairQueue(8)
    queue.free(2)
    later = time.monotonic() + 60
    assert queue.gather(2, 4, later, lambda: 2) == []
    assert queue.gather(2, 4, time.monotonic() - 1, lambda: 4) == []


def test_what_was_gathered_before_the_end_is_still_computed() -> None:
    queue: FairQueue[int] = FairQueue(8)
    queue.free()
    queue.close()
    assert queue.gather(1, 4, time.monotonic() + 60, lambda: 4) == []
    with pytest.raises(QueueClosed):
        queue.gather(0, 4, 0.0, lambda: 1)
