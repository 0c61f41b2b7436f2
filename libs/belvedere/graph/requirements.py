"""What an implementation asks of the appliance (`requirements` of an asset in package.json).

The schema's own kinds are `ota` (software of AWS's appliance), `device` (its hardware) and `hardware_access` (its GPU):
an appliance of another maker has none of these, so they are checked for their form and ask for nothing. Ours is
`resources`: {"type": "resources", "memoryMb": 512, "cpu": 1.5, "pids": 64, "diskMb": 2048}, each optional.
"""

from __future__ import annotations

from belvedere.graph._reading import Fields, Value, shown
from belvedere.graph.resolved import NO_LIMITS, Limits

RESOURCES = "resources"
MEMORY_MB = (16, 1_048_576)
PIDS = (4, 65_536)
DISK_MB = (1, 1_048_576)
CPU = (0.05, 1024.0)


def read_requirements(fields: Fields) -> Limits:
    """The limits that the list asks for; records what is wrong in it."""
    limits = NO_LIMITS
    for number, item in enumerate(fields.items("requirements")):
        asked = item.fields(
            "type", "minVersion", "maxVersion", "name", "inferenceAccelerators", "memoryMb", "cpu", "pids", "diskMb"
        )
        if asked.text("type", required=True) != RESOURCES:
            continue
        if limits != NO_LIMITS:
            fields.problems.add(fields.at(f"requirements[{number}]"), f'is the second of type "{RESOURCES}"')
        limits = Limits(
            memory_mb=asked.whole("memoryMb", *MEMORY_MB),
            cpu=_cpu(asked),
            pids=asked.whole("pids", *PIDS),
            disk_mb=asked.whole("diskMb", *DISK_MB),
        )
    return limits


def _cpu(fields: Fields) -> float:
    if not fields.has("cpu"):
        return 0.0
    value: Value = fields.get("cpu")
    if isinstance(value.value, bool) or not isinstance(value.value, int | float) or not CPU[0] <= value.value <= CPU[1]:
        value.problem(f"must be a number of cores from {CPU[0]} to {CPU[1]:g}, not {shown(value.value)}")
        return 0.0
    return float(value.value)
