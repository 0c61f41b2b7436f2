"""Values that must not be seen: passwords, keys, tokens.

    password = Secret("hunter2")
    f"{password}"            # '***'
    password.reveal()        # 'hunter2', at the one place that needs it

Must not know where a secret comes from or goes to. `repr`, `str`, `format` and JSON (through `json_default`) give
`***`; pickling is refused, comparing takes constant time.
"""

import hmac
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T", str, bytes)

MASK = "***"


class Secret(Generic[T]):
    """A text or bytes that prints as `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """The value itself. Call it where the value is used, and keep the result in no variable that lives on."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self._value), _as_bytes(other._value))

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand its value over by a channel made for secrets")


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def json_default(value: Any) -> str:
    """For `json.dumps(..., default=json_default)`: secrets become `***`, anything else that JSON lacks its `str`."""
    return str(value)
