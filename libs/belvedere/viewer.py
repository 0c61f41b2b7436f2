"""How the viewer key opens an appliance's video: derivations that cloud side and appliance both make. No I/O, no clock.

An appliance and its registry share one `viewer_key` (32 random bytes, handed over at enrolment). From it follow

- the password of the RTSP user `viewer`: `base64url(HMAC-SHA256(viewer_key, "rtsp"))[:24]`
- the token in the address of a video over HTTP or a WebSocket, good for one application instance until a moment:
  `body + "." + base64url(HMAC-SHA256(viewer_key, body))` with `body = base64url({"exp": unix s, "sub": instance})`;
  base64url without padding.

So the cloud side can hand out an address that works without asking the appliance, and the appliance can check it with
the link cut.

    ViewerTokenError ─┬─ ViewerTokenInvalid    not made with this key, for another instance, or no token at all
                      └─ ViewerTokenExpired    was good once: ask for a new one
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

VIEWER_USER = "viewer"
RTSP_PASSWORD_LENGTH = 24  # 144 bits: more than digest authentication can be guessed at, short enough to type
MAX_TOKEN_LENGTH = 1024  # a real one has about 140 characters; nothing longer is worth decoding


class ViewerTokenError(Exception):
    """A token that opens nothing; `status` is the HTTP status that says so."""

    status = 401


class ViewerTokenInvalid(ViewerTokenError):
    """The token was not made with this appliance's key for this instance."""

    status = 403


class ViewerTokenExpired(ViewerTokenError):
    """The token is past its time."""

    status = 401


def viewer_rtsp_password(key: bytes) -> str:
    """The password of the RTSP user `viewer`, for an appliance with this viewer key."""
    return _encode(_mac(key, b"rtsp"))[:RTSP_PASSWORD_LENGTH]


def make_viewer_token(key: bytes, instance_id: str, expires_unix: int) -> str:
    """A token that opens the video of `instance_id` until `expires_unix` (seconds)."""
    body = _encode(json.dumps({"exp": int(expires_unix), "sub": instance_id}, separators=(",", ":")).encode())
    return f"{body}.{_encode(_mac(key, body.encode()))}"


def check_viewer_token(key: bytes, token: str, instance_id: str, now_unix: float) -> None:
    """Returns when the token opens the video of `instance_id` now; else ViewerTokenInvalid or ViewerTokenExpired."""
    if not token:
        raise ViewerTokenInvalid("no token: open the video from the console, which makes one")
    body, dot, signature = token.partition(".")
    if not dot or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise ViewerTokenInvalid("this is no viewer token")
    if not hmac.compare_digest(_encode(_mac(key, body.encode())), signature):
        raise ViewerTokenInvalid("the token was not made for this appliance, or was changed on the way")
    try:
        claims = json.loads(_decode(body))
        expires, subject = float(claims["exp"]), claims["sub"]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ViewerTokenInvalid("the token is signed but its claims cannot be read") from error
    if subject != instance_id:
        raise ViewerTokenInvalid(f"the token is for another application instance, not for {instance_id}")
    if now_unix >= expires:
        raise ViewerTokenExpired("the token has expired: open the video again from the console")


def _mac(key: bytes, text: bytes) -> bytes:
    if not key:
        raise ValueError("the viewer key is empty")
    return hmac.new(key, text, hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
