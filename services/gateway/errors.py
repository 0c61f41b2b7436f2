"""The errors of the front door, before they take the form of a protocol.

    GatewayError
    ├── AuthError       who calls is unknown, unproven or not allowed; `kind` says which
    └── AwsError        an error with AWS's own code, as it goes out

Each service turns them into its protocol's body; none holds anything that a caller may not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class GatewayError(Exception):
    """The request is answered with an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ClientGone(Exception):
    """The client closed the connection, or stopped reading: there is nobody to answer."""


class AuthKind(Enum):
    """Why a caller is refused. Every protocol has its own code for each."""

    MISSING = "missing"
    """Neither an Authorization header nor a signed query."""
    INCOMPLETE = "incomplete"
    """A part of the signature is absent or malformed."""
    UNSUPPORTED = "unsupported"
    """Another way of signing than AWS4-HMAC-SHA256."""
    UNKNOWN_KEY = "unknown_key"
    """No such access key, or its token is not its own."""
    EXPIRED_TOKEN = "expired_token"
    """Temporary credentials are past their time."""
    MISMATCH = "mismatch"
    """The signature is not that of this request."""
    SKEWED = "skewed"
    """Signed too long ago or in the future."""
    EXPIRED_URL = "expired_url"
    """A presigned URL is past its time."""
    DENIED = "denied"
    """Known, but not allowed to do this."""


class AuthError(GatewayError):
    """The caller may not."""

    def __init__(self, kind: AuthKind, message: str, members: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.members: Mapping[str, str] = members or {}
        """What S3 says besides: times, names of headers."""


class AwsError(GatewayError):
    """An error with AWS's own code."""

    def __init__(self, code: str, message: str, status: int = 400, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.members: Mapping[str, Any] = members or {}
        """Further members of the error's shape."""


def internal_error() -> AwsError:
    """What a caller sees of our own faults."""
    return AwsError("InternalServerException", "An internal error has occurred. The request ID leads to the log.", 500)
