"""Errors in S3's form. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from belvedere.chassis.errors import BelvedereError, Conflict, Denied, Invalid, NotFound, QuotaExceeded, Unavailable
from services.gateway import xml
from services.gateway.errors import AuthError, AuthKind, AwsError, GatewayError
from services.gateway.message import Call, Reply

AUTH_CODES: Mapping[AuthKind, tuple[str, int]] = {
    AuthKind.MISSING: ("AccessDenied", 403),
    AuthKind.INCOMPLETE: ("AuthorizationHeaderMalformed", 400),
    AuthKind.UNSUPPORTED: ("InvalidRequest", 400),
    AuthKind.UNKNOWN_KEY: ("InvalidAccessKeyId", 403),
    AuthKind.EXPIRED_TOKEN: ("ExpiredToken", 400),
    AuthKind.MISMATCH: ("SignatureDoesNotMatch", 403),
    AuthKind.SKEWED: ("RequestTimeTooSkewed", 403),
    AuthKind.EXPIRED_URL: ("AccessDenied", 403),
    AuthKind.DENIED: ("AccessDenied", 403),
}


def no_such_key(key: str) -> AwsError:
    return AwsError("NoSuchKey", "The specified key does not exist.", 404, {"Key": key})


def no_such_bucket(bucket: str) -> AwsError:
    return AwsError("NoSuchBucket", "The specified bucket does not exist", 404, {"BucketName": bucket})


def no_such_upload(upload_id: str) -> AwsError:
    return AwsError(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
        404,
        {"UploadId": upload_id},
    )


def malformed_xml() -> AwsError:
    return AwsError("MalformedXML", "The XML you provided was not well-formed or did not validate.")


def precondition_failed(condition: str) -> AwsError:
    message = "At least one of the pre-conditions you specified did not hold"
    return AwsError("PreconditionFailed", message, 412, {"Condition": condition})


def not_implemented(operation: str) -> AwsError:
    return AwsError("NotImplemented", f"{operation} is not served here.", 501)


def from_service(error: BelvedereError) -> AwsError:
    """S3's error for what a service raised."""
    match error:
        case NotFound():
            return AwsError("NoSuchKey", error.message, 404)
        case Invalid() | QuotaExceeded():
            return AwsError("InvalidRequest", error.message, 400)
        case Conflict():
            return AwsError("OperationAborted", error.message, 409)
        case Denied():
            return AwsError("AccessDenied", error.message, 403)
        case Unavailable():
            return AwsError("ServiceUnavailable", "A part of the service is not available. Try again.", 503)
        case _:
            return AwsError("InternalError", "We encountered an internal error. The request ID leads to the log.", 500)


def reply(call: Call, error: GatewayError) -> Reply:
    """An error as it goes out; HEAD has no body."""
    if isinstance(error, AuthError):
        code, status = AUTH_CODES[error.kind]
        members: Mapping[str, object] = {}
    elif isinstance(error, AwsError):
        code, status, members = error.code, error.status, error.members
    else:
        raise AssertionError(f"no form for {type(error).__name__}")
    if code == "InternalServerException":
        code = "InternalError"
    content = [("Code", code), ("Message", error.message), *((name, str(value)) for name, value in members.items())]
    content += [("Resource", call.path), ("RequestId", call.request_id)]
    body = b"" if call.method == "HEAD" else xml.document("Error", None, content)
    return Reply(status, {"Content-Type": "application/xml"}, body)
