"""What can be wrong with a model or a call.

    InferenceError
      ModelError            the model cannot be loaded; `code` is the fleet's reason code
        ModelInvalid        MODEL_INVALID: the file is no model, or not the one its descriptor describes
        ModelUnsupported    MODEL_UNSUPPORTED: a model, of a kind or with operations that this backend does not have
      InvalidInput          a call's tensors are not what the model takes; says what it takes
      FrameGone             the frame that a call names cannot be read (any more); the caller sends its pixels
      DeviceLost            what computes is of no more use in this process: a GPU after a fault; the process is replaced

Each message says what was wrong and what to do; it reaches the application's log, or the status of its deployment.
"""

from __future__ import annotations

from typing import ClassVar

from belvedere.fleet import ReasonCode


class InferenceError(Exception):
    """The root of the tree."""


class ModelError(InferenceError):
    """The model cannot be loaded."""

    code: ClassVar[ReasonCode]


class ModelInvalid(ModelError):
    """The file is no model, or not the one its descriptor describes."""

    code = ReasonCode.MODEL_INVALID


class ModelUnsupported(ModelError):
    """A model that this appliance cannot run."""

    code = ReasonCode.MODEL_UNSUPPORTED


class InvalidInput(InferenceError):
    """Tensors that the model does not take."""


class FrameGone(InferenceError):
    """The frame that a call names cannot be read."""


class DeviceLost(InferenceError):
    """Every further computation on this device would fail, until there is another process."""
