"""The deployments service: DeploymentsService and RolloutService."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid, NotFound
from belvedere.chassis.logs import get_logger
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.chassis.tags import add_tags, check_tags, remove_tags
from belvedere.fleet import DesiredState, with_paused
from belvedere.graph import ResolvedGraph
from belvedere.v1 import deployments_pb2 as pb
from belvedere.v1 import deployments_pb2_grpc, identity_pb2, registry_pb2, registry_pb2_grpc, rollouts_pb2_grpc
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.deployments import rules, store, wire
from services.deployments.creating import Creator, Wish
from services.deployments.deployer import NOT_NOW, Deployer
from services.deployments.listening import Listener
from services.deployments.resolving import Resolver
from services.deployments.rollout_handlers import RolloutHandlers
from services.deployments.rollouts import Rollouts
from services.deployments.settings import ENV, Settings
from services.deployments.store import InstanceRow

log = get_logger(__name__)

ROLE_USER = "panorama.amazonaws.com"
"""Who takes on the role of an application instance, as trust policies name it."""
GRAPHS_AT_ONCE = 50
"""Graphs that are read for one answer of ListDeployedAssets: a few milliseconds."""


class DeploymentsHandlers(deployments_pb2_grpc.DeploymentsServiceServicer):
    """DeploymentsService."""

    def __init__(
        self,
        database: Database,
        creator: Creator,
        deployer: Deployer,
        channel: Callable[[], grpc.aio.Channel],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._creator = creator
        self._deployer = deployer
        self._channel = channel
        self._clock = clock

    async def CreateApplicationInstance(
        self, request: pb.CreateApplicationInstanceRequest, context: Any
    ) -> pb.CreateApplicationInstanceResponse:
        """A device that is not enrolled yet gets the application when it enrols; until then it is DEPLOYMENT_PENDING."""
        who = caller()
        manifest, overrides = request.manifest_payload.payload_data, request.manifest_overrides_payload.payload_data
        wrong, device_name = rules.Wrong(), ""
        with wrong.noted():
            rules.check_request(request.name, request.runtime_role_arn, manifest, overrides, who.account)
        with wrong.noted():
            check_tags(request.tags)
        with wrong.noted():
            if request.runtime_role_arn and not wrong.about("RuntimeRoleArn"):
                # Raises Denied without iam:PassRole, Invalid for a role that is not there or not for application instances.
                await IdentityServiceStub(self._channel()).PassRole(
                    identity_pb2.PassRoleRequest(role_arn=request.runtime_role_arn, service=ROLE_USER)
                )
        with wrong.noted():
            device_name = await self._device_name(request.default_runtime_context_device)
        wish = Wish(
            device_id=request.default_runtime_context_device,
            device_name=device_name,
            manifest=manifest,
            overrides=overrides,
            name=request.name,
            description=request.description,
            role_arn=request.runtime_role_arn,
            replaces=request.application_instance_id_to_replace,
            tags=dict(request.tags),
        )
        row = await self._creator.create(who, wish, wrong=wrong)
        await self._settle(row.instance_id)
        return pb.CreateApplicationInstanceResponse(application_instance_id=row.instance_id)

    async def DescribeApplicationInstance(
        self, request: pb.DescribeApplicationInstanceRequest, context: Any
    ) -> pb.DescribeApplicationInstanceResponse:
        return wire.describe(await self._found(request.application_instance_id))

    async def DescribeApplicationInstanceDetails(
        self, request: pb.DescribeApplicationInstanceDetailsRequest, context: Any
    ) -> pb.DescribeApplicationInstanceDetailsResponse:
        return wire.details(await self._found(request.application_instance_id))

    async def ListApplicationInstances(
        self, request: pb.ListApplicationInstancesRequest, context: Any
    ) -> pb.ListApplicationInstancesResponse:
        who = caller()
        size = page_size(request.max_results)
        filters = [request.device_id, request.status_filter]
        after = decode_token(request.next_token, "ListApplicationInstances", filters)
        name = pb.StatusFilter.Name(request.status_filter).removeprefix("STATUS_FILTER_")
        async with self._database.session(read_only=True) as session:
            found = await store.list_instances(
                session,
                who.account,
                who.region,
                device_id=request.device_id,
                statuses=[status.value for status in rules.FILTERS.get(name, ())],
                after=after,
                limit=size + 1,
            )
        rows, more = cut(found, size)
        token = None
        if more:
            cursor = {"created": rows[-1].created.isoformat(), "instance_id": rows[-1].instance_id}
            token = encode_token(cursor, "ListApplicationInstances", filters)
        return pb.ListApplicationInstancesResponse(
            application_instances=[wire.item(row) for row in rows], next_token=token
        )

    async def ListApplicationInstanceDependencies(
        self, request: pb.ListApplicationInstanceDependenciesRequest, context: Any
    ) -> pb.ListApplicationInstanceDependenciesResponse:
        row = await self._found(request.application_instance_id)
        size, query = page_size(request.max_results), "ListApplicationInstanceDependencies"
        after = decode_token(request.next_token, query, row.instance_id)
        async with self._database.session(read_only=True) as session:
            found = await store.package_uses(session, row.instance_id, after["position"] if after else -1, size + 1)
        uses, more = cut(found, size)
        token = encode_token({"position": uses[-1].position}, query, row.instance_id) if more else None
        return pb.ListApplicationInstanceDependenciesResponse(
            package_objects=[
                pb.PackageObject(name=use.package_name, package_version=use.version, patch_version=use.patch)
                for use in uses
            ],
            next_token=token,
        )

    async def ListApplicationInstanceNodeInstances(
        self, request: pb.ListApplicationInstanceNodeInstancesRequest, context: Any
    ) -> pb.ListApplicationInstanceNodeInstancesResponse:
        row = await self._found(request.application_instance_id)
        size, query = page_size(request.max_results), "ListApplicationInstanceNodeInstances"
        after = decode_token(request.next_token, query, row.instance_id)
        first = after["position"] if after else 0
        nodes = rules.nodes_of(ResolvedGraph.from_json(row.graph))
        page, more = cut(nodes[first : first + size + 1], size)
        token = encode_token({"position": first + size}, query, row.instance_id) if more else None
        return pb.ListApplicationInstanceNodeInstancesResponse(
            node_instances=[wire.node_instance(row, node) for node in page], next_token=token
        )

    async def RemoveApplicationInstance(
        self, request: pb.RemoveApplicationInstanceRequest, context: Any
    ) -> pb.RemoveApplicationInstanceResponse:
        instance_id = request.application_instance_id
        await self._found(instance_id)
        await self._deployer.wish_gone(instance_id)
        await self._settle(instance_id)
        return pb.RemoveApplicationInstanceResponse()

    async def SignalApplicationInstanceNodeInstances(
        self, request: pb.SignalApplicationInstanceNodeInstancesRequest, context: Any
    ) -> pb.SignalApplicationInstanceNodeInstancesResponse:
        row = await self._found(request.application_instance_id)
        if row.desired != DesiredState.RUNNING:
            raise Invalid(f"{row.instance_id} is {row.status}: only applications that are to run can be signalled.")
        signals = [(item.node_instance_id, item.signal == pb.NODE_SIGNAL_VALUE_PAUSE) for item in request.node_signals]
        if any(item.signal == pb.NODE_SIGNAL_VALUE_UNSPECIFIED for item in request.node_signals):
            raise Invalid("Signal must be PAUSE or RESUME.", fields=[("NodeSignals", "PAUSE or RESUME")])
        pause, resume = rules.signalled_cameras(ResolvedGraph.from_json(row.graph), signals)
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(InstanceRow, row.instance_id)
            fresh.paused = sorted((set(fresh.paused) | pause) - resume)
            fresh.updated = self._clock()
        # Where it is not in the target yet, `settle` puts it there with what is paused.
        await self._deployer.change_target(
            row.device_id, lambda target: with_paused(target, row.instance_id, pause, resume)
        )
        return pb.SignalApplicationInstanceNodeInstancesResponse(application_instance_id=row.instance_id)

    async def TagApplicationInstance(
        self, request: pb.TagApplicationInstanceRequest, context: Any
    ) -> pb.TagApplicationInstanceResponse:
        await self._retag(request.application_instance_id, lambda tags: add_tags(tags, request.tags))
        return pb.TagApplicationInstanceResponse()

    async def UntagApplicationInstance(
        self, request: pb.UntagApplicationInstanceRequest, context: Any
    ) -> pb.UntagApplicationInstanceResponse:
        await self._retag(request.application_instance_id, lambda tags: remove_tags(tags, request.tag_keys))
        return pb.UntagApplicationInstanceResponse()

    async def ListPackageUsers(self, request: pb.ListPackageUsersRequest, context: Any) -> pb.ListPackageUsersResponse:
        who = caller()
        async with self._database.session(read_only=True) as session:
            rows = await store.package_users(
                session, who.account, who.region, request.package_name, request.package_version, request.patch_version
            )
        return pb.ListPackageUsersResponse(application_instance_ids=[row.instance_id for row in rows])

    async def ListDeployedAssets(
        self, request: pb.ListDeployedAssetsRequest, context: Any
    ) -> pb.ListDeployedAssetsResponse:
        after = decode_token(request.next_token, "ListDeployedAssets")
        async with self._database.session(read_only=True) as session:
            found = await store.live_graphs(session, after["digest"] if after else "", GRAPHS_AT_ONCE + 1)
        graphs, more = cut(found, GRAPHS_AT_ONCE)
        assets = {asset.digest for _, text in graphs for asset in ResolvedGraph.from_json(text).assets}
        return pb.ListDeployedAssetsResponse(
            graph_digests=[digest for digest, _ in graphs],
            asset_digests=sorted(assets),
            next_token=encode_token({"digest": graphs[-1][0]}, "ListDeployedAssets") if more else None,
        )

    async def _found(self, instance_id: str) -> InstanceRow:
        who = caller()
        async with self._database.session(read_only=True) as session:
            row = await store.find(session, who.account, who.region, instance_id)
        if row is None:
            raise NotFound("APPLICATION_INSTANCE", instance_id)
        return row

    async def _retag(self, instance_id: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        await self._found(instance_id)
        async with self._database.session() as session, session.begin():
            row = await session.get_one(InstanceRow, instance_id)
            row.tags = change(row.tags)

    async def _device_name(self, device_id: str) -> str:
        stub = registry_pb2_grpc.RegistryServiceStub(self._channel())
        try:
            device = await stub.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=device_id))
        except NotFound as error:
            text = f"there is no device {device_id!r} in this account and region"
            raise Invalid(
                f"DefaultRuntimeContextDevice: {text}", fields=[("DefaultRuntimeContextDevice", text)]
            ) from error
        return device.name

    async def _settle(self, instance_id: str) -> None:
        try:
            await self._deployer.settle(instance_id)
        except NOT_NOW as error:
            # The wish is written down; the service's task brings it into the target when it can.
            log.warning("an instance waits", instance_id=instance_id, error=str(error))


def create(runtime: Runtime) -> Service:
    """The service, made of what the runtime gives."""
    settings = runtime.settings(Settings, ENV)
    database = runtime.database("deployments")
    deployer = Deployer(database, runtime.bus, runtime.channel, runtime.clock)
    resolver = Resolver(runtime.channel)
    creator = Creator(database, runtime.blobs, resolver, runtime.clock)
    rollouts = Rollouts(database, creator, deployer, runtime.channel, runtime.clock, settings.rollout_tick_s)
    rollout_handlers = RolloutHandlers(database, resolver, rollouts, runtime.channel, runtime.clock)
    handlers = DeploymentsHandlers(database, creator, deployer, runtime.channel, runtime.clock)
    listener = Listener(deployer, runtime.bus, settings.retry_s)
    return Service(
        name="deployments",
        servicers=[
            (
                deployments_pb2_grpc.add_DeploymentsServiceServicer_to_server,
                handlers,
                "belvedere.v1.DeploymentsService",
            ),
            (rollouts_pb2_grpc.add_RolloutServiceServicer_to_server, rollout_handlers, "belvedere.v1.RolloutService"),
        ],
        tasks=[
            listener.watch_reports,
            listener.registry_events,
            listener.packages_events,
            listener.settle_waiting,
            rollouts.run,
        ],
        migrations=Path(__file__).parent / "migrations",
    )
