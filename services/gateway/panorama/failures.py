"""Errors in the form of the Panorama API: the model's exceptions, with x-amzn-ErrorType.

Pure. An operation declares which exceptions it has; what a service raised beyond them becomes a ValidationException: with
AccessDeniedException it is what AWS's common errors name for every action, also for the lists of application instances, their
dependencies and their node instances, which declare no 4xx but AccessDeniedException, and for the tags' operations and ListNodes,
which declare not even that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from belvedere.awsmodel import Operation, ServiceModel
from belvedere.chassis.errors import (
    BelvedereError,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from services.gateway.errors import AuthError, AuthKind, AwsError, GatewayError, internal_error
from services.gateway.message import Reply
from services.gateway.validation import Problems

SERVICE_CODE = "panorama"
RETRY_AFTER_S = 2
"""Told with Unavailable: long enough for a peer to come back."""
UNAVAILABLE_TEXT = "A part of the service is not available at the moment. Try again."

AUTH_CODES: Mapping[AuthKind, tuple[str, int]] = {
    AuthKind.MISSING: ("MissingAuthenticationTokenException", 403),
    AuthKind.INCOMPLETE: ("IncompleteSignatureException", 403),
    AuthKind.UNSUPPORTED: ("IncompleteSignatureException", 403),
    AuthKind.UNKNOWN_KEY: ("UnrecognizedClientException", 403),
    AuthKind.EXPIRED_TOKEN: ("ExpiredTokenException", 403),
    AuthKind.MISMATCH: ("InvalidSignatureException", 403),
    AuthKind.SKEWED: ("InvalidSignatureException", 403),
    AuthKind.EXPIRED_URL: ("InvalidSignatureException", 403),
    AuthKind.DENIED: ("AccessDeniedException", 403),
}


COMMON = frozenset({"AccessDeniedException", "ValidationException"})
"""Exceptions of every operation, whatever the model declares for it."""


def invalid(problems: Problems) -> AwsError:
    """Everything that is wrong with a request."""
    return AwsError(
        "ValidationException",
        f"The input fails to satisfy the constraints of the operation: {problems.summary()}",
        400,
        {
            "Reason": "FIELD_VALIDATION_FAILED",
            "Fields": [{"Name": path, "Message": text} for path, text in problems.found],
        },
    )


def cannot_parse(message: str) -> AwsError:
    return AwsError("ValidationException", message, 400, {"Reason": "CANNOT_PARSE", "Fields": []})


def unknown_operation(what: str) -> AwsError:
    return AwsError(
        "ValidationException",
        f"UnknownOperation: {what}",
        400,
        {"Reason": "UNKNOWN_OPERATION", "Fields": []},
    )


def from_service(error: BelvedereError, model: ServiceModel, operation: Operation | None) -> AwsError:
    """The model's exception for what a service raised."""
    code, members = _exception(error)
    if code == "InternalServerException":
        message = UNAVAILABLE_TEXT if isinstance(error, Unavailable) else internal_error().message
        return AwsError(code, message, 500, members)
    status = model.shapes[code].http_status or 400
    # What an operation does not declare, its clients may not expect: the request was wrong, then.
    if operation is not None and code not in COMMON and not operation.declares(code):
        return AwsError("ValidationException", error.message, 400, {"Reason": "OTHER", "Fields": []})
    return AwsError(code, error.message, status, members)


def _exception(error: BelvedereError) -> tuple[str, dict[str, Any]]:
    match error:
        case NotFound():
            return "ResourceNotFoundException", {"ResourceId": error.resource_id, "ResourceType": error.resource_type}
        case Conflict():
            return "ConflictException", {"ResourceId": error.resource_id, "ResourceType": error.resource_type}
        case Invalid():
            fields = [{"Name": path, "Message": text} for path, text in error.fields]
            return "ValidationException", {"Reason": "FIELD_VALIDATION_FAILED" if fields else "OTHER", "Fields": fields}
        case Denied():
            return "AccessDeniedException", {}
        case QuotaExceeded():
            return "ServiceQuotaExceededException", {"QuotaCode": error.quota_code, "ServiceCode": SERVICE_CODE}
        case Unavailable():
            return "InternalServerException", {"RetryAfterSeconds": RETRY_AFTER_S}
        case _:
            return "InternalServerException", {}


def reply(error: GatewayError) -> Reply:
    """An error as it goes out."""
    if isinstance(error, AuthError):
        code, status = AUTH_CODES[error.kind]
        members: dict[str, Any] = {}
    elif isinstance(error, AwsError) and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The API declares nothing for it: an input that nobody reads.
        code, status, members = "ValidationException", 400, {"Reason": "CANNOT_PARSE", "Fields": []}
    elif isinstance(error, AwsError):
        code, status, members = error.code, error.status, dict(error.members)
    else:
        raise AssertionError(f"no form for {type(error).__name__}")
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    if (retry := members.pop("RetryAfterSeconds", None)) is not None:
        headers["Retry-After"] = str(retry)
    body = json.dumps({"Message": error.message, **members}, ensure_ascii=False)
    return Reply(status, headers, body.encode())
