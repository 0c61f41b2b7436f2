"""PostObject: an upload by a form that somebody has signed for a stranger, as `generate_presigned_post` makes it.

The fields are read as the headers of a PutObject, so that all that holds there holds here; the file goes to the store as it comes.
"""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import quote, urlencode, urlsplit

from services.gateway import forms
from services.gateway.forms import Form
from services.gateway.message import Call, Reply
from services.gateway.payload import File, Upload
from services.gateway.s3 import failures, names, post_policy
from services.gateway.s3.names import Place
from services.gateway.s3.objects import KEPT_HEADERS, Objects
from services.gateway.s3.replies import document
from services.gateway.sigv4 import UNSIGNED, HttpRequest

AS_HEADERS = frozenset({"content-type", "content-md5", *KEPT_HEADERS})
"""Fields that say what the headers of these names say, besides x-amz-*."""
OTHER_NAMES = {"acl": "x-amz-acl", "tagging": "x-amz-tagging"}
KEPT = ("host", "user-agent")
"""Headers that stay those of the request."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


async def read_form(call: Call) -> Form:
    """The form up to its file; the call has it, and its fields for headers, from then on. Raises AwsError."""
    call.form = form = await forms.read(call)
    headers = [(name, value) for name, value in call.http.headers if name in KEPT]
    for name, value in form.fields.items():
        if name in AS_HEADERS or name in OTHER_NAMES or name.startswith("x-amz-"):
            if _CONTROL.search(value):
                raise failures.invalid_argument("A field can not hold control characters.", name, "")
            headers.append((OTHER_NAMES.get(name, name), value.strip()))
    call.http = HttpRequest(call.method, call.path, call.http.query, headers)
    return form


def key_of(form: Form) -> str:
    """Raises AwsError(InvalidArgument) where the form names none."""
    return form.need("key").replace("${filename}", re.split(r"[\\/]", form.file_name)[-1])


async def put(objects: Objects, call: Call, bucket: str, now: datetime) -> Reply:
    """PostObject. Raises AwsError."""
    form = call.form
    assert form is not None
    policy = post_policy.read(form.fields.get("policy", ""))
    fields = {**form.fields, "bucket": bucket}
    if form.fields.get("bucket", bucket) != bucket:
        raise failures.invalid_argument(
            "The bucket of the form is not that of its address.", "bucket", form.fields["bucket"]
        )
    fields["key"] = key = key_of(form)
    policy.check(fields, now)
    names.check_key(key)
    await call.authorize("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}")
    upload = Upload(call, UNSIGNED, File(form.file, policy.least, policy.most, form.about_bytes))
    await objects.write(call, Place(bucket, key), upload)
    return _answer(call, form, bucket, key, f'"{upload.md5}"')


def _answer(call: Call, form: Form, bucket: str, key: str, etag: str) -> Reply:
    front = call.path.rstrip("/")
    place = f"http://{call.header('host')}{front}/{quote(key, safe='/-_.~')}"
    headers = {"ETag": etag, "Location": place}
    target = form.fields.get("success_action_redirect") or form.fields.get("redirect", "")
    if target and _is_address(target):
        told = urlencode({"bucket": bucket, "key": key, "etag": etag})
        return Reply(303, {"ETag": etag, "Location": f"{target}{'&' if urlsplit(target).query else '?'}{told}"})
    match form.fields.get("success_action_status", ""):
        case "200":
            return Reply(200, headers)
        case "201":
            content = [("Location", place), ("Bucket", bucket), ("Key", key), ("ETag", etag)]
            answer = document("PostResponse", content)
            return Reply(201, {**answer.headers, **headers}, answer.body)
        case _:
            return Reply(204, headers)


def _is_address(text: str) -> bool:
    """Whether it can be told as the place to go on. Another one is passed over, as S3 does."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return (
        text.isascii()
        and text.isprintable()
        and " " not in text
        and parts.scheme in ("http", "https")
        and bool(parts.netloc)
    )
