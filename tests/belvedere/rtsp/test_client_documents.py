"""What the client reads and writes besides packets: addresses, descriptions, challenges."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.rtsp import AddressInvalid, ClientError, ProtocolError, StreamUnsupported
from belvedere.rtsp._auth import AuthenticationFailed, Authenticator, Scheme
from belvedere.rtsp._credentials import Credentials, parse_challenges
from belvedere.rtsp._sdp_read import read_sdp
from belvedere.rtsp._target import check_credentials, parse_target, resolve
from belvedere.secret import Secret

SPS, PPS, VPS = b"\x67sps!", b"\x68pps!", b"\x40\x01vps"
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sdp(*lines: str) -> bytes:
    return "\r\n".join(["v=0", "s=x", *lines]).encode()


def test_an_ordinary_description_is_read() -> None:
    media = read_sdp(
        sdp(
            "a=control:rtsp://10.0.0.1/x/",
            "m=audio 0 RTP/AVP 0",
            "a=control:track1",
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            f"a=fmtp:96 packetization-mode=1; profile-level-id=64001f; sprop-parameter-sets={b64(SPS)},{b64(PPS)}",
            "a=control:track2",
        )
    )
    assert (media.codec, media.payload_type, media.clock_rate) == ("h264", 96, 90_000)
    assert (media.control, media.session_control) == ("track2", "rtsp://10.0.0.1/x/")
    assert media.parameter_sets == (SPS, PPS)


def test_the_first_video_that_can_be_taken_is_chosen() -> None:
    media = read_sdp(
        sdp(
            "m=video 0 RTP/AVP 26",
            "a=control:jpeg",
            "m=application 0 RTP/AVP 107",
            "a=rtpmap:107 vnd.onvif.metadata/90000",
            "m=video 0 RTP/AVP 98 97",
            "a=rtpmap:98 MP4V-ES/90000",
            "a=rtpmap:97 h265/90000",
            f"a=fmtp:97 sprop-sps={b64(b'BAsps')};sprop-vps={b64(VPS)}",
            "a=control:hevc",
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
        )
    )
    assert (media.codec, media.payload_type, media.control) == ("hevc", 97, "hevc")
    assert media.parameter_sets == (VPS, b"BAsps")


def test_odd_lines_are_left_out() -> None:
    start = b"\0\0\0\1"
    media = read_sdp(
        b"v=0\nnonsense\n=\na=\na=control\nm=video 0 RTP/AVP 96 x 99999\na=rtpmap:96   H264 / none\n"
        b"a=rtpmap:nonsense\na=fmtp:96 sprop-parameter-sets=!!!!,"
        + b64(start + SPS).rstrip("=").encode()
        + b";;=;x\n\xff"
    )
    assert (media.codec, media.clock_rate, media.control) == ("h264", 90_000, "")
    assert media.parameter_sets == (SPS,)


@pytest.mark.parametrize(
    ("lines", "found", "says"),
    [
        (["m=audio 0 RTP/AVP 8"], ("audio",), "only sound"),
        (["m=video 0 RTP/AVP 31"], ("h261",), "the stream is h261"),
        (["m=video 0 RTP/AVP 96", "a=rtpmap:96 AV1/90000"], ("av1",), "the stream is av1"),
        (["m=application 0 RTP/AVP 96"], ("application",), "no video in it, only application"),
        ([], (), "only nothing"),
    ],
)
def test_what_there_is_instead_is_named(lines: list[str], found: tuple[str, ...], says: str) -> None:
    with pytest.raises(StreamUnsupported, match=says) as failed:
        read_sdp(sdp(*lines))
    assert failed.value.found == found
    assert failed.value.only_sound == (found == ("audio",))


@pytest.mark.parametrize("parameter", ["packetization-mode=2", "sprop-max-don-diff=3"])
def test_interleaved_mode_is_refused(parameter: str) -> None:
    with pytest.raises(StreamUnsupported, match="interleaved mode"):
        read_sdp(sdp("m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000", f"a=fmtp:96 {parameter}"))


@given(st.one_of(st.binary(max_size=300), st.text("vmas=:/ 0123456789\nHrtpmap", max_size=300).map(str.encode)))
def test_no_description_breaks_the_reader(body: bytes) -> None:
    with contextlib.suppress(ProtocolError, StreamUnsupported):  # the two things that it may say
        read_sdp(body)


@pytest.mark.parametrize(
    ("base", "control", "wanted"),
    [
        ("rtsp://h/a/b", "", "rtsp://h/a/b"),
        ("rtsp://h/a/b", "*", "rtsp://h/a/b"),
        ("rtsp://h/a/b", "trackID=1", "rtsp://h/a/b/trackID=1"),
        ("rtsp://h/a/b/", "trackID=1", "rtsp://h/a/b/trackID=1"),
        ("rtsp://h/a?x=1", "trackID=1", "rtsp://h/a?x=1/trackID=1"),
        ("rtsp://h/a", "rtsp://other/t", "rtsp://other/t"),
        ("rtsp://h/a", "/t", "rtsp://h/a/t"),
    ],
)
def test_control_attributes_are_appended_as_cameras_mean_it(base: str, control: str, wanted: str) -> None:
    assert resolve(base, control) == wanted


def test_an_address_is_taken_apart_and_shows_no_credentials() -> None:
    target, user, password = parse_target("rtsp://us%40er:p%3Aa%2Fs s@[::1]:8554/a b/c?key=s%20cret")
    assert (target.host, target.port, target.path) == ("::1", 8554, "/a%20b/c")
    assert (user.reveal(), password.reveal()) == ("us@er", "p:a/s s")
    assert target.reveal() == "rtsp://[::1]:8554/a%20b/c?key=s%20cret"
    assert str(target) == "rtsp://[::1]:8554/a%20b/c"
    assert "cret" not in repr(target)
    assert parse_target("rtsps://camera")[0].port == 322


@pytest.mark.parametrize(
    "url", ["http://x/y", "rtsp://", "rtsp://x:port/", "rtsp://[x/", "rtsp://x:99999/", "", "rtsp://a b/"]
)
def test_what_is_no_address_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(AddressInvalid) as failed:
        parse_target(url)
    assert url in ("", "rtsp://") or url not in str(failed.value)


def test_a_password_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(AddressInvalid):
        check_credentials(Secret("user"), Secret("pass\r\nX: y"))


def answered(authenticator: Authenticator, credentials: Credentials, uri: str, *, basic: bool = True) -> str:
    """The user's name, after as many challenges as it takes."""
    for _ in range(3):
        try:
            return authenticator.check("DESCRIBE", uri, credentials.header("DESCRIBE", uri))
        except AuthenticationFailed as failed:
            headers = [value for _, value in authenticator.challenges(failed.stale)]
            if not credentials.challenged(headers, basic_allowed=basic):
                raise
    raise AssertionError("asked three times")


@given(PLAIN.filter(lambda user: ":" not in user), PLAIN)
def test_any_password_opens_what_it_belongs_to(user: str, password: str) -> None:
    for schemes in (("SHA-256", "MD5"), ("MD5",), ("Basic",)):
        chosen: tuple[Scheme, ...] = schemes
        authenticator = Authenticator({user: Secret(password)}, chosen)
        assert answered(authenticator, Credentials(Secret(user), Secret(password)), "rtsp://h/a") == user
        with pytest.raises(AuthenticationFailed):
            answered(authenticator, Credentials(Secret(user), Secret(password + "x")), "rtsp://h/a")


def test_a_nonce_that_became_too_old_is_replaced() -> None:
    now = [0.0]
    authenticator = Authenticator({"u": Secret("p")}, ("MD5",), clock=lambda: now[0], nonce_lifetime_s=10)
    credentials = Credentials(Secret("u"), Secret("p"))
    assert answered(authenticator, credentials, "rtsp://h/a") == "u"
    now[0] = 60.0
    assert answered(authenticator, credentials, "rtsp://h/a") == "u"


def test_a_password_that_was_taken_and_is_not_any_more_is_tried_once_more_and_then_refused() -> None:
    credentials = Credentials(Secret("u"), Secret("p"))
    challenge = ['Digest realm="r", nonce="1"']
    assert credentials.challenged(challenge, basic_allowed=True)
    credentials.header("OPTIONS", "*")
    credentials.accepted()
    assert credentials.challenged(['Digest realm="r", nonce="2"'], basic_allowed=True)
    credentials.header("OPTIONS", "*")
    assert not credentials.challenged(['Digest realm="r", nonce="3"'], basic_allowed=True)


def test_basic_is_not_answered_where_the_password_must_not_be_shown() -> None:
    credentials = Credentials(Secret("u"), Secret("p"))
    assert not credentials.challenged(['Basic realm="r"'], basic_allowed=False)
    assert credentials.header("OPTIONS", "*") is None


def test_the_examples_of_rfc_7616_and_2069_come_out() -> None:
    credentials = Credentials(Secret("Mufasa"), Secret("Circle Of Life"))
    old = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'
    assert credentials.challenged([old], basic_allowed=True)
    header = credentials.header("GET", "/dir/index.html") or ""
    # The response that RFC 2617's errata give for RFC 2069's way of reckoning.
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in header
    assert 'opaque="5ccc"' in header and "qop" not in header and "algorithm" not in header


@pytest.mark.parametrize(
    ("headers", "algorithms"),
    [
        (['Basic realm="Digest me, please", charset="UTF-8"'], ["Basic"]),
        (['Basic realm="x", Digest realm="y", nonce="n", algorithm=MD5'], ["MD5", "Basic"]),
        (['Digest realm="x", nonce="a"', 'Digest realm="x", nonce="b", algorithm=SHA-256'], ["SHA-256", "MD5"]),
        (['Digest realm="x", nonce="a", algorithm=md5-sess, qop="auth,auth-int"'], ["MD5-SESS"]),
        (['Digest realm="x", nonce="a", algorithm=SHA-512-256'], []),
        (['Digest realm="x", nonce="a", qop="auth-int"'], []),
        (['Digest realm="x"', "Negotiate", "", "Bearer x"], []),
    ],
)
def test_the_strongest_challenge_that_can_be_answered_is_taken(headers: list[str], algorithms: list[str]) -> None:
    assert [challenge.algorithm for challenge in parse_challenges(headers)] == algorithms


@given(st.lists(st.text(max_size=60), max_size=3))
def test_no_challenge_breaks_the_reader(headers: list[str]) -> None:
    credentials = Credentials(Secret("u"), Secret("p"))
    if credentials.challenged(headers, basic_allowed=True):
        assert "\n" not in (credentials.header("OPTIONS", "*") or "").strip()


def test_every_error_of_the_client_is_a_client_error() -> None:
    assert issubclass(AddressInvalid, ClientError) and issubclass(ProtocolError, ClientError)
