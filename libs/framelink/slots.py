"""Who may use which slot: the writer's bookkeeping, pure, so that its promises can be tested by themselves.

- A slot that somebody holds, or that is being written, or that the writer keeps (a decoder that refers to the pictures it
made), is never handed to the writer.
- Readers together hold at most all slots but two: one for the newest frame, one to write the next. So `acquire`
succeeds whatever the readers do, as long as the writer has
  one slot in hand at a time.
"""

from __future__ import annotations

from framelink.errors import LayoutError

SPARE_SLOTS = 2
"""Never given out at the same time: one holds the newest frame, the next is being written into the other."""


class SlotTable:
    """The state of each slot: its sequence (0 = nothing), how many hold it, and whether the writer has it in hand.

    `kept`: so many of the slots may be kept by the writer; readers get none of them.
    """

    def __init__(self, slots: int, kept: int = 0) -> None:
        if slots - kept <= SPARE_SLOTS:
            raise LayoutError("a ring of frames needs more than %d slots" % (SPARE_SLOTS + kept))
        self._sequences = [0] * slots
        self._holds = [0] * slots
        self.in_hand = [False] * slots
        """Slots that the writer has acquired and not published yet."""
        self._kept = [False] * slots
        self._keepable = kept
        """So many more slots may be kept."""
        self.givable = slots - kept - SPARE_SLOTS
        """So many more slots may be given out."""
        self.newest: int | None = None

    def acquire(self) -> int | None:
        """The slot with the latest picture that nobody needs; None where there is none.

        The latest, since its memory is still in the caches: over 8 slots of 1080p in turn, copying the planes and making
        BGR took 2.8 ms a frame, over the three that are in use 2.1.
        """
        best = None
        for slot, sequence in enumerate(self._sequences):
            if self._holds[slot] or self.in_hand[slot] or self._kept[slot] or slot == self.newest:
                continue
            if best is None or sequence > self._sequences[best]:
                best = slot
        if best is not None:
            self.in_hand[best] = True
            self._sequences[best] = 0
        return best

    def acquire_kept(self) -> int | None:
        """The same, kept until `let_go` whatever becomes of it; None also where as many are kept as may be."""
        slot = self.acquire() if self._keepable else None
        if slot is not None:
            self._kept[slot] = True
            self._keepable -= 1
        return slot

    def let_go(self, slot: int) -> None:
        """Kept no more. One that has not been published is given back."""
        self._kept[slot] = False
        self._keepable += 1
        self.in_hand[slot] = False

    def discard(self, slot: int) -> None:
        """The writer gives back a slot without a picture in it."""
        self.in_hand[slot] = False

    def publish(self, slot: int, sequence: int) -> None:
        """The writer has finished: this slot is the newest."""
        self.in_hand[slot] = False
        self._sequences[slot] = sequence
        self.newest = slot

    def holds(self, slot: int, sequence: int) -> bool:
        """The slot still has this picture."""
        return sequence > 0 and self._sequences[slot] == sequence

    def may_give(self, slot: int) -> bool:
        """One more holder would leave the writer its two slots."""
        return self._holds[slot] > 0 or self.givable > 0

    def give(self, slot: int) -> None:
        """One more holder. Only after `may_give`."""
        self.givable -= not self._holds[slot]
        self._holds[slot] += 1

    def take_back(self, slot: int) -> None:
        """One holder less."""
        self._holds[slot] -= 1
        self.givable += not self._holds[slot]
