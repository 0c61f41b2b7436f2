"""What the SDK raises, besides KeyError for a model that the application does not have.

TimeoutError (built in)
└── TimeoutException   no frame, or no answer of a model, within the time given
RuntimeError (built in)
├── NodeError          this process is not an application that Belvedere started, or an input cannot be used
└── ModelError         the model could not be run: .code says why
ValueError             coordinates outside 0..1, an empty put(), an image of the wrong kind
TypeError              put() of something that is no media
"""

from __future__ import annotations


class TimeoutException(TimeoutError):
    """AWS's reference says TimeoutError, its change log TimeoutException: whoever catches either catches this."""


class NodeError(RuntimeError):
    """The node cannot do what it was asked to; the message says what is missing."""


class ModelError(RuntimeError):
    """The model could not be run.

    `code` is one of UNKNOWN_MODEL, LOADING, INVALID_INPUT, FAILED, OVERLOADED, TOO_LARGE, FRAME_GONE.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__("%s: %s" % (code, message))
        self.code = code
