import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.viewer import (
    ViewerTokenError,
    ViewerTokenExpired,
    ViewerTokenInvalid,
    check_viewer_token,
    make_viewer_token,
    viewer_rtsp_password,
)

KEY = bytes(range(32))
INSTANCE = "applicationInstance-abcdefghijklmnopqrstuvwxyz"


def test_the_rtsp_password_is_the_documented_derivation() -> None:
    digest = hmac.new(KEY, b"rtsp", hashlib.sha256).digest()
    assert viewer_rtsp_password(KEY) == base64.urlsafe_b64encode(digest).decode()[:24]


def test_a_token_opens_its_instance_until_it_expires() -> None:
    token = make_viewer_token(KEY, INSTANCE, 1000)
    check_viewer_token(KEY, token, INSTANCE, 999.9)
    with pytest.raises(ViewerTokenExpired):
        check_viewer_token(KEY, token, INSTANCE, 1000)


def test_a_token_opens_nothing_else() -> None:
    token = make_viewer_token(KEY, INSTANCE, 1000)
    with pytest.raises(ViewerTokenInvalid, match="another application instance"):
        check_viewer_token(KEY, token, "applicationInstance-other", 1)
    with pytest.raises(ViewerTokenInvalid):
        check_viewer_token(b"x" * 32, token, INSTANCE, 1)
    longer = base64.urlsafe_b64encode(json.dumps({"exp": 9999, "sub": INSTANCE}).encode()).decode().rstrip("=")
    with pytest.raises(ViewerTokenInvalid):
        check_viewer_token(KEY, longer + "." + token.split(".")[1], INSTANCE, 1)


@given(st.text(max_size=200))
def test_garbage_is_refused_with_a_typed_error(garbage: str) -> None:
    with pytest.raises(ViewerTokenError):
        check_viewer_token(KEY, garbage, INSTANCE, 1)
