"""An appliance that belongs to no cloud side: what `belvedere run` starts.

It has an identity of its own making and no link. Its target comes over the local bus (`edge.agent.target`) from who
started it, who also puts the assets into its store; everything else, planner and processes, is any appliance's.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

from belvedere.bus import tls
from belvedere.chassis.edge import CommandFailed, device_log_group
from belvedere.chassis.secret import Secret
from belvedere.fleet import DocumentError, Target, TargetCamera, sealing
from edge.agent.device import CA, DeviceConfig, DeviceKeys, write_private

LOCAL_DEVICE = "device-local"
LOCAL_ACCOUNT = "123456789012"
LOCAL_REGION = "us-east-1"
NOWHERE = "http://127.0.0.1:9"
"""For what only a cloud side answers: nobody listens there, so that it is refused at once."""
VIEWER_KEY_BYTES = 32
NEVER = "9999-12-31T00:00:00+00:00"


def make_local(folder: Path) -> DeviceConfig:
    """The identity of an appliance without a cloud side, in DATA/device."""
    DeviceKeys.load_or_make(folder)
    write_private(folder / CA, tls.prepare(folder / "local").ca.read_bytes())
    config = DeviceConfig(
        device_id=LOCAL_DEVICE,
        device_name="local",
        account_id=LOCAL_ACCOUNT,
        region=LOCAL_REGION,
        account_public_key="",
        leaf_urls=(),
        device_url=NOWHERE,
        gateway_url=NOWHERE,
        viewer_key=base64.b64encode(secrets.token_bytes(VIEWER_KEY_BYTES)).decode(),
        log_group=device_log_group(LOCAL_DEVICE),
        lease_expires=NEVER,
    )
    config.save(folder)
    return config


def read_target(body: dict[str, Any], keys: DeviceKeys) -> Target:
    """`{"target": Target, "credentials": {camera_id: {"username", "password"}}}`, the credentials sealed as a cloud side
    seals them. Raises CommandFailed."""
    try:
        target = Target.from_plain(body.get("target"), "target")
        credentials = {str(name): dict(pair) for name, pair in dict(body.get("credentials") or {}).items()}
        cameras = tuple(_sealed(camera, credentials.get(camera.camera_id), keys) for camera in target.cameras)
    except DocumentError as error:
        raise CommandFailed("INVALID_REQUEST", f"agent.target: {error}") from error
    except (TypeError, ValueError, KeyError):
        # Without the cause: it may show a password.
        raise CommandFailed(
            "INVALID_REQUEST", "agent.target: credentials must be {camera_id: {username, password}}"
        ) from None
    return Target(device_id=LOCAL_DEVICE, version=target.version, applications=target.applications, cameras=cameras)


def _sealed(camera: TargetCamera, pair: dict[str, Any] | None, keys: DeviceKeys) -> TargetCamera:
    if pair is None:
        return camera
    blob = sealing.seal(keys.seal_public_key, Secret(str(pair["username"])), Secret(str(pair["password"])))
    return TargetCamera(camera.camera_id, camera.stream_url, base64.b64encode(blob).decode())
