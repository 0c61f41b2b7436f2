"""JSON of strangers, read no deeper than documents are.

`json.loads` goes down as far as Python lets it and fails at the very bottom. If the collector runs there, as it may, the finalisers
of whatever it finds have no room left: they fail, and what they would have let go stays. So what is nested too deeply is refused
before anything goes down into it. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

NESTED_MAX = 200
"""Arrays and objects within each other. No document that is known has twenty."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def loads(text: str | bytes, **how: Any) -> Any:
    """`json.loads(text, **how)`. ValueError where it is no JSON; RecursionError where it is nested deeper than NESTED_MAX."""
    array, thing = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    # Nearly always there are fewer brackets than levels are allowed.
    if text.count(array) + text.count(thing) > NESTED_MAX and _depth(text) > NESTED_MAX:  # type: ignore[arg-type]
        raise RecursionError(f"nested deeper than {NESTED_MAX} levels")
    return json.loads(text, **how)


def _depth(text: str | bytes) -> int:
    """How deep it is nested, as far as it is JSON."""
    import numpy as np

    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NO_BRACKETS), np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opening, 1, -1), dtype=np.int64).max(initial=0))
