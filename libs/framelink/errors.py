"""What can go wrong in framelink.

FramelinkError
├── NoMemory            the ring does not fit into this machine's (or this sandbox's) memory
├── NotSealed           a descriptor that was handed over is not sealed shared memory of the promised size
├── WireError           a message does not follow the protocol
├── LayoutError         a picture does not fit its slot, or its geometry makes no sense   (also a ValueError)
├── TensorError         tensors that cannot be sent, or bytes that are no tensors          (also a ValueError)
├── AddressTaken        another process serves this socket path
├── RingGone            the process at the other end has ended or has closed us            (also a ConnectionError)
│   └── RingAbsent      nobody serves this socket path yet
├── FrameTimeout        no new frame within the time given                                 (also a TimeoutError)
├── CallError           the server answered a call with an error: .code and .message
└── CallTimeout         no answer to a call within the time given                          (also a TimeoutError)
"""

from __future__ import annotations


class FramelinkError(Exception):
    """The root of the tree: catches everything that framelink raises by itself."""


class NoMemory(FramelinkError):
    """The shared memory asked for does not fit. Raised before anything is touched, so no process dies of it."""


class NotSealed(FramelinkError):
    """The descriptor received cannot be trusted: mapping it could end in a bus error or in changing pixels."""


class WireError(FramelinkError):
    """A message of the wrong size, magic, version, kind or content. The connection it came from is closed."""


class LayoutError(FramelinkError, ValueError):
    """Width, height, pixel format or size of a picture do not fit together or do not fit into the slot."""


class TensorError(FramelinkError, ValueError):
    """Tensors outside the limits of `framelink.tensors`, or a header that contradicts itself."""


class AddressTaken(FramelinkError):
    """A living process already listens on this path."""


class RingGone(FramelinkError, ConnectionError):
    """The other end is gone. Frames already taken stay readable; `reconnect()` waits for its successor."""


class RingAbsent(RingGone):
    """There is no one at this path, and nobody came within the time given."""


class FrameTimeout(FramelinkError, TimeoutError):
    """No frame newer than the last one came within the time given."""


class CallError(FramelinkError):
    """The answer to a call is an error.

    `code` is one of UNKNOWN_MODEL, LOADING, INVALID_INPUT, FAILED, OVERLOADED, TOO_LARGE, FRAME_GONE; `message` is for
    a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__("%s: %s" % (code, message))
        self.code = code
        self.message = message


class ServerGone(CallError):
    """The server ended, or closed the connection, before it answered. The next call connects to its successor."""

    def __init__(self, message: str) -> None:
        super().__init__("FAILED", message)


class CallTimeout(FramelinkError, TimeoutError):
    """No answer within the time given. The late answer, if one comes, is thrown away."""
