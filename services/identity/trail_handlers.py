"""The audit trail as others write and read it: the handlers. One entry a call, with every decision about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from belvedere.chassis.context import caller
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.v1 import identity_pb2 as pb
from services.identity import rules, store
from services.identity.administration import Administration
from services.identity.store import AuditRow, FurtherRow

PAGE_MAX = 500
READ_AT_ONCE = 50
"""Lines whose further decisions are read together: DeleteObjects has up to a thousand."""
PAGE_MAX_BYTES = 4 << 20
"""Of a page: after it no further line is put in. A message of 16 MiB is the most that travels."""


class TrailHandlers(Administration):
    """A part of IdentityService."""

    async def RecordRefusal(self, request: pb.RecordRefusalRequest, context: Any) -> pb.RecordRefusalResponse:
        unproven = f"{rules.UNPROVEN}/{request.access_key_id}" if request.access_key_id else rules.UNPROVEN
        await self._trail.record(
            at=self._clock(),
            account=caller().account,
            principal=request.principal or unproven,
            action=request.action,
            resource=request.resource,
            allowed=False,
            source_address=request.source_address,
            request_id=request.request_id,
        )
        return pb.RecordRefusalResponse()

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> pb.ListAuditEntriesResponse:
        account = caller().account
        size = page_size(request.max_results or None, PAGE_MAX)
        since = request.since.ToDatetime(tzinfo=UTC) if request.HasField("since") else None
        filters = [str(since), request.user_name, request.denied_only]
        after = decode_token(request.next_token, "ListAuditEntries", filters)
        await self._trail.flush()
        async with self._database.session(read_only=True) as session:
            found = await store.audit_page(
                session,
                account,
                since=since,
                principal=rules.user_arn(account, request.user_name) if request.user_name else None,
                denied_only=request.denied_only,
                before=after["position"] if after else None,
                limit=size + 1,
            )
            rows, more = cut(found, size)
            entries: list[pb.AuditEntry] = []
            full = 0
            while len(entries) < len(rows) and full < PAGE_MAX_BYTES:
                part = rows[len(entries) : len(entries) + READ_AT_ONCE]
                further = await store.further(session, account, [row.request_id for row in part])
                for row in part:
                    entries.append(_entry(row, further.get(row.request_id, ())))
                    full += entries[-1].ByteSize()
                    if full >= PAGE_MAX_BYTES:
                        break
        more = more or len(entries) < len(rows)
        last = rows[len(entries) - 1].position if more else 0
        token = encode_token({"position": last}, "ListAuditEntries", filters) if more else ""
        return pb.ListAuditEntriesResponse(entries=entries, next_token=token)


def _entry(row: AuditRow, further: Sequence[FurtherRow]) -> pb.AuditEntry:
    entry = pb.AuditEntry(
        principal=row.principal,
        action=row.action,
        resource=row.resource,
        allowed=row.allowed and all(decision.allowed for decision in further),
        source_address=row.source_address,
        request_id=row.request_id,
    )
    entry.time.FromDatetime(row.at)
    if further:
        entry.decisions.append(_decision(row))
        entry.decisions.extend(map(_decision, further))
    return entry


def _decision(row: AuditRow | FurtherRow) -> pb.AuditDecision:
    return pb.AuditDecision(action=row.action, resource=row.resource, allowed=row.allowed)
