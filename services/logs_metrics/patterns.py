"""CloudWatch Logs' filter patterns: which messages FilterLogEvents returns. Pure.

    matches = compile_pattern('ERROR "not found" -timeout')
    matches("ERROR: page not found")        # True

ERROR WARN      every term is part of the message, upper and lower case as written
"not found"     a phrase; \\" and \\\\ inside stand for themselves
-timeout        not part of the message
?ERROR ?WARN    one of them is; beside other terms they are ignored, as CloudWatch does
{ … }           the message is JSON that fits: `jsonpatterns`

Source: "Filter pattern syntax" of the CloudWatch Logs user guide. Its `[w1, w2]` and `%regular expression%` are not
served: a pattern that begins like one of them is refused.
"""

import re
from collections.abc import Callable

from services.logs_metrics.jsonpatterns import compile_selector, invalid

Matcher = Callable[[str], bool]

_TERM = re.compile(r'\s*([-?]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)', re.DOTALL)


def compile_pattern(pattern: str) -> Matcher:
    """The test of a message. Raises Invalid for what cannot be read or is not served."""
    text = pattern.strip()
    if not text:
        return lambda message: True
    if text.startswith("{"):
        return compile_selector(text)
    if text.startswith(("[", "%")):
        raise invalid("space-delimited patterns and regular expressions are not served here: use terms or { $.member }")
    kinds: dict[str, list[str]] = {"": [], "-": [], "?": []}
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            raise invalid(f"there is no term at character {at + 1}; a quote within a term needs quotes around it")
        sign, phrase, word = match.groups()
        term = re.sub(r"\\(.)", r"\1", phrase, flags=re.DOTALL) if phrase is not None else word
        if term:
            kinds[sign].append(term)
        at = match.end()
    required, excluded, optional = kinds[""], kinds["-"], kinds["?"]
    if not required and not excluded:
        return lambda message: not optional or any(term in message for term in optional)
    return lambda message: all(t in message for t in required) and not any(t in message for t in excluded)
