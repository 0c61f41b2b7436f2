"""Application instances made: from a wish to rows, for the API's handler and for rollouts. Writes no targets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.blobs import BlobStore
from belvedere.chassis import outbox
from belvedere.chassis.context import Caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.ids import new_id
from belvedere.fleet import DesiredState
from services.deployments import events, ports, rules, store
from services.deployments.resolving import Resolver
from services.deployments.rules import Status
from services.deployments.store import InstanceRow, PackageUseRow


@dataclass(frozen=True)
class Wish:
    """What is to run where."""

    device_id: str
    device_name: str
    manifest: str
    overrides: str = ""
    name: str = ""
    description: str = ""
    role_arn: str = ""
    replaces: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Creator:
    """Makes instances."""

    def __init__(self, database: Database, blobs: BlobStore, resolver: Resolver, clock: Callable[[], datetime]) -> None:
        self._database, self._blobs, self._resolver, self._clock = database, blobs, resolver, clock

    async def create(
        self,
        who: Caller,
        wish: Wish,
        also: Callable[[AsyncSession, InstanceRow], Awaitable[None]] | None = None,
        wrong: rules.Wrong | None = None,
    ) -> InstanceRow:
        """A new instance, DEPLOYMENT_PENDING. `also` writes more in the same transaction.

        To be called as `who`. Raises Invalid with everything that is wrong: what stands in `wrong` already, that the
        instance to replace can't be, and every problem of the documents.
        """
        wrong, graph = wrong or rules.Wrong(), None
        async with self._database.session(read_only=True) as session:
            with wrong.noted():
                await check_replaced(session, who, wish.replaces, wish.device_id)
            taken = await ports.taken(session, wish.device_id, wish.replaces)
        with wrong.noted():
            graph = await self._resolver.resolve(wish.manifest, wish.overrides, who.account, taken)
        wrong.refuse()
        assert graph is not None
        blob = await self._blobs.put_bytes(graph.to_json().encode())
        now = self._clock()
        row = InstanceRow(
            instance_id=new_id("applicationInstance"),
            account=who.account,
            region=who.region,
            device_id=wish.device_id,
            device_name=wish.device_name,
            name=wish.name,
            description=wish.description,
            role_arn=wish.role_arn,
            replaces=wish.replaces,
            manifest=wish.manifest,
            overrides=wish.overrides,
            graph=graph.to_json(),
            graph_digest=blob.digest,
            paused=rules.paused_at_first(graph),
            desired=DesiredState.RUNNING.value,
            status=Status.DEPLOYMENT_PENDING.value,
            created=now,
            updated=now,
            tags=dict(wish.tags),
        )
        async with self._database.session() as session, session.begin():
            await check_replaced(session, who, wish.replaces, row.device_id)
            # Once more, now that nobody else writes: two that ask at the same time can't both have a port.
            ports.check(graph, await ports.taken(session, row.device_id, wish.replaces))
            session.add(row)
            await session.flush()
            for position, ref in enumerate(graph.packages):
                session.add(
                    PackageUseRow(
                        instance_id=row.instance_id, position=position, account=who.account, region=who.region,
                        package_name=ref.name, version=ref.version, patch=ref.patch_version,
                    )
                )  # fmt: skip
            outbox.add(session, events.instance(events.CREATED, row))
            if also is not None:
                await also(session, row)
        return row


async def check_replaced(session: AsyncSession, who: Caller, replaces: str, device_id: str) -> None:
    """Raises Invalid where the instance can't be replaced on this device."""
    if not replaces:
        return
    row = await store.find(session, who.account, who.region, replaces)
    text = ""
    if row is None:
        text = f"there is no application instance {replaces}"
    elif row.device_id != device_id:
        text = f"{replaces} runs on another device, {row.device_id}"
    elif row.desired == DesiredState.REMOVED:
        text = f"{replaces} is {row.status}"
    if text:
        raise Invalid(f"ApplicationInstanceIdToReplace: {text}", fields=[("ApplicationInstanceIdToReplace", text)])
