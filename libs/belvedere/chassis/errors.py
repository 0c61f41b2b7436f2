"""The errors that cross a service's border.

    raise NotFound("DEVICE", device_id)
    raise Invalid("ManifestPayload: not valid JSON", fields=[("nodes[2].interface", 'no package "x::y" in packages')])

    BelvedereError
    ├── NotFound        there is no such thing (or it is another account's)
    ├── Conflict        it exists already, or its state does not allow this
    ├── Invalid         the request is wrong; `fields` says where
    ├── Denied          the caller may not, or is nobody
    ├── Unauthenticated a call over TCP has no bearer token that is good
    ├── QuotaExceeded   a limit is reached
    ├── Unavailable     not now: a peer is away or too slow; trying again may help
    └── Internal        our fault; the message holds a request id and nothing else

Must not know gRPC or HTTP: `chassis.rpc` and the gateway translate. A message says what was wrong and what to do next.
A service may subclass one of these; across the border it arrives as the class named here.
"""

from collections.abc import Sequence

FieldError = tuple[str, str]
"""(path of the field, what is wrong with it)"""


class BelvedereError(Exception):
    """Base of all; `message` is fit for users."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(BelvedereError):
    """There is no such resource in the caller's account and region."""

    def __init__(self, resource_type: str, resource_id: str, message: str = "") -> None:
        super().__init__(
            message or f"There is no {resource_type} with the id {resource_id!r} in this account and region."
        )
        self.resource_type = resource_type
        self.resource_id = resource_id


class Conflict(BelvedereError):
    """The resource exists already, or is in a state that does not allow the request."""

    def __init__(self, resource_type: str, resource_id: str, message: str) -> None:
        super().__init__(message)
        self.resource_type = resource_type
        self.resource_id = resource_id


class Invalid(BelvedereError):
    """The request is wrong; `fields` names each place and what is wrong there."""

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields: tuple[FieldError, ...] = tuple((str(path), str(text)) for path, text in fields)


class Denied(BelvedereError):
    """The caller may not do this, or could not be recognised."""


class Unauthenticated(BelvedereError):
    """The call brings no proof of who sends it, or none that is good (any more)."""


class QuotaExceeded(BelvedereError):
    """A limit is reached; `quota_code` names it."""

    def __init__(self, quota_code: str, message: str) -> None:
        super().__init__(message)
        self.quota_code = quota_code


class Unavailable(BelvedereError):
    """A peer is away or did not answer in time; the same request may succeed later."""


class Internal(BelvedereError):
    """A fault of ours in a peer. Its log has the details under the request id in the message."""
