"""Loops that run once, and those that do not, in graphs of OpenVINO's own operations; computed by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edge.inference.backends.loops import straightened
from edge.inference.backends.quiet import openvino as ov

ops: Any = pytest.importorskip("openvino.opset13")  # behind the line that keeps it from reporting itself

ENDLESS = -1


def looped(x: Any, limit: Any, trips: int = ENDLESS, begins: Any = True) -> Any:
    """x · 3 in each turn, while the turn's number is below `limit`: as TensorFlow's `while` comes out."""
    number = ops.parameter([], np.int32, name="number")
    value = ops.parameter([-1, -1], np.float32, name="value")
    bound = ops.parameter([], np.int32, name="bound")
    after = ops.add(number, ops.constant(1, np.int32))
    tripled = ops.multiply(value, ops.constant(3.0, np.float32))
    body = ov.Model([ops.less(after, bound), after, tripled], [number, value, bound], "body")
    start = ops.constant(begins) if isinstance(begins, bool) else begins
    loop = ops.loop(ops.constant(trips, np.int32), start)
    loop.set_function(body)
    loop.set_special_body_ports([-1, 0])
    loop.set_merged_input(number, ops.constant(0, np.int32).output(0), after.output(0))
    loop.set_merged_input(value, x if isinstance(x, ov.Output) else x.output(0), tripled.output(0))
    loop.set_invariant_input(bound, limit.output(0))
    return loop.get_iter_value(tripled.output(0), -1)


def model(build: Callable[[Any], Any], shape: Sequence[int] = (1, 2)) -> ov.Model:
    """x float32 → answer."""
    x = ops.parameter(list(shape), np.float32, name="x")
    answer = ops.result(build(x))
    answer.output(0).get_node().input(0).get_source_output().set_names({"answer"})
    return ov.Model([answer], [x], "test")


def rows_of(x: Any) -> Any:
    """How many pictures: what a loop over a batch goes by."""
    sizes = ops.convert(ops.shape_of(x), np.int32)
    return ops.squeeze(ops.gather(sizes, ops.constant([0], np.int32), ops.constant(0, np.int32)), ops.constant([0]))


def kinds(graph: ov.Model) -> list[str]:
    return [op.get_type_name() for op in graph.get_ordered_ops()]


def answer(graph: ov.Model, x: Any) -> Any:
    return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": x})["answer"]


def test_a_loop_over_a_batch_of_one_is_left_out_and_the_answer_is_the_same() -> None:
    given = model(lambda x: looped(x, rows_of(x)))
    straight = straightened(given)
    assert straight is not None and "Loop" in kinds(given) and "Loop" not in kinds(straight)
    x = np.array([[0.1, -2.7]], np.float32)
    assert np.array_equal(answer(straight, x), answer(given, x)) and np.array_equal(
        answer(straight, x), x * np.float32(3)
    )


def test_a_loop_that_runs_more_than_once_stays() -> None:
    assert straightened(model(lambda x: looped(x, rows_of(x)), (2, 2))) is None


def test_a_loop_that_is_told_to_run_once_is_left_out_whatever_its_condition_says() -> None:
    straight = straightened(model(lambda x: looped(x, ops.constant(5, np.int32), trips=1)))
    assert straight is not None and "Loop" not in kinds(straight)
    assert answer(straight, np.ones((1, 2), np.float32)).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize("why", ["never begins", "begins by the input", "ends by the input", "no turns"])
def test_a_loop_that_is_not_known_to_run_once_stays(why: str) -> None:
    def build(x: Any) -> Any:
        sums = ops.reduce_sum(x, ops.constant([0, 1]))
        if why == "never begins":
            return looped(x, ops.constant(1, np.int32), begins=False)
        if why == "begins by the input":
            return looped(x, ops.constant(1, np.int32), begins=ops.greater(sums, ops.constant(0.0, np.float32)))
        if why == "ends by the input":
            return looped(x, ops.convert(sums, np.int32))
        return looped(x, ops.constant(1, np.int32), trips=0)

    assert straightened(model(build)) is None


def test_of_two_loops_the_one_that_runs_once_is_left_out() -> None:
    given = model(lambda x: looped(looped(x, ops.constant(4, np.int32)), rows_of(x)))
    straight = straightened(given)
    assert straight is not None and kinds(straight).count("Loop") == 1
    x = np.array([[0.3, 7.0]], np.float32)
    assert np.array_equal(answer(straight, x), answer(given, x))


def test_a_graph_without_loops_is_not_copied() -> None:
    assert straightened(model(lambda x: ops.relu(x))) is None


@pytest.mark.parametrize(
    ("size", "stays"), [((4, 4), False), ((8, 8), True)], ids=["to the size it has", "to another size"]
)
def test_a_resize_within_such_a_loop_is_left_out_where_it_changes_nothing(size: tuple[int, int], stays: bool) -> None:
    def build(x: Any) -> Any:
        picture = ops.reshape(looped(x, rows_of(x)), ops.constant([1, 1, 4, 4]), False)
        return ops.interpolate(
            picture,
            ops.constant(np.array(size, np.int32)),
            mode="linear",
            shape_calculation_mode="sizes",
            coordinate_transformation_mode="asymmetric",
            axes=ops.constant([2, 3]),
        )

    given = model(build, (1, 16))
    straight = straightened(given)
    assert straight is not None and ("Interpolate" in kinds(straight)) is stays
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    assert np.array_equal(answer(straight, x), answer(given, x))
