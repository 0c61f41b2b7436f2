"""The planner as a table: what is wanted and what is, against the steps that follow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from belvedere.fleet import DesiredState, JobKind, Reason, ReasonCode, Target, TargetJob
from belvedere.graph import Limits, NetworkRule, ResolvedGraph
from edge.agent.plan import (
    ApplyApplications,
    ApplyCameras,
    ApplyModels,
    ApplyOutputs,
    Current,
    FetchAsset,
    FetchGraph,
    RunJob,
    Step,
    model_names,
    plan,
    wanted_sets,
)
from tests.edge.agent.documents import application, camera, digest, graph, target

A = graph()
A_ASSETS = frozenset({digest("c"), digest("d")})
NOTHING = Current(cameras=(), models=(), applications=(), outputs=())
"""An appliance whose processes were told that there is nothing to do."""


def settled(
    wanted: Target, *, graphs: tuple[ResolvedGraph, ...] = (A,), assets: frozenset[str] = A_ASSETS, **more: object
) -> Current:
    """The state in which `wanted` is reached, but for `more`."""
    here = Current(graphs={item.digest(): item for item in graphs}, assets=assets, **more)  # type: ignore[arg-type]
    sets = wanted_sets(wanted, here)
    return replace(
        here,
        cameras=sets.cameras,
        models=sets.models,
        applications=sets.applications,
        outputs=sets.outputs,
        keep=here.keep or sets.keep,
    )


def kinds(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_nothing_wanted_and_nothing_there_needs_no_step() -> None:
    assert plan(target(), NOTHING) == []


def test_processes_that_were_never_told_are_told_even_that_there_is_nothing() -> None:
    assert plan(target(cameras=()), Current()) == [
        ApplyCameras(()),
        ApplyModels(()),
        ApplyOutputs(()),
        ApplyApplications((), ()),
    ]


def test_the_graph_comes_before_everything_that_it_names() -> None:
    assert plan(target(application("i-1", A)), NOTHING) == [FetchGraph(A.digest())]


def test_what_is_being_fetched_is_not_fetched_twice() -> None:
    assert plan(target(application("i-1", A)), replace(NOTHING, busy=frozenset({A.digest()}))) == []


def test_with_the_graph_here_assets_are_fetched_while_the_camera_is_opened_already() -> None:
    steps = plan(target(application("i-1", A)), replace(NOTHING, graphs={A.digest(): A}))
    assert steps[:2] == [FetchAsset(digest("c")), FetchAsset(digest("d"))]
    assert kinds(steps[2:]) == ["ApplyCameras"]


def test_a_model_is_loaded_as_soon_as_it_is_here_though_the_code_is_not() -> None:
    steps = plan(
        target(application("i-1", A)), replace(NOTHING, graphs={A.digest(): A}, assets=frozenset({digest("d")}))
    )
    assert kinds(steps) == ["FetchAsset", "ApplyCameras", "ApplyModels"]


def test_with_everything_here_each_process_gets_its_whole_set_and_the_applications_come_last() -> None:
    here = replace(NOTHING, graphs={A.digest(): A}, assets=A_ASSETS)
    steps = plan(target(application("i-1", A)), here)
    assert kinds(steps) == ["ApplyCameras", "ApplyModels", "ApplyOutputs", "ApplyApplications"]
    (started,) = steps[-1].applications  # type: ignore[union-attr]
    assert started.spec["inputs"] == {
        "video_in": {"type": "media", "streams": [{"camera_id": "door-1.0-aaaaaaaa", "stream_id": "front"}]},
        "threshold": {"type": "float32", "value": 0.5},
    }
    assert started.spec["outputs"] == {"video_out": {"type": "media", "connected": True}}


def test_the_reached_target_needs_no_step() -> None:
    wanted = target(application("i-1", A))
    assert plan(wanted, settled(wanted)) == []


def test_an_application_waits_for_a_camera_that_the_target_does_not_have_yet() -> None:
    here = replace(NOTHING, graphs={A.digest(): A}, assets=A_ASSETS)
    assert kinds(plan(target(application("i-1", A), cameras=()), here)) == ["ApplyModels"]


def test_two_applications_on_one_camera_and_one_model_share_both() -> None:
    B = graph(code="e")
    wanted = target(application("i-1", A), application("i-2", B))
    sets = wanted_sets(wanted, settled(wanted, graphs=(A, B), assets=A_ASSETS | {digest("e")}))
    assert (len(sets.cameras), len(sets.models), len(sets.applications), len(sets.outputs)) == (1, 1, 2, 2)


def test_a_removed_application_leaves_every_set() -> None:
    before = target(application("i-1", A))
    removed = target(application("i-1", A, desired=DesiredState.REMOVED))
    assert plan(removed, settled(before)) == [
        ApplyCameras(()),
        ApplyModels(()),
        ApplyOutputs(()),
        ApplyApplications((), ()),
    ]


class TestReplacement:
    """i-2 replaces i-1, which the cloud has marked as removed."""

    B = graph(code="e")
    before = target(application("i-1", A))
    wanted = target(
        application("i-1", A, desired=DesiredState.REMOVED), application("i-2", B, replaces="i-1"), version=2
    )

    def test_the_old_one_runs_on_while_the_new_ones_assets_are_on_their_way(self) -> None:
        assert plan(self.wanted, settled(self.before)) == [FetchGraph(self.B.digest())]

    def test_both_run_until_the_new_one_has_delivered(self) -> None:
        here = replace(settled(self.before, graphs=(A, self.B)), assets=A_ASSETS | {digest("e")})
        steps = plan(self.wanted, here)
        assert kinds(steps) == ["ApplyModels", "ApplyOutputs", "ApplyApplications"]
        assert [item.instance_id for item in steps[-1].applications] == ["i-1", "i-2"]  # type: ignore[union-attr]

    def test_the_old_one_goes_with_the_new_ones_first_output(self) -> None:
        here = settled(self.wanted, graphs=(A, self.B), assets=A_ASSETS | {digest("e")})
        steps = plan(self.wanted, replace(here, delivered=frozenset({"i-2"})))
        assert kinds(steps) == ["ApplyModels", "ApplyOutputs", "ApplyApplications"]
        assert [item.instance_id for item in steps[-1].applications] == ["i-2"]  # type: ignore[union-attr]

    def test_an_old_one_that_was_dropped_does_not_come_back_when_the_new_one_fails_later(self) -> None:
        here = settled(self.wanted, graphs=(A, self.B), assets=A_ASSETS | {digest("e")}, delivered=frozenset({"i-2"}))
        assert plan(self.wanted, here) == []

    def test_a_restarted_appliance_brings_the_old_one_back_too_while_the_new_one_never_delivered(self) -> None:
        fresh = Current(graphs={A.digest(): A, self.B.digest(): self.B}, assets=A_ASSETS | {digest("e")})
        assert [app.instance_id for app in wanted_sets(self.wanted, fresh).applications] == ["i-1", "i-2"]

    def test_a_new_one_that_was_given_up_leaves_and_the_old_one_stays(self) -> None:
        here = settled(self.wanted, graphs=(A, self.B), assets=A_ASSETS | {digest("e")})
        given_up = replace(here, given_up={"i-2": Reason(ReasonCode.APP_EXITED, "exit code 1")})
        steps = plan(self.wanted, given_up)
        assert kinds(steps) == ["ApplyModels", "ApplyOutputs", "ApplyApplications"]
        assert [item.instance_id for item in steps[-1].applications] == ["i-1"]  # type: ignore[union-attr]
        assert steps[-1].keep == ("i-1",)  # type: ignore[union-attr]
        # The cloud takes the new one out and wants the old one again: nothing is left to do.
        sets = wanted_sets(self.before, given_up)
        settled_again = replace(
            given_up, models=sets.models, applications=sets.applications, outputs=sets.outputs, keep=("i-1",)
        )
        assert plan(replace(self.before, version=3), settled_again) == []

    def test_with_nothing_left_to_go_back_to_a_new_one_is_never_left_out(self) -> None:
        alone = target(application("i-2", self.B, replaces="i-1"), version=3)
        here = Current(graphs={self.B.digest(): self.B}, assets=A_ASSETS | {digest("e")})
        here = replace(here, given_up={"i-2": Reason(ReasonCode.APP_EXITED, "exit code 1")})
        assert [app.instance_id for app in wanted_sets(alone, here).applications] == ["i-2"]

    def test_the_new_one_is_told_whose_storage_it_takes_over_and_both_keep_it(self) -> None:
        here = settled(self.wanted, graphs=(A, self.B), assets=A_ASSETS | {digest("e")})
        sets = wanted_sets(self.wanted, here)
        assert [app.spec["replaces"] for app in sets.applications] == ["", "i-1"]
        assert sets.keep == ("i-1", "i-2")


def test_storage_stays_with_what_is_stopped_and_goes_with_what_is_removed() -> None:
    stopped = target(application("i-1", A, desired=DesiredState.STOPPED))
    assert wanted_sets(stopped, settled(stopped)).keep == ("i-1",)
    removed = target(application("i-1", A, desired=DesiredState.REMOVED))
    assert plan(removed, settled(stopped, keep=("i-1",))) == [ApplyApplications((), ())]
    assert wanted_sets(Target("device-test"), Current()).keep is None, "nobody has said yet what is to be here"


def test_a_paused_camera_is_named_to_the_application_that_has_it_paused() -> None:
    wanted = target(application("i-1", A, paused=("front",)), application("i-2", A))
    apps = wanted_sets(wanted, Current(graphs={A.digest(): A}, assets=A_ASSETS)).applications
    assert [app.spec["paused"] for app in apps] == [["door-1.0-aaaaaaaa"], []]


def test_a_camera_rests_only_when_every_application_has_it_paused() -> None:
    B = graph(code="e")
    here = Current(graphs={A.digest(): A, B.digest(): B}, assets=A_ASSETS | {digest("e")})
    one = target(application("i-1", A, paused=("front",)), application("i-2", B))
    both = target(application("i-1", A, paused=("front",)), application("i-2", B, paused=("front",)))
    assert [item.paused for item in wanted_sets(one, here).cameras] == [False]
    assert [item.paused for item in wanted_sets(both, here).cameras] == [True]


def test_new_credentials_of_a_camera_reach_ingest_and_nobody_else() -> None:
    before = target(application("i-1", A))
    changed = target(application("i-1", A), cameras=(replace(camera(), sealed_credentials="bmV3"),))
    assert kinds(plan(changed, settled(before))) == ["ApplyCameras"]


def test_a_process_that_started_anew_is_told_again_and_the_others_are_not() -> None:
    wanted = target(application("i-1", A))
    assert kinds(plan(wanted, replace(settled(wanted), models=None))) == ["ApplyModels"]


def test_a_graph_of_cameras_only_opens_them_and_starts_nothing() -> None:
    only = replace(A, code=(), models=(), displays=(), parameters=(), edges=())
    here = replace(NOTHING, graphs={only.digest(): only})
    assert kinds(plan(target(application("i-1", only)), here)) == ["ApplyCameras"]


def test_a_job_is_run_once() -> None:
    job = TargetJob("job-1", JobKind.REBOOT)
    wanted = replace(target(), jobs=(job,))
    assert plan(wanted, NOTHING) == [RunJob(job)]
    assert plan(wanted, replace(NOTHING, jobs=frozenset({"job-1"}))) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_same_question_always_gets_the_same_answer(seed: int) -> None:
    wanted = target(*(application(f"i-{number}", A) for number in range(seed + 1)))
    here = replace(NOTHING, graphs={A.digest(): A}, assets=A_ASSETS)
    assert plan(wanted, here) == plan(wanted, here)


def test_open_ports_and_what_the_package_asks_for_reach_the_supervisor_and_nothing_is_said_where_it_asks_for_nothing() -> (
    None
):
    code = replace(A.code[0], limits=Limits(memory_mb=256, cpu=0.5))
    asking = replace(
        A, code=(code,), network_rules=(NetworkRule("code_node", 8080, 8001), NetworkRule("other", 1, 8002))
    )
    wanted = target(application("a", A), application("b", asking))
    (plain, limited) = settled(wanted, graphs=(A, asking)).applications or ()
    assert plain.spec["ports"] == [] and "limits" not in plain.spec
    assert limited.spec["ports"] == [{"host_port": 8001, "container_port": 8080, "protocol": "tcp"}]
    assert limited.spec["limits"] == {"memory_mb": 256, "cpu": 0.5}


def test_a_model_is_known_by_the_names_that_running_applications_call_it_by() -> None:
    here = Current(graphs={A.digest(): A})
    (model,) = A.models
    assert model_names(target(application("i-1", A), application("i-2", A)), here) == {model.model_id: ["detector"]}
    assert model_names(target(), here) == {}
