"""`belvedere audit`: the audit trail, oldest line first, one line a call."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta

from belvedere.cli.errors import CliError
from belvedere.cli.owner import Identity, add_data, moment, now, running
from belvedere.v1 import identity_pb2 as pb

LIMIT = 200
PAGE = 500
DECISIONS_SHOWN = 4
"""Of one call, the refused ones first; `--json` has all."""
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`belvedere audit`."""
    add_data(parser)
    parser.add_argument("--since", help="15m, 2h, 7d, or a time such as 2026-11-22T05:00:00Z")
    parser.add_argument("--user", help="only what this user did")
    parser.add_argument("--denied", action="store_true", help="only what was not allowed")
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"the newest lines, at most so many ({LIMIT})")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=running(show))


def show(identity: Identity, options: argparse.Namespace) -> None:
    request = pb.ListAuditEntriesRequest(user_name=options.user, denied_only=options.denied)
    if options.since:
        request.since.FromDatetime(since(options.since, now()))
    found: list[pb.AuditEntry] = []
    while len(found) < options.limit:
        request.max_results = min(PAGE, options.limit - len(found))
        answer = identity.ask(request)
        found += answer.entries
        request.next_token = answer.next_token
        if not answer.next_token:
            break
    for entry in reversed(found):
        print(_json(entry) if options.json else _line(entry))


def since(text: str, now: datetime) -> datetime:
    """`2h`, or a time with its date; without a zone it is UTC. Raises CliError."""
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(f"--since {text}: 15m, 2h, 7d, or a time such as 2026-11-22T05:00:00Z is needed") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _line(entry: pb.AuditEntry) -> str:
    word = "allowed" if entry.allowed else "DENIED "
    who = entry.principal.rpartition(":")[2]
    source = entry.source_address or "here"
    fields = [moment(entry.time), word, who, entry.action, entry.resource, source, entry.request_id]
    if entry.decisions:
        fields.append(f"({_decisions(entry)})")
    # What stands in a resource was sent by somebody: it must not draw on the reader's terminal.
    return "  ".join("".join(c if c.isprintable() else "\ufffd" for c in field) for field in fields)


def _decisions(entry: pb.AuditEntry) -> str:
    """What a call needed, where that was more than one permission."""
    shown = sorted(entry.decisions, key=lambda decision: decision.allowed)[:DECISIONS_SHOWN]
    texts = [f"{'allowed' if one.allowed else 'DENIED'} {one.action} {one.resource}" for one in shown]
    if more := len(entry.decisions) - len(shown):
        texts.append(f"{more} more")
    return "; ".join(texts)


def _json(entry: pb.AuditEntry) -> str:
    return json.dumps(
        {
            "time": moment(entry.time),
            "principal": entry.principal,
            "action": entry.action,
            "resource": entry.resource,
            "allowed": entry.allowed,
            "source_address": entry.source_address,
            "request_id": entry.request_id,
            "decisions": [
                {"action": one.action, "resource": one.resource, "allowed": one.allowed} for one in entry.decisions
            ],
        }
    )
