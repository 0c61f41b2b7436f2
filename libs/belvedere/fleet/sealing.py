"""Camera credentials for one device only: a NaCl sealed box to the device's public key.

The cloud side can seal but not open; what stands in targets, backups and streams is of no use
without the device's private key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from belvedere.fleet.errors import SealError
from belvedere.secret import Secret

KEY_BYTES = 32
"""Length of an X25519 key."""


@dataclass(frozen=True)
class Credentials:
    """What a camera asks for. Both print as ***."""

    username: Secret[str]
    password: Secret[str]


def generate_keys() -> tuple[Secret[bytes], bytes]:
    """A new (private, public) pair, 32 bytes each."""
    private = PrivateKey.generate()
    return Secret(bytes(private)), bytes(private.public_key)


def seal(public_key: bytes, username: Secret[str], password: Secret[str]) -> bytes:
    """Credentials that only the owner of `public_key` can open. Raises SealError where that is no key."""
    plain = json.dumps({"username": username.reveal(), "password": password.reveal()}).encode()
    try:
        return bytes(SealedBox(PublicKey(public_key)).encrypt(plain))
    except (CryptoError, TypeError, ValueError) as error:
        raise SealError(
            f"can't seal to a public key of {len(public_key)} bytes; it must be an X25519 key of {KEY_BYTES}"
        ) from error


def open(private_key: Secret[bytes], blob: bytes) -> Credentials:
    """Opens what `seal` made. Raises SealError where the key is another one or the blob is damaged."""
    try:
        plain = SealedBox(PrivateKey(private_key.reveal())).decrypt(blob)
        document = json.loads(plain)
        return Credentials(Secret(str(document["username"])), Secret(str(document["password"])))
    except (CryptoError, TypeError, ValueError, KeyError):
        # Without the cause: a JSON error carries the text it could not read.
        raise SealError(
            "these camera credentials were not sealed to this device's key, or are damaged; deploy again"
        ) from None
