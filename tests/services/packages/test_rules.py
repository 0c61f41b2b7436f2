"""Stream addresses, names, status texts: the decisions of the packages service."""

import json

import pytest

from belvedere.chassis.errors import Invalid
from belvedere.graph import parse_package
from services.packages import rules
from services.packages.registering import without_credentials
from tests.support import graphs


@pytest.mark.parametrize(
    ("parameters", "url", "username", "password"),
    [
        ({"StreamUrl": "rtsp://10.0.0.1/live"}, "rtsp://10.0.0.1/live", "", ""),
        ({"StreamUrl": "rtsp://cam:8554/a?b=c", "Username": "u", "Password": "p"}, "rtsp://cam:8554/a?b=c", "u", "p"),
        ({"StreamUrl": "rtsp://u:p%40ss@cam/live"}, "rtsp://cam/live", "u", "p@ss"),
        ({"StreamUrl": "rtsp://u:p@cam/live", "Username": "x", "Password": "y"}, "rtsp://cam/live", "x", "y"),
        ({"StreamUrl": "rtsps://[fe80::1]:322/live"}, "rtsps://[fe80::1]:322/live", "", ""),
        ({"StreamUrl": "rtspu://cam.example/live"}, "rtspu://cam.example/live", "", ""),
    ],
)
def test_credentials_leave_the_address(parameters: dict[str, str], url: str, username: str, password: str) -> None:
    address = rules.camera_address(parameters)
    assert address.stream_url == url
    assert (address.username.reveal(), address.password.reveal()) == (username, password)


@pytest.mark.parametrize(
    "url",
    ["", "http://cam/live", "rtsp://", "rtsp:///live", "cam/live", "rtsp://cam:99999/", "rtsp://cam:0/", "rtsp://ca m/",
     "rtsp://cam\n/", "rtsp://[::1/live", "rtsp://<cam>/", "x" * 3000],
)  # fmt: skip
def test_what_is_no_stream_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.camera_address({"StreamUrl": url, "Password": "canary"})
    assert [path for path, _ in caught.value.fields] == ["TemplateParameters.StreamUrl"]
    assert "canary" not in str(caught.value)


def test_unknown_template_parameters_are_refused() -> None:
    with pytest.raises(Invalid, match="streamurl"):
        rules.camera_address({"streamurl": "rtsp://cam/"})


def test_shown_parameters_hold_no_secret() -> None:
    given = {"StreamUrl": "rtsp://u:p@cam/live", "Username": "u", "Password": "p"}
    address = rules.camera_address(given)
    assert rules.masked_parameters(address.stream_url, given) == {
        "StreamUrl": "rtsp://cam/live",
        "Username": "SAVED_AS_SECRET",
        "Password": "SAVED_AS_SECRET",
    }


def test_a_status_text_says_as_much_as_fits() -> None:
    assert rules.status_text(["one", "two"]) == "one; two"
    long = rules.status_text([f"problem number {number} " + "x" * 60 for number in range(10)])
    assert len(long) <= 255
    assert long.endswith("; and 7 more")
    assert len(rules.status_text(["y" * 400])) == 255
    assert rules.status_text([]) == ""


def test_a_camera_package_of_the_aws_template_loses_its_credentials() -> None:
    package = graphs.camera_package("gate")
    ports = package["nodePackage"]["interfaces"][0]["inputs"]
    for port, value in zip(ports, ["user-canary", "pass-canary", "rtsp://other:canary@cam/live"], strict=True):
        port["default"] = value
    text = json.dumps(package)
    document = parse_package(text)
    camera = rules.document_camera(document)
    assert camera is not None
    assert (camera.username.reveal(), camera.stream_url) == ("user-canary", "rtsp://cam/live")
    kept = without_credentials(text, camera)
    assert "canary" not in kept
    assert parse_package(kept).interfaces[0].inputs[2].default == "rtsp://cam/live"
    assert "canary" not in json.dumps(rules.port_rows(document.interfaces[0])[0][:2])
