"""XML as AWS's query and S3 protocols write it. Pure.

document("ListBucketResult", S3_NAMESPACE, [("Name", "b"), ("Contents", [("Key", "k")]), ("Contents", [("Key", "l")])])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias
from xml.etree import ElementTree
from xml.sax.saxutils import escape

Content: TypeAlias = "str | Sequence[tuple[str, Content]]"

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class MalformedXml(Exception):
    """The text is no XML, or XML that is refused."""


def document(root: str, namespace: str | None, content: Content) -> bytes:
    """A whole document. Characters that XML cannot hold become `?`."""
    attribute = f' xmlns="{escape(namespace)}"' if namespace else ""
    body = f"<{root}{attribute}>{_inner(content)}</{root}>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def _inner(content: Content) -> str:
    if isinstance(content, str):
        return escape(_ILLEGAL.sub("?", content))
    return "".join(f"<{name}>{_inner(inner)}</{name}>" for name, inner in content)


def parse(data: bytes) -> ElementTree.Element:
    """The root element, its names and those below without namespaces. Raises MalformedXml.

    Documents with a DOCTYPE are refused: no AWS client sends one, and entities in them can be made to explode.
    """
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise MalformedXml("a DOCTYPE is not allowed")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MalformedXml(str(error)) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
