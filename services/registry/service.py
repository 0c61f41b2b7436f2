"""The registry service: RegistryService over gRPC, the device port over HTTPS, presence over the bus."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere import viewer
from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.kv import KeyValue
from belvedere.chassis import outbox
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Invalid, NotFound, QuotaExceeded, Unavailable
from belvedere.chassis.ids import new_id
from belvedere.chassis.memo import Memo
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.chassis.tags import add_tags, check_tags, remove_tags
from belvedere.fleet import ReportedVideo
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1 import registry_pb2_grpc
from services.registry import events, listing, rules, store, wire
from services.registry.device_port import DevicePort
from services.registry.enrolment import Addresses, Enrolment, bundle, new_token, viewer_root
from services.registry.issuing import Issuer, new_account
from services.registry.listing import SortBy, Wanted
from services.registry.presence import Presence
from services.registry.settings import ENV, Settings
from services.registry.store import DeletedDeviceRow, DeviceRow

DEVICE = "DEVICE"
REGISTRY = "/belvedere.v1.RegistryService"
ANSWERS_REMEMBERED = 512
"""Of DescribeDevice and of ListDevices, each: what consoles and waiting clients ask again and again."""


class RegistryHandlers(registry_pb2_grpc.RegistryServiceServicer):
    """RegistryService."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        issuer: Issuer,
        presence: Presence,
        addresses: Addresses,
        viewer_key: Callable[[str], bytes],
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._bus = bus
        self._issuer = issuer
        self._presence = presence
        self._addresses = addresses
        self._viewer_key = viewer_key
        self._settings = settings
        self._clock = clock
        self._described: Memo[bytes] = Memo(database, ANSWERS_REMEMBERED)
        self._listed: Memo[bytes] = Memo(database, ANSWERS_REMEMBERED)

    async def ProvisionDevice(self, request: pb.ProvisionDeviceRequest, context: Any) -> pb.ProvisionDeviceResponse:
        who, now, token = caller(), self._clock(), new_token()
        networking = None
        if request.HasField("networking_configuration"):
            networking = MessageToDict(request.networking_configuration, preserving_proto_field_name=True)
        rules.check_new(request.name, request.description, networking or {})
        row = DeviceRow(
            device_id=new_id("device"),
            account=who.account,
            region=who.region,
            name=request.name,
            description=request.description,
            tags=check_tags(request.tags),
            networking_configuration=networking,
            created=now,
            updated=now,
            token_hash=rules.token_hash(token),
            token_expires=now + timedelta(seconds=self._settings.bundle_s),
            account_public_key=new_account(),
        )
        async with self._database.session() as session, session.begin():
            existing = await store.by_name(session, who.account, who.region, row.name)
            if existing is not None:
                raise Conflict(
                    DEVICE, existing.device_id, f"A device named {row.name} exists already: {existing.device_id}."
                )
            if await store.count(session, who.account, who.region) >= self._settings.devices_quota:
                raise QuotaExceeded(
                    "DevicesPerAccount", f"There are {self._settings.devices_quota} devices already: delete some first."
                )
            session.add(row)
            outbox.add(session, events.device("provisioned", row))
        return pb.ProvisionDeviceResponse(
            arn=wire.device_arn(row),
            certificates=base64.b64encode(bundle(row, token, self._addresses)).decode(),
            device_id=row.device_id,
            iot_thing_name=row.device_id,
            status=wire.provisioning(row),
        )

    async def DescribeDevice(self, request: pb.DescribeDeviceRequest, context: Any) -> pb.DescribeDeviceResponse:
        who, now = caller(), self._clock()
        key = (who.account, who.region, request.SerializeToString(deterministic=True))
        if (known := self._described.get(key, now)) is not None:
            return pb.DescribeDeviceResponse.FromString(known)
        seen = self._described.mark()
        async with self._database.session(read_only=True) as session:
            row = await _device(session, request.device_id)
        answer = wire.describe(row, now)
        self._described.put(key, answer.SerializeToString(), seen, until=rules.holds_until([row.state], now))
        return answer

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Any) -> pb.ListDevicesResponse:
        who, now = caller(), self._clock()
        key = (who.account, who.region, request.SerializeToString(deterministic=True))
        if (known := self._listed.get(key, now)) is not None:
            return pb.ListDevicesResponse.FromString(known)
        seen = self._listed.mark()
        size = page_size(request.max_results)
        filters = [request.name_filter, request.device_aggregated_status_filter, request.sort_by, request.sort_order]
        after = decode_token(request.next_token, "ListDevices", filters)
        sort_by, descending = _order(request)
        wanted = Wanted(
            account=who.account,
            region=who.region,
            now=now,
            sort_by=sort_by,
            descending=descending,
            size=size + 1,
            status=wire.status_name(request.device_aggregated_status_filter),
            name_front=request.name_filter,
            after=None if after is None else _place(after, sort_by),
        )
        async with self._database.session(read_only=True) as session:
            page, more = cut(await listing.page(session, wanted), size)
        token = None
        if more:
            last = {"key": listing.key_of(page[-1], sort_by, now), "id": page[-1].device_id}
            token = encode_token(last, "ListDevices", filters)
        answer = pb.ListDevicesResponse(devices=[wire.item(row, now) for row in page], next_token=token)
        if not wanted.status and sort_by is not SortBy.STATUS:
            # Where the status decides who is listed, a lease that ends elsewhere would change the page.
            until = rules.holds_until([row.state for row in page], now)
            self._listed.put(key, answer.SerializeToString(), seen, until=until)
        return answer

    def described_at_hand(self, who: Caller, packet: bytes) -> bytes | None:
        """DescribeDevice, where it was asked before and nothing has changed since. Requests without maps have one form."""
        return self._described.get((who.account, who.region, packet), self._clock())

    def listed_at_hand(self, who: Caller, packet: bytes) -> bytes | None:
        """ListDevices, likewise."""
        return self._listed.get((who.account, who.region, packet), self._clock())

    async def UpdateDeviceMetadata(
        self, request: pb.UpdateDeviceMetadataRequest, context: Any
    ) -> pb.UpdateDeviceMetadataResponse:
        rules.check_description(request.description)
        async with self._database.session() as session, session.begin():
            row = await _device(session, request.device_id)
            if request.HasField("description"):
                row.description, row.updated = request.description, self._clock()
                session.add(row)
        return pb.UpdateDeviceMetadataResponse(device_id=request.device_id)

    async def DeleteDevice(self, request: pb.DeleteDeviceRequest, context: Any) -> pb.DeleteDeviceResponse:
        async with self._database.session(read_only=True) as session:
            row = await _device(session, request.device_id)
        # First its credentials: should this process die before the commit, the device is cut off, not half deleted, and
        # the next start, or the same request again, sets that right.
        if row.enrolled:
            await self._issuer.close_account(row.device_id, row.account_public_key, row.nats_public_key)
        async with self._database.session() as session, session.begin():
            row = await _device(session, request.device_id)
            await session.delete(row)
            if row.enrolled:
                kept = DeletedDeviceRow(
                    device_id=row.device_id, nats_public_key=row.nats_public_key, deleted=self._clock()
                )
                session.add(kept)
            outbox.add(session, events.device("deleted", row))
        self._presence.forget(row)
        try:
            for bucket in (subjects.TARGET_BUCKET, subjects.REPORTED_BUCKET):
                await KeyValue(self._bus, bucket).delete(row.device_id)
        except BusError as error:
            raise Unavailable(f"The device is deleted, its documents are not yet: {error}") from error
        return pb.DeleteDeviceResponse(device_id=row.device_id)

    async def TagDevice(self, request: pb.TagDeviceRequest, context: Any) -> pb.TagDeviceResponse:
        async with self._database.session() as session, session.begin():
            row = await _device(session, request.device_id)
            row.tags = add_tags(row.tags, request.tags)
            session.add(row)
        return pb.TagDeviceResponse()

    async def UntagDevice(self, request: pb.UntagDeviceRequest, context: Any) -> pb.UntagDeviceResponse:
        async with self._database.session() as session, session.begin():
            row = await _device(session, request.device_id)
            row.tags = remove_tags(row.tags, request.tag_keys)
            session.add(row)
        return pb.UntagDeviceResponse()

    async def GetDeviceKeys(self, request: pb.GetDeviceKeysRequest, context: Any) -> pb.GetDeviceKeysResponse:
        async with self._database.session(read_only=True) as session:
            row = await _device(session, request.device_id)
        if not row.enrolled:
            raise Conflict(DEVICE, row.device_id, f"{row.name} has not enrolled yet: start its appliance.")
        return pb.GetDeviceKeysResponse(seal_public_key=row.seal_public_key)

    async def CreateViewerCredentials(
        self, request: pb.CreateViewerCredentialsRequest, context: Any
    ) -> pb.CreateViewerCredentialsResponse:
        async with self._database.session(read_only=True) as session:
            row = await _device(session, request.device_id)
        key = self._viewer_key(row.device_id)
        expires = rules.lease_end(self._clock(), self._settings.viewer_token_s)
        response = pb.CreateViewerCredentialsResponse(
            rtsp_username=viewer.VIEWER_USER,
            rtsp_password=viewer.viewer_rtsp_password(key),
            expires_at=wire.timestamp(expires),
        )
        for video in (ReportedVideo.from_plain(item) for item in row.video):
            token = viewer.make_viewer_token(key, video.instance_id, int(expires.timestamp()))
            response.websocket_token = response.websocket_token or token
            url = video.websocket_url
            response.outputs.add(
                application_instance_id=video.instance_id,
                name=video.name,
                rtsp_url=video.rtsp_url,
                websocket_url=f"{url}{'&' if '?' in url else '?'}token={token}" if url else "",
            )
        return response


async def _device(session: AsyncSession, device_id: str) -> DeviceRow:
    """The caller's device. Raises NotFound, for another account's too."""
    who = caller()
    row = await session.get(DeviceRow, device_id)
    if row is None or (row.account, row.region) != (who.account, who.region):
        raise NotFound(DEVICE, device_id)
    return row


SORTS: Mapping[int, SortBy] = {
    pb.LIST_DEVICES_SORT_BY_DEVICE_ID: SortBy.DEVICE_ID,
    pb.LIST_DEVICES_SORT_BY_NAME: SortBy.NAME,
    pb.LIST_DEVICES_SORT_BY_DEVICE_AGGREGATED_STATUS: SortBy.STATUS,
}


def _order(request: pb.ListDevicesRequest) -> tuple[SortBy, bool]:
    """How a list is sorted, and whether backwards. The API's default: newest first; other columns ascending."""
    sort_by = SORTS.get(request.sort_by, SortBy.CREATED)
    if request.sort_order:
        return sort_by, request.sort_order == pb.SORT_ORDER_DESCENDING
    return sort_by, request.sort_by not in SORTS


def _place(cursor: dict[str, Any], sort_by: SortBy) -> tuple[str, str]:
    """A token's (key, id). Raises Invalid for one that somebody made up."""
    try:
        key, device_id = str(cursor["key"]), str(cursor["id"])
        if sort_by is SortBy.CREATED:
            datetime.fromisoformat(key).astimezone(UTC)
    except (KeyError, ValueError, OverflowError) as error:
        raise Invalid("NextToken is not valid.", fields=[("NextToken", "not valid")]) from error
    return key, device_id


def create(runtime: Runtime) -> Service:
    """The service, made of what the runtime gives."""
    settings = runtime.settings(Settings, ENV)
    database, hub, ports, cloud = runtime.database("registry"), runtime.hub, runtime.ports, runtime.cloud
    told = runtime.announced
    addresses = Addresses(cloud.host_names[0], told.devices, told.gateway, hub.leaf_urls, hub.tls.ca)

    def viewer_key(device_id: str) -> bytes:
        return rules.device_viewer_key(viewer_root(runtime.paths.secrets, settings.viewer_key), device_id)

    issuer = Issuer(hub)
    enrolment = Enrolment(database, issuer, settings, addresses, viewer_key, runtime.clock)
    presence = Presence(database, runtime.bus, issuer, enrolment, settings, runtime.clock)
    handlers = RegistryHandlers(database, runtime.bus, issuer, presence, addresses, viewer_key, settings, runtime.clock)
    jobs = events.Jobs(database, runtime.bus, runtime.clock)
    port = DevicePort(enrolment, runtime.blobs, cloud.host, ports.devices, hub.tls.server_context)
    return Service(
        name="registry",
        servicers=[(registry_pb2_grpc.add_RegistryServiceServicer_to_server, handlers, REGISTRY[1:])],
        at_hand={
            f"{REGISTRY}/DescribeDevice": handlers.described_at_hand,
            f"{REGISTRY}/ListDevices": handlers.listed_at_hand,
        },
        tasks=[presence.listen, presence.watch_silence, presence.watch_reports, jobs.follow, port.run],
        ready=[presence.prepare, port.listening],
        close=[issuer.close],
        migrations=Path(__file__).parent / "migrations",
    )
