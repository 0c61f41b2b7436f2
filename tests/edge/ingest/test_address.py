import pytest

from edge.ingest.address import Address
from edge.ingest.errors import CameraUnsupported

SECRETS = ("p@ss/w:rd", "p%40ss%2Fw%3Ard", "top-user", "token=abc")


def test_credentials_are_put_into_the_url_quoted() -> None:
    address = Address.parse("rtsp://10.0.0.5/live", "admin", "a/b@c:d#e")
    assert address.reveal() == "rtsp://admin:a%2Fb%40c%3Ad%23e@10.0.0.5:554/live"


def test_credentials_inside_the_url_are_used_where_none_are_given_beside_it() -> None:
    assert Address.parse("rtsp://u:p%40@host:8554/x").reveal() == "rtsp://u:p%40@host:8554/x"
    assert Address.parse("rtsp://old:older@host/x", "new", "newer").reveal() == "rtsp://new:newer@host:554/x"


def test_a_url_without_credentials_has_none() -> None:
    assert Address.parse("rtsp://host").reveal() == "rtsp://host:554/"


def test_an_ipv6_host_keeps_its_brackets() -> None:
    assert Address.parse("rtsp://[fe80::1]:8554/x").reveal() == "rtsp://[fe80::1]:8554/x"


def test_nothing_but_reveal_shows_the_credentials() -> None:
    address = Address.parse("rtsp://host/x?token=abc", "top-user", "p@ss/w:rd")
    shown = f"{address} {address!r} {address.server} {address.path}"
    assert not [secret for secret in SECRETS if secret in shown]
    assert address.reveal() == "rtsp://top-user:p%40ss%2Fw%3Ard@host:554/x?token=abc"


def test_a_text_is_rid_of_the_credentials_however_they_are_written() -> None:
    address = Address.parse("rtsp://host/x?token=abc", "top-user", "p@ss/w:rd")
    text = f"cannot open {address.reveal()} as top-user with p@ss/w:rd (p%40ss%2Fw%3Ard), token=abc"
    assert not [secret for secret in SECRETS if secret in address.redact(text)]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host/video.mjpg", "must begin with rtsp:// or rtsps://"),
        ("file:///etc/passwd", "must begin with rtsp:// or rtsps://"),
        ("/data/clip.mp4", "must begin with rtsp:// or rtsps://"),
        ("rtsp:///x", "names no host"),
        ("rtsp://user:secret-port@host:99999/x", "cannot be read"),
        ("rtsp://[::1/x", "cannot be read"),
        ("", "must begin with rtsp:// or rtsps://"),
    ],
)
def test_what_is_no_camera_address_is_refused_with_what_it_must_look_like(url: str, says: str) -> None:
    with pytest.raises(CameraUnsupported, match=says) as caught:
        Address.parse(url)
    assert "secret-port" not in str(caught.value)


def test_a_scheme_may_say_how_the_camera_sends() -> None:
    for scheme, transport in (("rtspu", "udp"), ("rtspt", "tcp"), ("rtsp", None), ("rtsps", None)):
        address = Address.parse(f"{scheme}://user:word@camera/live?x=1")
        assert address.transport == transport
        wanted = "rtsps" if scheme == "rtsps" else "rtsp"
        assert address.reveal().startswith(f"{wanted}://user:word@camera:")
