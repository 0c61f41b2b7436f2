"""Where to look at a local run: the addresses of its video, and a page for a browser.

The page is a file for its owner's eyes: it holds the token that opens the video.
"""

from __future__ import annotations

import base64
import html
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from belvedere.cli.run.engine import Row
from belvedere.viewer import VIEWER_USER, make_viewer_token, viewer_rtsp_password

VALID_S = 7 * 24 * 3600
PAGE = "watch.html"
_TEMPLATE = Path(__file__).with_name("watch.html.in")


@dataclass(frozen=True)
class Addresses:
    """With what opens them."""

    rtsp: str
    page: Path


def addresses(folder: Path, name: str, output: Row, viewer_key: str) -> Addresses:
    """The addresses of one output; writes the page into `folder`."""
    key = base64.b64decode(viewer_key)
    token = make_viewer_token(key, str(output["instance_id"]), int(time.time()) + VALID_S)
    rtsp = str(output["rtsp_url"]).replace("rtsp://", f"rtsp://{VIEWER_USER}:{viewer_rtsp_password(key)}@", 1)
    text = _TEMPLATE.read_text()
    video = json.dumps(f"{output['websocket_url']}?token={token}").replace("<", "\\u003c")
    text = text.replace("@NAME@", html.escape(name)).replace("@VIDEO@", video)
    page = folder / PAGE
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    return Addresses(rtsp, page)
