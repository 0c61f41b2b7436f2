"""Camera credentials at rest: encrypted with a key that lies beside the database, not in it.

Must not know cameras' addresses or who asks.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError

KEY_FILE = "packages-camera.key"


class VaultError(Exception):
    """Stored credentials can't be opened with this key."""


class Vault:
    """Encrypts and opens credentials. The key is read, or made, when it is first needed."""

    def __init__(self, secrets: Path, key: Secret[str] | None = None) -> None:
        """`secrets`: the folder (0700) of the key file. `key`: base64, in place of the file."""
        self._path = secrets / KEY_FILE
        self._given = key
        self._box: SecretBox | None = None

    def lock(self, username: Secret[str], password: Secret[str]) -> bytes:
        """The credentials, encrypted."""
        plain = json.dumps({"username": username.reveal(), "password": password.reveal()}).encode()
        return bytes(self._opened().encrypt(plain))

    def unlock(self, blob: bytes) -> tuple[Secret[str], Secret[str]]:
        """(user name, password). Raises VaultError."""
        try:
            document = json.loads(self._opened().decrypt(blob))
            return Secret(str(document["username"])), Secret(str(document["password"]))
        except (CryptoError, ValueError, KeyError, TypeError):
            raise VaultError(
                f"stored camera credentials can't be opened: {self._path.name} is not the key they were stored with. "
                "Put the right key back, or register the cameras again."
            ) from None

    def _opened(self) -> SecretBox:
        if self._box is None:
            self._box = SecretBox(self._key())
        return self._box

    def _key(self) -> bytes:
        if self._given:
            try:
                key = base64.b64decode(self._given.reveal(), validate=True)
            except ValueError:
                key = b""
            if len(key) != SecretBox.KEY_SIZE:
                raise SettingError("BELVEDERE_PACKAGES_CAMERA_KEY", f"must be base64 of {SecretBox.KEY_SIZE} bytes")
            return key
        if not self._path.exists():
            self._make_key()
        return base64.b64decode(self._path.read_text())

    def _make_key(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes it 0600; linking fails where another process was first, and never leaves half a key.
        handle, name = tempfile.mkstemp(dir=self._path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(base64.b64encode(random(SecretBox.KEY_SIZE)).decode())
                file.flush()
                os.fsync(file.fileno())
            if not self._path.exists():
                Path(name).replace(self._path)
        finally:
            Path(name).unlink(missing_ok=True)
