"""Forms with a file, as browsers send them."""

from __future__ import annotations

from collections.abc import Mapping

BOUNDARY = "----formBoundary7MA4YWxk"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def encoded(fields: Mapping[str, str], file: bytes, name: str = "a.bin", after: bytes = b"") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    parts.append(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join(parts).encode() + file + b"\r\n" + after + f"--{BOUNDARY}--\r\n".encode()
