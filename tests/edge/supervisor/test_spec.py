"""The description of an application as it comes over the bus."""

from edge.supervisor.spec import Limits, read_apply


def test_an_application_that_comes_without_limits_gets_the_appliances() -> None:
    spec = {"instance_id": "i", "name": "n", "node": "c", "rootfs": "/r", "entry": {}}
    ours = Limits(memory_mb=300)
    silent, stated = read_apply(
        {"applications": [spec, {**spec, "instance_id": "j", "limits": {"memory_mb": 64}}]}, ours
    )
    assert silent.limits == ours
    assert stated.limits == Limits(memory_mb=64)
