"""Which kind of sandbox this appliance uses, decided once at its start and said in its log."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from belvedere.chassis.logs import get_logger
from edge.supervisor import cgroups
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.sandbox.base import Sandbox
from edge.supervisor.sandbox.bwrap import Bubblewrap
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.runc import Runc
from edge.supervisor.settings import Settings

log = get_logger(__name__)


async def choose(settings: Settings, base: HostBase, folder: Path) -> Sandbox:
    """The kind that `settings.sandbox` names; "auto": runc where it is there and control groups can be made (root, or a
    delegated group), else bubblewrap. One that can't be used now is returned all the same: each start tries again.

    `folder`: for runc's bundles and state.
    """
    owner = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    found = await asyncio.to_thread(cgroups.find, owner)
    groups, lacking = (None, found) if isinstance(found, str) else (found, "")
    bubblewrap = Bubblewrap(base, program=settings.bwrap, memory_check_s=settings.memory_check_s, groups=groups)
    runc = Runc(base, folder, program=settings.runc, memory_check_s=settings.memory_check_s, groups=groups)
    kinds: dict[str, list[Sandbox]] = {
        "auto": [runc, bubblewrap] if groups is not None else [bubblewrap],
        "runc": [runc],
        "bubblewrap": [bubblewrap],
    }
    candidates = kinds.get(settings.sandbox)
    if candidates is None:
        raise SandboxUnavailable(
            f"BELVEDERE_SUPERVISOR_SANDBOX is {settings.sandbox!r}: it must be one of {', '.join(kinds)}"
        )
    for sandbox in candidates:
        try:
            await sandbox.prepare()
        except SandboxUnavailable as error:
            if sandbox is candidates[-1]:
                # Each application will say so too, and tries again by itself.
                log.error("no sandbox can be made", kind=sandbox.name, error=str(error))
                return sandbox
            log.info("a kind of sandbox can't be used", kind=sandbox.name, reason=str(error))
        else:
            break
    limits = "by the kernel, disk watched" if groups is not None else f"watched ({lacking})"
    if groups is not None:
        # After runc has taken away its own.
        await asyncio.to_thread(groups.sweep)
    log.info("sandboxes", kind=sandbox.name, wanted=settings.sandbox, limits=limits)
    return sandbox
