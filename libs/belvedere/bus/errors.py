"""What can go wrong on the bus.

BusError                     anything below
├── Disconnected             no connection within the time allowed; the bus goes on trying by itself
├── Refused                  the server does not accept these credentials (revoked, expired, unknown)
├── RequestTimeout           the request was delivered, nobody answered in time
├── NoResponders             nobody listens there: the device is away, or the service is not running
├── StreamError              JetStream said no (`code`: its error code, `description`: its words)
│   ├── WrongRevision        the key was changed by somebody else since it was read
│   └── StreamNotFound       no such stream, bucket or consumer
├── ServerFailed             a nats-server of ours did not start, or ended
└── InvalidDocument          an envelope or a stored document that cannot be read
"""

from __future__ import annotations


class BusError(Exception):
    """Base of everything the bus raises."""


class Disconnected(BusError):
    """No connection to the server within the time allowed; it is still being tried."""


class Refused(BusError):
    """The server does not accept these credentials."""


class RequestTimeout(BusError):
    """A request got no answer in time."""


class NoResponders(BusError):
    """Nobody listens on the subject of a request."""


class StreamError(BusError):
    """JetStream refused; `code` is its error code (err_code), `description` its words."""

    def __init__(self, code: int, description: str, what: str) -> None:
        super().__init__(f"{what}: {description} (JetStream {code})")
        self.code = code
        self.description = description


class WrongRevision(StreamError):
    """The key was written by somebody else since the expected revision: read it again and repeat."""


class StreamNotFound(StreamError):
    """The stream, bucket or consumer does not exist: `streams.ensure` has not run on this hub."""


class ServerFailed(BusError):
    """A nats-server child did not start or ended; the message carries its last lines."""


class InvalidDocument(BusError):
    """An event or document on the bus that is not what it says it is."""
