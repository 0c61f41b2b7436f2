"""Answers to what may take longer than a client waits for a first byte: a large upload's completion, copies.

As S3 does: the answer begins with status 200 and the XML declaration, blanks keep the client waiting, and what the work came to
follows; an error too, which S3's clients look for there. Work that a client no longer waits for goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from belvedere.chassis import logs
from belvedere.chassis.errors import BelvedereError
from services.gateway.errors import AwsError, internal_error
from services.gateway.message import Call, Reply
from services.gateway.s3 import failures

FIRST_WAIT_S = 5.0
"""So long the status is held back; an error before that has its own. Clients wait for a minute."""
BLANK_EVERY_S = 5.0
DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
Work = asyncio.Task[Reply]

log = logs.get_logger(__name__)


def begin(work: Coroutine[Any, Any, Reply]) -> Work:
    """Starts work that ends whether or not somebody waits for it. Its reply's body is a whole XML document."""
    task = asyncio.create_task(work)
    task.add_done_callback(_looked_at)
    return task


async def answer(call: Call, task: Work) -> Reply:
    """The work's reply, or one that has begun. Raises what the work raised, in the first case."""
    done, _ = await asyncio.wait({task}, timeout=FIRST_WAIT_S)
    if done:
        return task.result()
    return Reply(200, {"Content-Type": "application/xml"}, _kept_waiting(call, task))


async def _kept_waiting(call: Call, task: Work) -> AsyncIterator[bytes]:
    yield DECLARATION
    while not task.done():
        await asyncio.wait({task}, timeout=BLANK_EVERY_S)
        if not task.done():
            yield b" "
    body = _reply(call, task).body
    assert isinstance(body, bytes)
    yield body.removeprefix(DECLARATION)


def _reply(call: Call, task: Work) -> Reply:
    try:
        return task.result()
    except AwsError as error:
        told = error
    except BelvedereError as error:
        told = failures.from_service(error)
    except Exception:
        log.exception("request failed", request_id=call.request_id, service="s3", operation=call.operation)
        told = internal_error()
    return failures.reply(call.method, call.path, call.request_id, told)


def _looked_at(task: Work) -> None:
    # Whoever waits raises it; with nobody left it is no news.
    if not task.cancelled():
        task.exception()
