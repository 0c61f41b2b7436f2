"""What can be wrong with a camera, each with the state and the sentence that reach its user.

    CameraError
      CameraRefused       401, 403: wrong user name or password, or one that may not watch
      CameraNotFound      404: the camera is there, the stream is not
      CameraUnreachable   no answer, or one that is no RTSP
      CameraStalled       connected, but no frames
      CameraUnsupported   no video in it that we can decode, or an address that is no camera's

Messages are made here and nowhere else, from the kind of the failure and never from the text of a library's exception:
PyAV puts the whole URL, with its password, into its own.
"""

from __future__ import annotations

from typing import ClassVar

import av.error


class CameraError(Exception):
    """The camera gives no frames. `state` is its state in `ingest.status`; the message says what was wrong and what to
    do.
    """

    state: ClassVar[str]


class CameraRefused(CameraError):
    """The camera wants another user name or password."""

    state = "refused"


class CameraNotFound(CameraError):
    """The camera has no stream of that name."""

    state = "not_found"


class CameraUnreachable(CameraError):
    """Nobody answers at the address, or who answers speaks no RTSP."""

    state = "unreachable"


class CameraStalled(CameraError):
    """The connection stands, the frames have stopped."""

    state = "stalled"


class CameraUnsupported(CameraError):
    """There is something, but no video that we can decode."""

    state = "unsupported"


def from_open(error: av.error.FFmpegError | OSError, *, server: str, path: str, timeout_s: float) -> CameraError:
    """What a failed `av.open` of `rtsp://<server><path>` means. `server`: host:port, without credentials."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return CameraRefused("401 from the camera: wrong user name or password")
    if isinstance(error, av.error.HTTPForbiddenError):
        return CameraRefused(
            "403 from the camera: this user may not watch the stream; give the user that right on the camera"
        )
    if isinstance(error, av.error.HTTPNotFoundError):
        return CameraNotFound(f"404 from the camera: it has no stream {path or '/'}; check the path of the stream URL")
    if isinstance(error, av.error.HTTPError):
        return CameraUnreachable(
            f"the camera answered with an error ({_http_kind(error)}); check the stream URL, or restart the camera"
        )
    if isinstance(error, av.error.ConnectionRefusedError):
        return CameraUnreachable(
            f"{server} refuses connections; check the address and the port, and that RTSP is switched on"
        )
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return no_answer(server, timeout_s)
    if isinstance(error, av.error.InvalidDataError):
        return CameraUnreachable(
            f"{server} answers, but not with RTSP that can be understood; check the address and the port"
        )
    if isinstance(error, av.error.LookupError | av.error.PatchWelcomeError | av.error.NotImplementedError):
        return CameraUnsupported("the stream is of a kind that cannot be decoded; switch the camera to H.264 or H.265")
    if isinstance(error, av.error.EOFError | av.error.ConnectionResetError | av.error.BrokenPipeError):
        return CameraUnreachable(f"{server} closed the connection before the stream began; look into the camera's log")
    return CameraUnreachable(f"{server} cannot be reached ({_system_kind(error)}); check the address and the network")


def from_read(error: av.error.FFmpegError | OSError, *, stall_s: float) -> CameraError:
    """What a failed read of a running stream means."""
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return stalled(stall_s)
    if isinstance(error, av.error.InvalidDataError):
        return CameraUnreachable("the camera sends data that is no video any more; connecting again")
    return closed()


def no_answer(server: str, timeout_s: float) -> CameraUnreachable:
    """Nothing came back in time."""
    return CameraUnreachable(
        f"no answer from {server} within {timeout_s:g} s; check the address, the network and the camera's power"
    )


def no_such_host(host: str) -> CameraUnreachable:
    """The name has no address."""
    return CameraUnreachable(f"the name {host} is not known here; check the stream URL and the appliance's DNS")


def closed() -> CameraUnreachable:
    """The stream has ended in order."""
    return CameraUnreachable("the camera closed the connection; connecting again")


def stalled(stall_s: float) -> CameraStalled:
    """No frame for `stall_s` seconds."""
    return CameraStalled(f"connected, but no frame for {stall_s:g} s; connecting again")


def _http_kind(error: av.error.HTTPError) -> str:
    if isinstance(error, av.error.HTTPServerError):
        return "5xx"
    return "400" if isinstance(error, av.error.HTTPBadRequestError) else "4xx"


def _system_kind(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    # Only the system's own words for an errno: they hold no address.
    return strerror if isinstance(strerror, str) and "://" not in strerror else type(error).__name__
