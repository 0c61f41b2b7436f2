"""The HTTPS port for appliances: POST /enrol, POST /lease, GET /device, GET /blobs/<digest>, POST /chunks.

/enrol takes a bundle's token; the others a signature of the device's own key. /blobs gives documents whole (graphs, roots
of assets), /chunks what they name, many at once (`belvedere.chunks.wire`). /lease is for an appliance that was off
for longer than its lease: its link is refused, this is its way back. /device says whether there still is one, to an
appliance whose link is away. Refusals are `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from ssl import SSLContext

from aiohttp import web

from belvedere.blobs import BadDigest, BlobError, BlobNotFound, BlobStore
from belvedere.chassis.logs import get_logger
from belvedere.chunks import DocumentInvalid, pack, unpack_digests
from belvedere.chunks.store import ChunkStore
from services.registry import rules
from services.registry.enrolment import Enrolment
from services.registry.rules import HTTP_STATUS, RefusalCode, Refused

REQUEST_MAX_BYTES = 33 * 1024  # the digests of belvedere.chunks.CHUNKS_PER_REQUEST
CHUNKS_AT_ONCE = 16
"""Read together in a thread before they are sent: 4 MB at most."""
KEEPALIVE_S = 30.0
STOP_TIMEOUT_S = 0.5  # downloads are resumed: nothing is lost by cutting them

log = get_logger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DevicePort:
    """The HTTPS server."""

    def __init__(
        self, enrolment: Enrolment, blobs: BlobStore, host: str, port: int, tls: Callable[[], SSLContext]
    ) -> None:
        self._enrolment = enrolment
        self._blobs = blobs
        self._chunks = ChunkStore(blobs)
        self._host, self._port = host, port
        self._tls = tls
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Serves until cancelled."""
        application = web.Application(client_max_size=REQUEST_MAX_BYTES, middlewares=[_refusals])
        application.add_routes(
            [
                web.post("/enrol", self._enrol),
                web.post("/lease", self._lease),
                web.get("/device", self._standing, allow_head=False),
                web.get("/blobs/{digest}", self._blob, allow_head=False),
                web.post("/chunks", self._send_chunks),
            ]
        )
        runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=STOP_TIMEOUT_S
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, ssl_context=self._tls()).start()
            self._listening.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def listening(self) -> None:
        """Returns once it serves."""
        await self._listening.wait()

    async def _enrol(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise Refused(RefusalCode.INVALID_REQUEST, "the body is not JSON") from None
        return web.json_response(await self._enrolment.enrol(rules.parse_enrol(body)))

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._enrolment.renew(await self._device(request)))

    async def _standing(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"device_id": await self._device(request)})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        await self._device(request)
        digest = request.match_info["digest"]
        try:
            size = await self._blobs.size(digest)
        except (BlobNotFound, BadDigest) as error:
            raise Refused(RefusalCode.NOT_FOUND, str(error)) from None
        except BlobError as error:
            raise Refused(RefusalCode.UNAVAILABLE, str(error)) from error
        found = rules.byte_range(request.headers.get("Range"), size)
        start, end = found or (0, size)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        if found:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response = web.StreamResponse(status=206 if found else 200, headers=headers)
        await response.prepare(request)
        async for chunk in self._blobs.open(digest, start, end):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _send_chunks(self, request: web.Request) -> web.StreamResponse:
        await self._device(request)
        try:
            wanted = unpack_digests(await request.read())
        except DocumentInvalid as error:
            raise Refused(RefusalCode.INVALID_REQUEST, str(error)) from None
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        for at in range(0, len(wanted), CHUNKS_AT_ONCE):
            try:
                records = await asyncio.to_thread(self._records, wanted[at : at + CHUNKS_AT_ONCE])
            except BlobError as error:
                if response.prepared:
                    raise  # the answer ends too early; the appliance asks for the rest again
                raise Refused(RefusalCode.UNAVAILABLE, str(error)) from error
            if not response.prepared:
                await response.prepare(request)
            await response.write(records)
        await response.write_eof()
        return response

    def _records(self, digests: list[str]) -> bytes:
        return b"".join(pack(self._chunks.frame(digest)) for digest in digests)

    async def _device(self, request: web.Request) -> str:
        authorization = request.headers.get("Authorization", "")
        return await self._enrolment.authenticate(authorization, request.method, request.raw_path)


@web.middleware
async def _refusals(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        log.info("refused", path=request.path, code=refused.code.value, reason=refused.message, peer=request.remote)
        body = {"error": {"code": refused.code.value, "message": refused.message}}
        return web.json_response(body, status=HTTP_STATUS[refused.code])
