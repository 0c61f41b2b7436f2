"""One device's way back to what it ran before a rollout. Every step can be repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import outbox
from belvedere.chassis.context import Caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import BelvedereError, Unavailable
from belvedere.fleet import DesiredState
from services.deployments import events, rollout_rules
from services.deployments.creating import Creator, Wish
from services.deployments.deployer import Deployer
from services.deployments.rollout_rules import DeviceStatus
from services.deployments.rollout_store import RolloutDeviceRow, RolloutRow
from services.deployments.rules import GONE, REMOVING, Status
from services.deployments.store import InstanceRow

OFF = "it is off: it goes back when it returns"


class Rollback:
    """Takes devices back."""

    def __init__(
        self,
        database: Database,
        creator: Creator,
        deployer: Deployer,
        online: Callable[[str], Awaitable[bool]],
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._creator, self._deployer = database, creator, deployer
        self._online, self._clock = online, clock

    async def step(self, who: Caller, rollout: RolloutRow, position: int) -> None:
        """What can be done now."""
        async with self._database.session(read_only=True) as session:
            row = await session.get_one(RolloutDeviceRow, (rollout.rollout_id, position))
            new = await session.get(InstanceRow, row.instance_id) if row.instance_id else None
            old = await session.get(InstanceRow, row.previous_id) if row.previous_id else None
            back = await session.get(InstanceRow, row.back_id) if row.back_id else None
        if back is not None:
            await self._watch(rollout, row, back)
        elif new is None or new.status in GONE or (old is None and new.status in REMOVING):
            await self._watch_removal(rollout, row, new)
        elif new.status in REMOVING:
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK)  # somebody else has other plans with this device
        elif new.status != Status.DEPLOYMENT_SUCCEEDED and await self._reverted(row, new, old):
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK)
        elif old is None:
            await self._deployer.wish_gone(new.instance_id)
            await self._deployer.settle(new.instance_id)
            await self._watch_removal(rollout, row, new)
        else:
            await self._bring_back(who, rollout, row, old)

    async def _reverted(self, row: RolloutDeviceRow, new: InstanceRow, old: InstanceRow | None) -> bool:
        """What has not delivered leaves the target, what it was to replace has never stopped. False: that is gone."""
        if new.status == Status.DEPLOYMENT_FAILED:
            return old is None or old.desired == DesiredState.RUNNING
        kept = await self._deployer.revert(new.instance_id, row.description)
        return kept or old is None or old.desired == DesiredState.RUNNING

    async def _bring_back(self, who: Caller, rollout: RolloutRow, row: RolloutDeviceRow, old: InstanceRow) -> None:
        """The old one's documents once more, in the place of the new one."""
        async with self._database.session(read_only=True) as session:
            new = await session.get_one(InstanceRow, row.instance_id)

        async def also(session: AsyncSession, instance: InstanceRow) -> None:
            fresh = await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))
            fresh.back_id, fresh.begun, fresh.updated = instance.instance_id, self._clock(), self._clock()

        replaced = new.desired == DesiredState.RUNNING and new.status != Status.DEPLOYMENT_FAILED
        wish = Wish(
            device_id=row.device_id,
            device_name=row.device_name,
            manifest=old.manifest,
            overrides=old.overrides,
            name=old.name,
            description=old.description,
            role_arn=old.role_arn,
            replaces=new.instance_id if replaced else "",
            tags=old.tags,
        )
        try:
            instance = await self._creator.create(who, wish, also)
        except Unavailable:
            raise
        except BelvedereError as error:
            await self._end(rollout, row, DeviceStatus.FAILED, f"what ran before can't be deployed: {error.message}")
            return
        await self._deployer.settle(instance.instance_id)

    async def _watch(self, rollout: RolloutRow, row: RolloutDeviceRow, back: InstanceRow) -> None:
        if back.status == Status.DEPLOYMENT_SUCCEEDED or back.status in GONE | REMOVING:
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK)
        elif back.status == Status.DEPLOYMENT_FAILED:
            await self._end(rollout, row, DeviceStatus.FAILED, f"could not go back: {back.status_description}")
        elif not await self._online(row.device_id):
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK, OFF)
        elif row.begun is not None and self._clock() > row.begun + timedelta(seconds=rollout.deliver_timeout_s):
            text = f"what ran before does not deliver: {back.status_description or back.status}"
            await self._end(rollout, row, DeviceStatus.FAILED, text)

    async def _watch_removal(self, rollout: RolloutRow, row: RolloutDeviceRow, new: InstanceRow | None) -> None:
        if new is None or new.status in GONE:
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK)
        elif not await self._online(row.device_id):
            await self._end(rollout, row, DeviceStatus.ROLLED_BACK, OFF)

    async def _end(self, rollout: RolloutRow, row: RolloutDeviceRow, status: DeviceStatus, more: str = "") -> None:
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))
            if fresh.status != DeviceStatus.ROLLING_BACK:
                return
            fresh.status, fresh.updated = status, self._clock()
            fresh.description = rollout_rules.shortened(" ".join(filter(None, (fresh.description, more))))
            outbox.add(session, events.rollout_device(rollout, fresh))
