"""What can be wrong with a camera, each with the state and the sentence that reach its user.

    CameraError
      CameraRefused       401, 403: wrong user name or password, or one that may not watch
      CameraNotFound      404: the camera is there, the stream is not
      CameraUnreachable   no answer, or one that is no RTSP
      CameraStalled       connected, but no frames
      CameraUnsupported   no video in it that we can decode, or an address that is no camera's

Messages hold no credentials: they are made here, or are those of `belvedere.rtsp`, which holds to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from belvedere.rtsp import (
    AddressInvalid,
    ClientError,
    ReceiverStats,
    ServerFailed,
    ServerUnreachable,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamStalled,
    StreamUnsupported,
)

if TYPE_CHECKING:
    from edge.ingest.address import Address
    from edge.ingest.settings import Settings


LOSS_WORTH_A_WORD = 0.02
"""The share of lost packets from which on a camera without frames is explained by them."""


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


def from_client(error: ClientError, *, address: Address, settings: Settings) -> CameraError:
    """What the failure of the client that reads `address` means."""
    server = address.server
    if isinstance(error, StreamRefused):
        if error.status == 403:
            return CameraRefused(
                "403 from the camera: this user may not watch the stream; give the user that right on the camera"
            )
        return CameraRefused("401 from the camera: wrong user name or password")
    if isinstance(error, StreamNotFound):
        return CameraNotFound(f"404 from the camera: it has no stream {address.path}; check the path of the stream URL")
    if isinstance(error, StreamStalled):
        return stalled(settings.stall_s)
    if isinstance(error, StreamEnded):
        return CameraUnreachable("the camera closed the connection; connecting again")
    if isinstance(error, StreamUnsupported):
        return _unsupported(error)
    if isinstance(error, ServerFailed):
        return CameraUnreachable(
            f"the camera answered with an error ({error.status}); check the stream URL, or restart the camera"
        )
    if isinstance(error, ServerUnreachable):
        return _unreachable(error, address, settings)
    if isinstance(error, AddressInvalid):
        return CameraUnsupported(f"{error}")
    return CameraUnreachable(
        f"{server} answers, but not with RTSP that can be understood ({error}); check the address and the port"
    )


def stalled(stall_s: float, stats: ReceiverStats | None = None) -> CameraStalled:
    """No frame for `stall_s` seconds. `stats`: of the connection; where much was lost on the way, that is why."""
    message = f"connected, but no frame for {stall_s:g} s; connecting again"
    if stats is not None and stats.lost_packets > stats.packets * LOSS_WORTH_A_WORD:
        share = stats.lost_packets / (stats.lost_packets + stats.packets)
        message += f" ({share:.0%} of its packets are lost on the way: check the network)"
    return CameraStalled(message)


def no_picture_yet(waited_s: float, settings: Settings) -> str:
    """The reason of a camera that sends nothing after it was asked to play."""
    return (
        f"connected, but no picture for {waited_s:.0f} s; waiting up to {settings.first_frame_s:g} s for the first one"
    )


def no_key_frame_yet(waited_s: float, settings: Settings) -> str:
    """The reason of a camera that is in the middle of a group of pictures."""
    return (
        f"connected, but no key frame for {waited_s:.0f} s; waiting up to {settings.first_frame_s:g} s for it "
        "(set the camera to one every few seconds)"
    )


def _unreachable(error: ServerUnreachable, address: Address, settings: Settings) -> CameraUnreachable:
    server = address.server
    match error.kind:
        case "name":
            says = f"the name {address.host} is not known here; check the stream URL and the appliance's DNS"
        case "timeout":
            says = f"no answer from {server}; check the address, the network and the camera's power"
        case _:
            says = str(error)
    return CameraUnreachable(says)


def _unsupported(error: StreamUnsupported) -> CameraUnsupported:
    if error.only_sound:
        return CameraUnsupported(f"{error}; check the path of the stream URL")
    if error.found:
        return CameraUnsupported(
            f"the camera sends {', '.join(error.found)}; switch its stream to H.264, H.265 or MJPEG"
        )
    return CameraUnsupported(str(error))
