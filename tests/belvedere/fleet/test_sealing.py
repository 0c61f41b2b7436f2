"""Camera credentials reach the one device they are meant for, and print nowhere."""

import pytest

from belvedere.chassis.secret import Secret
from belvedere.fleet import SealError, sealing


def test_the_device_opens_what_was_sealed_to_it() -> None:
    private, public = sealing.generate_keys()
    opened = sealing.open(private, sealing.seal(public, Secret("ädmin"), Secret("pä ss")))
    assert (opened.username.reveal(), opened.password.reveal()) == ("ädmin", "pä ss")


def test_another_device_can_not_open_it() -> None:
    _, public = sealing.generate_keys()
    other, _ = sealing.generate_keys()
    with pytest.raises(SealError, match="not sealed to this device"):
        sealing.open(other, sealing.seal(public, Secret("u"), Secret("p")))


def test_a_damaged_blob_is_refused() -> None:
    private, public = sealing.generate_keys()
    blob = bytearray(sealing.seal(public, Secret("u"), Secret("p")))
    blob[-1] ^= 1
    for damaged in (bytes(blob), b"", bytes(blob[:10])):
        with pytest.raises(SealError):
            sealing.open(private, damaged)


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(SealError, match="32"):
        sealing.seal(b"short", Secret("u"), Secret("p"))


def test_neither_sealing_nor_opening_shows_the_credentials() -> None:
    private, public = sealing.generate_keys()
    blob = sealing.seal(public, Secret("user-canary"), Secret("pass-canary"))
    assert b"canary" not in blob
    assert "canary" not in repr(sealing.open(private, blob))
