"""The decision about one request: what policies see of it, what they say, and the trust policy where a role is to be assumed.

Reads roles; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.logs import get_logger
from services.identity import rules
from services.identity.directory import Holder
from services.identity.policy import Decision, Request, Trust, decide, parse_trust, trusts
from services.identity.store import RoleRow

log = get_logger(__name__)


class Authority:
    """See the module."""

    def __init__(self, database: Database, account: str, region: str, clock: Callable[[], datetime]) -> None:
        """`account`, `region`: those whose application instances use roles."""
        self._database, self._account, self._region, self._clock = database, account, region, clock

    async def why_not(self, who: rules.Principal, holder: Holder | None, request: Request) -> str:
        """ "" where it is allowed, else the end of the refusal."""
        if request.action in rules.ALWAYS_ALLOWED:
            return ""
        decision = decide(holder.policies, request) if holder is not None else Decision.NOTHING_ALLOWS
        if holder is not None and holder.unreadable:
            decision = Decision.DENIED
        if request.action != rules.ASSUME_ROLE:
            return "" if decision is Decision.ALLOWED else rules.why_not(decision, request.action)
        try:
            account, name = rules.parse_role_arn(request.resource)
        except Invalid:
            return rules.may_assume(decision, Trust.NOT)
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (account, name))
        trust = Trust.NOT if role is None else self.trusted(role, who=who, known=request.context)
        return rules.may_assume(decision, trust)

    def trusted(
        self,
        role: RoleRow,
        *,
        known: Mapping[str, Sequence[str]],
        who: rules.Principal | None = None,
        service: str = "",
    ) -> Trust:
        """What a role's trust policy says of a principal or a service."""
        try:
            policy = parse_trust(role.trust)
        except Invalid as error:
            log.error("a stored trust policy cannot be read: nobody is trusted", role=role.name, reason=error.message)
            return Trust.NOT
        account, names = (who.account, who.names) if who is not None else ("", ())
        return trusts(policy, action=rules.ASSUME_ROLE, arns=names, account=account, service=service, context=known)

    def context(self, who: rules.Principal, holder: Holder | None, source: str) -> dict[str, Sequence[str]]:
        """What is known of every request."""
        known = self._time()
        known["aws:principalarn"] = (who.holder_arn,)
        known["aws:principalaccount"] = (who.account,)
        known["aws:principaltype"] = ("User" if who.kind is rules.Kind.USER else "AssumedRole",)
        if holder is not None:
            session = who.arn.rpartition("/")[2]
            of_role = f"{holder.unique_id}:{session}"
            known["aws:userid"] = (holder.unique_id if who.kind is rules.Kind.USER else of_role,)
        if who.kind is rules.Kind.USER:
            known["aws:username"] = (who.name,)
        if source:
            known["aws:sourceip"] = (source,)
        return known

    def as_service(self, source_arn: str) -> dict[str, Sequence[str]]:
        """What is known where a service uses a role for `source_arn`; the empty one: for some application instance."""
        known = self._time()
        known["aws:sourceaccount"] = (self._account,)
        known["aws:sourcearn"] = (
            source_arn or f"arn:aws:panorama:{self._region}:{self._account}:applicationInstance/*",
        )
        return known

    def _time(self) -> dict[str, Sequence[str]]:
        now = self._clock()
        return {
            "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
            "aws:epochtime": (str(int(now.timestamp())),),
        }
