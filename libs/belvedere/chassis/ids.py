"""Identifiers and ARNs in AWS's shapes.

    new_id("device")                                              # 'device-k5ch2cuqk2f4m3vtlxbq6xgpvy'
    arn("panorama", "us-east-1", "123456789012", "device/…")   # 'arn:aws:panorama:us-east-1:123456789012:device/…'

Must not know what is identified. 26 base-32 characters are 130 random bits: ids are unguessable and never collide.
"""

import re
import secrets
from dataclasses import dataclass

from belvedere.chassis.errors import Invalid

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
ID_LENGTH = 26
_ARN = re.compile(r"^arn:([a-z0-9][-.a-z0-9]*):([a-z0-9-]+):([a-z0-9-]*):([0-9]{12}|aws|):(.+)$", re.DOTALL)


def random_id() -> str:
    """26 random characters of lower-case base 32."""
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_id(prefix: str) -> str:
    """`<prefix>-<26 characters>`: prefix "device", "applicationInstance", "package", …"""
    return f"{prefix}-{random_id()}"


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` has the form that `new_id(prefix)` makes."""
    return re.fullmatch(rf"{re.escape(prefix)}-[a-z2-7]{{{ID_LENGTH}}}", text) is not None


@dataclass(frozen=True)
class Arn:
    """The parts of an ARN."""

    service: str
    region: str
    account: str
    resource: str
    """Everything after the account: "device/device-…"."""
    partition: str = "aws"

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def resource_type(self) -> str:
        """What stands before the first slash of the resource."""
        return self.resource.partition("/")[0]

    @property
    def resource_id(self) -> str:
        """What stands after the first slash of the resource; empty where there is none."""
        return self.resource.partition("/")[2]


def arn(service: str, region: str, account: str, resource: str) -> str:
    """`arn:aws:<service>:<region>:<account>:<resource>`."""
    return str(Arn(service, region, account, resource))


def parse_arn(text: str) -> Arn:
    """Takes an ARN apart. Raises Invalid where it is none."""
    match = _ARN.match(text)
    if match is None:
        raise Invalid(f"{text!r} is not an ARN: arn:aws:<service>:<region>:<account>:<resource> is expected.")
    partition, service, region, account, resource = match.groups()
    return Arn(service, region, account, resource, partition)
