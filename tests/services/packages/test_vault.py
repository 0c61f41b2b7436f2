"""Camera credentials at rest."""

from pathlib import Path

import pytest

from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError
from services.packages.vault import KEY_FILE, Vault, VaultError


def test_what_is_locked_is_opened_by_the_next_process(tmp_path: Path) -> None:
    blob = Vault(tmp_path).lock(Secret("user-canary"), Secret("pass-canary"))
    assert b"canary" not in blob
    assert Vault(tmp_path).unlock(blob) == (Secret("user-canary"), Secret("pass-canary"))
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_another_key_does_not_open_it(tmp_path: Path) -> None:
    blob = Vault(tmp_path / "a").lock(Secret("u"), Secret("p"))
    with pytest.raises(VaultError, match="Put the right key back"):
        Vault(tmp_path / "b").unlock(blob)


def test_replicas_share_a_key_by_their_settings(tmp_path: Path) -> None:
    key = Secret("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    blob = Vault(tmp_path / "a", key).lock(Secret("u"), Secret("p"))
    assert Vault(tmp_path / "b", key).unlock(blob)[0] == Secret("u")
    with pytest.raises(SettingError, match="CAMERA_KEY"):
        Vault(tmp_path, Secret("short")).lock(Secret("u"), Secret("p"))
