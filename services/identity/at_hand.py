"""Decisions that are there already: the yes that was decided before, for a holder whose policies look at nothing but action and
resource, and that nothing has changed since.

Everything else is for `Authorize` itself: a no, conditions, tags, roles to be assumed, a holder who has to be read again. The line
in the trail is left here as it is there. Reads what the directory keeps; decides nothing of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from belvedere.chassis.context import Caller
from belvedere.v1 import identity_pb2 as pb
from services.identity import audit, rules
from services.identity.audit import Trail
from services.identity.directory import Directory

QUESTIONS_KEPT = 1024
"""Questions that are not taken apart again: clients ask the same ones all day."""
QUESTION_MAX_BYTES = 4096
ALLOWED = pb.AuthorizeResponse(allowed=True).SerializeToString()


class _Question(NamedTuple):
    """An AuthorizeRequest without its request id, taken apart."""

    who: rules.Principal
    asked: tuple[str, str]
    """Action and resource."""
    what: audit.What
    """Its line in the trail, allowed."""
    further: bool


class DecisionsAtHand:
    """See the module."""

    def __init__(self, directory: Directory, trail: Trail, clock: Callable[[], datetime]) -> None:
        self._directory, self._trail, self._clock = directory, trail, clock
        self._questions: OrderedDict[bytes, _Question] = OrderedDict()

    def authorize(self, who: Caller, packet: bytes) -> bytes | None:
        """Authorize for an AuthorizeRequest that names no request: `who` does. None: nothing is decided, no line is left."""
        question = self._questions.get(packet) or self._read(packet)
        holder = self._directory.known(question.who)
        # Decisions are kept for holders without condition keys only; "" is the yes.
        if holder is None or question.further or holder.keys or holder.decided.get(question.asked) != "":
            return None
        return ALLOWED if self._trail.add(self._clock(), question.what, who.request_id) else None

    def _read(self, packet: bytes) -> _Question:
        request = pb.AuthorizeRequest.FromString(packet)
        who, action, resource = rules.parse_principal(request.principal.arn), request.action, request.resource
        what = audit.decided(who.account, who.arn, action, resource, True, request.source_address)
        question = _Question(who, (action, resource), what, request.further)
        if len(packet) <= QUESTION_MAX_BYTES:
            self._questions[packet] = question
            if len(self._questions) > QUESTIONS_KEPT:
                self._questions.popitem(last=False)
        return question
