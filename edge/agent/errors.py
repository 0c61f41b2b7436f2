"""The agent's errors.

AgentError
├── BundleError        the provisioning bundle cannot be used
├── EnrolmentError     the cloud side refused or could not be reached
├── NotEnrolled        the data folder belongs to no device yet
└── AssetError         an asset could not be fetched or did not verify
"""

from __future__ import annotations


class AgentError(Exception):
    """Something the agent could not do."""


class BundleError(AgentError):
    """The provisioning bundle is missing, damaged or has expired."""


class EnrolmentError(AgentError):
    """The cloud side refused the enrolment, or nothing answered at its address."""


class NotEnrolled(AgentError):
    """The data folder belongs to no device yet; start once with a bundle."""


class LeaseRefused(AgentError):
    """The lease could not be renewed: refused, or nobody there to ask."""


class AssetError(AgentError):
    """An asset could not be fetched, or what came is not what its digest says."""

    def __init__(self, digest: str, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.digest = digest
        self.invalid = invalid
