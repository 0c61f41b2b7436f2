"""Decisions of the packages service, pure: names, addresses, what a package document yields. No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from belvedere.chassis.errors import FieldError, Invalid
from belvedere.chassis.secret import Secret
from belvedere.graph import Interface, PackageDocument

STATUS_TEXT_LIMIT = 255
"""Longest StatusDescription of the API."""
SAVED_AS_SECRET = "SAVED_AS_SECRET"
"""What is shown in the place of a stored user name or password."""
ALIAS = "packageName/"
TEMPLATE_KEYS = ("StreamUrl", "Username", "Password")
STREAM_SCHEMES = {"rtsp": 554, "rtsps": 322, "rtspt": 554, "rtspu": 554}  # the last two: over TCP, over UDP
RESERVED_KEYS = ".belvedere/"
"""Keys below it are the front door's own: uploads in progress. They do not keep a bucket from being deleted."""
UPLOADS = f"{RESERVED_KEYS}uploads/"
"""`<upload id>` for an upload in parts, `<upload id>/<number>` for its parts. A part's blob is its own: nothing else names it."""
UPLOAD_ID_LENGTH = 64
_PACKAGE_BUCKET = re.compile(r"panorama-[0-9]{12}-.+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME = re.compile(r"[a-zA-Z0-9\-_]{1,128}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+")
_PATCH = re.compile(r"[a-z0-9]{1,255}")


def bucket_name(account: str, region: str) -> str:
    """The one bucket of an account and region. A plain name: clients turn an access point's ARN into a host name."""
    return f"panorama-{account}-{region}"


def is_part(key: str) -> bool:
    """Whether a key is that of a part of an upload, whose blob goes with it."""
    return key.startswith(UPLOADS) and "/" in key.removeprefix(UPLOADS)


def is_package_bucket(bucket: str) -> bool:
    """Whether a name has the form of a package bucket, whosever: such names can't be taken."""
    return _PACKAGE_BUCKET.fullmatch(bucket) is not None


def check_bucket_name(bucket: str) -> None:
    """Raises Invalid for a name that no bucket can have."""
    if _BUCKET.fullmatch(bucket) is None or ".." in bucket:
        text = "3 to 63 lower-case letters, digits, dots and hyphens"
        raise Invalid(f"{bucket[:64]!r} can't be the name of a bucket: {text}.", fields=[("Bucket", text)])


def package_prefix(account: str, package: str) -> str:
    """Where a package's objects lie in the bucket."""
    return f"{account}/nodePackages/{package}"


def binary_key(account: str, package: str, uri: str) -> str:
    """Key of an asset or descriptor."""
    return f"{package_prefix(account, package)}/binaries/{uri}"


def manifest_key(account: str, package: str, version: str, patch: str) -> str:
    """Key of a package document."""
    return f"{package_prefix(account, package)}/manifests/{version}/{patch}.json"


def node_id(package: str, version: str, patch: str, interface: str) -> str:
    """`<package>-<version>-<patch[:8]>-<interface>`."""
    return f"{package}-{version}-{patch[:8]}-{interface}"


def check_names(*, name: str | None = None, version: str | None = None, patch: str | None = None) -> None:
    """Raises Invalid for a package name, version or patch version that can't be one."""
    wrong: list[FieldError] = []
    if name is not None and _NAME.fullmatch(name) is None:
        wrong.append(("PackageName", "1 to 128 letters, digits, - and _"))
    if version is not None and _VERSION.fullmatch(version) is None:
        wrong.append(("PackageVersion", 'two numbers with a dot, such as "1.0"'))
    if patch is not None and _PATCH.fullmatch(patch) is None:
        wrong.append(("PatchVersion", "1 to 255 lower-case letters and digits: the SHA-256 of package.json"))
    if wrong:
        raise Invalid("; ".join(f"{path} must be {text}" for path, text in wrong), fields=wrong)


def status_text(problems: Iterable[str], limit: int = STATUS_TEXT_LIMIT) -> str:
    """All problems in one line; what does not fit is counted."""
    texts = list(problems)
    for count in range(len(texts), 0, -1):
        rest = len(texts) - count
        text = "; ".join(texts[:count]) + (f"; and {rest} more" if rest else "")
        if len(text) <= limit:
            return text
    return texts[0][: limit - 1] + "…" if texts else ""


@dataclass(frozen=True)
class CameraAddress:
    """Where a camera streams, and what it asks for."""

    stream_url: str
    """Without user name and password."""
    username: Secret[str]
    password: Secret[str]

    @property
    def has_credentials(self) -> bool:
        """Whether the camera asks for any."""
        return bool(self.username or self.password)


def camera_address(parameters: Mapping[str, str]) -> CameraAddress:
    """Template parameters as an address. User information inside the URL is moved to the credentials.

    Raises Invalid naming every wrong parameter; the message holds no value of one.
    """
    wrong: list[FieldError] = [
        (f"TemplateParameters.{key}", f"is not known; RTSP cameras take {', '.join(TEMPLATE_KEYS)}")
        for key in parameters
        if key not in TEMPLATE_KEYS
    ]
    url = parameters.get("StreamUrl", "")
    parts: SplitResult | None = None
    if not url:
        wrong.append(("TemplateParameters.StreamUrl", "is missing: rtsp://host:port/path"))
    else:
        parts = _split(url)
        if parts is None:
            wrong.append(
                ("TemplateParameters.StreamUrl", "is no stream address: rtsp://host:port/path or rtsps://… is expected")
            )
    if wrong or parts is None:
        raise Invalid("; ".join(f"{path} {text}" for path, text in wrong), fields=wrong)
    username = parameters.get("Username") or unquote(parts.username or "")
    password = parameters.get("Password") or unquote(parts.password or "")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    bare = urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
    return CameraAddress(bare, Secret(username), Secret(password))


def _split(url: str) -> SplitResult | None:
    if len(url) > 2048 or any(letter.isspace() or not letter.isprintable() for letter in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme.lower() not in STREAM_SCHEMES or not parts.hostname or port == 0:
        return None
    # What is no letter of a host name would be read differently by different clients.
    if quote(parts.hostname, safe="-._~:%") != parts.hostname:
        return None
    return parts


def masked_parameters(stream_url: str, given: Iterable[str]) -> dict[str, str]:
    """Template parameters as they may be shown."""
    return {key: stream_url if key == "StreamUrl" else SAVED_AS_SECRET for key in TEMPLATE_KEYS if key in set(given)}


def port_rows(interface: Interface) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Input and output ports of an interface, as they are stored. A default of a camera's credentials is not."""
    inputs = [
        {
            "name": port.name,
            "type": port.type.value,
            "description": port.description,
            "default": None if _secret_port(interface, port.name) else port.default,
            "max_connections": port.max_connections,
        }
        for port in interface.inputs
    ]
    outputs = [{"name": p.name, "type": p.type.value, "description": p.description} for p in interface.outputs]
    return inputs, outputs


def default_text(value: bool | int | float | str) -> str:
    """A port's default as the API shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _secret_port(interface: Interface, name: str) -> bool:
    return interface.category == "media_source" and name in ("username", "password")


def document_camera(document: PackageDocument) -> CameraAddress | None:
    """The camera in a package document that was registered by hand (the AWS CLI's camera template): its defaults."""
    for interface in document.interfaces:
        defaults = {port.name: port.default for port in interface.inputs if isinstance(port.default, str)}
        if interface.category == "media_source" and defaults.get("streamUrl"):
            names = {"streamUrl": "StreamUrl", "username": "Username", "password": "Password"}
            return camera_address({names[key]: str(value) for key, value in defaults.items() if key in names})
    return None


def package_alias(package_id: str) -> str | None:
    """The name in `packageName/<name>`, the alias that stands for an id; None for an id."""
    return package_id.removeprefix(ALIAS) if package_id.startswith(ALIAS) else None
