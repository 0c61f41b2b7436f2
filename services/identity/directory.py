"""Principals and what they may do, read once: Authorize is asked for every call of every client.

What was read holds until something changes: this process's own changes and those that other replicas publish
(`identity.*`) both end in `forget`. AGE_MAX_S is the limit where the bus was away meanwhile. Knows the tables, decides nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.logs import get_logger
from services.identity import rules, store
from services.identity.policy import Policy, parse_policy
from services.identity.policy.managed import POLICIES
from services.identity.rules import Kind, Principal
from services.identity.store import PolicyRow, RoleRow, UserRow

AGE_MAX_S = 30.0
ENTRIES_MAX = 4096
"""The one unused longest goes first."""
DECISIONS_MAX = 64
"""Of one holder; when there are more, all are made anew."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Holder:
    """A user or role, with its policies."""

    unique_id: str
    policies: tuple[Policy, ...]
    keys: frozenset[str]
    """The condition keys that they look at, in lower case; where there are none, action and resource decide."""
    looks_at_tags: bool
    """Whether a policy asks for `aws:ResourceTag/…`."""
    unreadable: bool
    """A stored policy could not be read: then nothing is allowed, for it may deny."""
    tokens_from: datetime | None = None
    decided: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where no policy looks at condition keys: why not, by action and resource. It goes when what was read does."""


class Directory:
    """See the module."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database, self._now = database, monotonic
        self._version = 0
        self._known: OrderedDict[tuple[Kind, str, str], tuple[float, Holder | None]] = OrderedDict()

    def forget(self) -> None:
        """Something has changed: everything is read again. What is being read now is not kept."""
        self._version += 1
        self._known.clear()

    def known(self, who: Principal) -> Holder | None:
        """`holder`, where it has been read and holds; None: not so, or there is none."""
        known = self._known.get((who.kind, who.account, who.name))
        return known[1] if known is not None and self._now() - known[0] < AGE_MAX_S else None

    async def holder(self, who: Principal) -> Holder | None:
        """The user, or the role of the session; None where there is none."""
        key = (who.kind, who.account, who.name)
        known = self._known.get(key)
        if known is not None and self._now() - known[0] < AGE_MAX_S:
            self._known.move_to_end(key)
            return known[1]
        version, now = self._version, self._now()
        async with self._database.session(read_only=True) as session:
            found = await _read(session, who)
        if version == self._version:
            self._known[key] = (now, found)
            if len(self._known) > ENTRIES_MAX:
                self._known.popitem(last=False)
        return found


async def _read(session: AsyncSession, who: Principal) -> Holder | None:
    row: UserRow | RoleRow | None = None
    if who.kind is Kind.USER:
        row = await session.get(UserRow, (who.account, who.name))
    elif who.kind is Kind.ROLE:
        row = await session.get(RoleRow, (who.account, who.name))
    if row is None:
        return None
    policies: list[Policy] = []
    unreadable = False
    for arn in await store.attached(session, who.account, who.kind.value, who.name):
        policy = POLICIES.get(arn)
        if policy is None:
            stored = await session.get(PolicyRow, (who.account, arn.removeprefix(rules.policy_arn(who.account, ""))))
            try:
                policy = parse_policy(stored.document) if stored is not None else None
            except Invalid as error:
                log.error("a stored policy cannot be read: its holders may nothing", policy=arn, reason=error.message)
        if policy is None:
            unreadable = True
        else:
            policies.append(policy)
    keys = frozenset(key for policy in policies for key in policy.condition_keys())
    return Holder(
        unique_id=row.user_id if isinstance(row, UserRow) else row.role_id,
        policies=tuple(policies),
        keys=keys,
        looks_at_tags=any(key.startswith("aws:resourcetag/") for key in keys),
        unreadable=unreadable,
        tokens_from=row.tokens_from if isinstance(row, UserRow) else None,
    )
