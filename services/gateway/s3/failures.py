"""Errors in S3's form. Pure."""

from __future__ import annotations

from belvedere.chassis.errors import BelvedereError, Conflict, Denied, Invalid, NotFound, QuotaExceeded, Unavailable
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Reply

ALLOW = "Allow"
"""Among an error's members: not told in its body but in the header of that name."""
INTERNAL = "We encountered an internal error. The request ID leads to the log."
COMMON = {
    "InternalServerException": ("InternalError", 500, INTERNAL),
    "RequestEntityTooLargeException": ("MaxMessageLengthExceeded", 400, "Your request was too big."),
    "RequestTimeout": (
        "RequestTimeout",
        400,
        "Your socket connection to the server was not read from or written to within the timeout period. Idle connections "
        "will be closed.",
    ),
}
"""What the front door raises for every service, and S3's code, status and text of it."""
HEADER_SECTION_MAX_BYTES = 8192
"""As S3 documents it; here it bounds what is kept with an object. A page of 1,000 objects has to fit into one message."""
VALUE_TOLD = 256
"""Characters of an argument that is told back."""


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


def headers_too_large() -> AwsError:
    text = "Your request header and query parameters section exceeds the maximum allowed size."
    return AwsError("RequestHeaderSectionTooLarge", text, 400, {"MaxSizeAllowed": HEADER_SECTION_MAX_BYTES})


def access_denied() -> AwsError:
    return AwsError("AccessDenied", "Access Denied", 403)


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
            return AwsError("InternalError", INTERNAL, 500)


def method_not_allowed(method: str, resource_type: str, allowed: str) -> AwsError:
    """`resource_type`: SERVICE, BUCKET, OBJECT; `allowed`: methods, as the Allow header lists them."""
    message = "The specified method is not allowed against this resource."
    members = {"Method": method, "ResourceType": resource_type, ALLOW: allowed}
    return AwsError("MethodNotAllowed", message, 405, members)


def invalid_argument(message: str, name: str, value: str) -> AwsError:
    return AwsError("InvalidArgument", message, 400, {"ArgumentName": name, "ArgumentValue": value[:VALUE_TOLD]})


def reply(method: str, resource: str, request_id: str, error: AwsError) -> Reply:
    """An error as it goes out; HEAD has no body. `resource`: the request's path."""
    code, status, message = COMMON.get(error.code, (error.code, error.status, error.message))
    members = [(name, str(value)) for name, value in error.members.items() if name != ALLOW]
    content = [("Code", code), ("Message", message), *members]
    content += [("Resource", resource), ("RequestId", request_id)]
    headers = {"Content-Type": "application/xml"}
    if ALLOW in error.members:
        headers["Allow"] = str(error.members[ALLOW])
    body = b"" if method == "HEAD" else xml.document("Error", None, content)
    return Reply(status, headers, body)
