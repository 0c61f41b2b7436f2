"""The promises of the slot table, whatever happens in whatever order."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framelink.errors import LayoutError
from framelink.slots import SPARE_SLOTS, SlotTable

SLOTS = 5
KEPT = 2


class Slots(RuleBasedStateMachine):
    """A writer with one slot in hand, a decoder that keeps some more, and readers that take and give back."""

    kept_slots = 0

    def __init__(self):
        super().__init__()
        self.table = SlotTable(SLOTS + self.kept_slots, self.kept_slots)
        self.kept = {}
        self.in_hand = None
        self.sequence = 0
        self.holds = []
        self.pictures = {}

    @precondition(lambda self: self.in_hand is None)
    @rule()
    def acquire(self):
        self.in_hand = self.table.acquire()
        assert self.in_hand is not None, "the writer always has a slot"
        assert self.in_hand not in self.holds, "a held slot is never handed to the writer"
        assert self.in_hand not in self.kept, "a kept slot is never written"

    @rule()
    def keep(self):
        slot = self.table.acquire_kept()
        assert slot is None or (slot not in self.holds and slot not in self.kept and slot != self.in_hand)
        assert slot is not None or len(self.kept) >= self.kept_slots
        if slot is not None:
            self.kept[slot] = False

    @precondition(lambda self: not all(self.kept.values()))
    @rule(data=st.data())
    def publish_kept(self, data):
        slot = data.draw(st.sampled_from([slot for slot, published in self.kept.items() if not published]))
        self.sequence += 1
        self.table.publish(slot, self.sequence)
        self.pictures[slot] = self.sequence
        self.kept[slot] = True

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def let_go(self, data):
        slot = data.draw(st.sampled_from(list(self.kept)))
        del self.kept[slot]
        self.table.let_go(slot)
        assert not self.table.in_hand[slot]

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def publish(self):
        self.sequence += 1
        self.table.publish(self.in_hand, self.sequence)
        assert self.table.newest == self.in_hand
        self.pictures[self.in_hand] = self.sequence
        self.in_hand = None

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def discard(self):
        self.table.discard(self.in_hand)
        self.in_hand = None

    @rule()
    def give_newest(self):
        if self.table.newest is not None and self.table.may_give(self.table.newest):
            self.table.give(self.table.newest)
            self.holds.append(self.table.newest)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def take_back(self, data):
        slot = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        self.table.take_back(slot)

    @invariant()
    def readers_leave_two(self):
        assert len(set(self.holds)) <= SLOTS - SPARE_SLOTS

    @invariant()
    def held_pictures_stay(self):
        for slot in self.holds:
            assert self.table.holds(slot, self.pictures[slot])


class SlotsWithADecoder(Slots):
    kept_slots = KEPT


TestSlots = Slots.TestCase
TestSlotsWithADecoder = SlotsWithADecoder.TestCase


def test_a_ring_of_frames_needs_more_than_the_two_spare_slots():
    with pytest.raises(LayoutError):
        SlotTable(SPARE_SLOTS)
    with pytest.raises(LayoutError):
        SlotTable(SPARE_SLOTS + KEPT, KEPT)
