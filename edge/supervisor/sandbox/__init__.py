"""What an application runs in: one interface, one contract (tests/edge/supervisor/contract*.py), a module for each way
to make one."""

from edge.supervisor.sandbox.base import Bind, Exit, Running, Sandbox, SandboxSpec

__all__ = ["Bind", "Exit", "Running", "Sandbox", "SandboxSpec"]
