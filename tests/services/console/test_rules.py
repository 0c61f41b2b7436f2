"""What the console shows, and what it keeps out of its security policy. Pure."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.v1 import deployments_pb2, logs_metrics_pb2, registry_pb2
from services.console import rules
from services.console.http import security_policy, websocket_origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("ws://192.168.1.20:8555/video/x?token=1", "ws://192.168.1.20:8555"),
        ("wss://appliance.example/video/x", "wss://appliance.example"),
        ("http://192.168.1.20/", None),
        ("ws://a;script-src *:1/", None),
        ("ws://*:8555/", None),
        ("ws://a b:1/", None),
        ("ws://host:99999/", None),
        ("ws://[::1/", None),
        ("", None),
    ],
)
def test_only_a_plain_host_and_port_may_stand_in_the_security_policy(url: str, origin: str | None) -> None:
    assert websocket_origin(url) == origin


def test_the_policy_allows_our_own_files_and_the_given_videos_and_nothing_else() -> None:
    policy = security_policy(["ws://b:1", "ws://a:1", "ws://b:1"])
    assert "connect-src 'self' ws://a:1 ws://b:1;" in policy
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy


def test_statuses_lose_their_prefix_and_absent_is_null() -> None:
    line = rules.application_line(deployments_pb2.ApplicationInstance(application_instance_id="a", status=5))
    assert (line["status"], line["health"], line["name"], line["reason"]) == ("DEPLOYMENT_SUCCEEDED", None, "a", None)
    unknown = registry_pb2.Device(device_id="d")
    unknown.MergeFromString(b"\x28\x63")  # field 5, value 99: of a later version
    assert rules.device_line(unknown)["status"] is None


def test_a_video_address_gets_a_token_unless_it_carries_one() -> None:
    def address(url: str) -> str:
        return str(rules.video(registry_pb2.VideoOutput(websocket_url=url), "t")["websocket_url"])

    assert address("ws://h/v") == "ws://h/v?token=t"
    assert address("ws://h/v?x=1") == "ws://h/v?x=1&token=t"
    assert address("ws://h/v?token=own") == "ws://h/v?token=own"


def test_points_are_averages_in_order_of_time() -> None:
    data = [
        logs_metrics_pb2.Datapoint(timestamp=Timestamp(seconds=20), sum=9, sample_count=3, minimum=1, maximum=5),
        logs_metrics_pb2.Datapoint(timestamp=Timestamp(seconds=10), sum=4, sample_count=2),
    ]
    shown = rules.points(data)
    assert [(point["timestamp_ms"], point["average"]) for point in shown] == [(10_000, 2.0), (20_000, 3.0)]
