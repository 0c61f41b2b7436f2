"""Errors of the fleet documents.

RecordError (belvedere.records)
 └ DocumentError    a target or reported document can't be read; names the place
FleetError
 └ SealError        sealed credentials can't be opened with this key
"""

from belvedere.records import RecordError


class DocumentError(RecordError):
    """A target or reported document can't be read; `place` and `problem` say where and why."""


class FleetError(Exception):
    """Base of the other errors of this package."""


class SealError(FleetError):
    """Sealed camera credentials can't be opened: they were sealed to another key, or are damaged."""
