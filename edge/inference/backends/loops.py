"""Loops of an OpenVINO graph that run exactly once, without the loop.

TensorFlow's detectors (its Object Detection API) treat each picture of a batch by itself, in a loop before the network and in
another behind it, and resize it to the network's size inside of the first. For one call at a time these are detours: the
sizes in a loop's body are open, so that nothing can be prepared, and a picture of the right size is resized all the same. The
person detector of the examples takes an eighth less without them, and gives the same bits.

That a loop runs once is proven by folding the conditions to constants; one for which that fails stays as it is. Must not
know models or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge.inference.backends.quiet import openvino as ov

# What a loop hands on from one turn to the next, or to every turn, and what its last turn leaves. Slices and concatenations are
# other kinds, which ONNX's loops have: those are left alone.
_PLAIN_INPUTS = ("MergedInputDescription", "InvariantInputDescription")
_PLAIN_OUTPUTS = ("BodyOutputDescription",)
# Of a resize that changes nothing: with these, a pixel's place stays its place where both sizes are equal.
_EXACT_PLACES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def straightened(model: ov.Model) -> ov.Model | None:
    """A copy without loops that run once; None where there is none. The sizes of its inputs must be fixed: the copy is for these
    only.
    """
    kept: set[str] = set()
    while True:
        copy = model.clone()
        names = [loop.get_friendly_name() for loop in _loops(copy)]
        if kept.issuperset(names):
            return None
        # From the first to the last: what one leaves may be what proves the next.
        stays = next(
            (loop for loop in _loops(copy) if loop.get_friendly_name() not in kept and not _inline(copy, loop)), None
        )
        if stays is not None:
            kept.add(stays.get_friendly_name())
            continue
        _fold(copy)
        for resize in [op for op in copy.get_ordered_ops() if op.get_type_name() == "Interpolate"]:
            _leave_out(resize)
        copy.validate_nodes_and_infer_types()
        return copy


def _loops(model: ov.Model) -> Iterator[Any]:
    return (op for op in model.get_ordered_ops() if op.get_type_name() == "Loop")


def _inline(model: ov.Model, loop: Any) -> bool:
    """The body in the loop's place. False where it is not known to run exactly once: then the model is of no more use."""
    inputs, outputs = loop.get_input_descriptions(), loop.get_output_descriptions()
    if any(type(one).__name__ not in _PLAIN_INPUTS for one in inputs):
        return False
    if any(type(one).__name__ not in _PLAIN_OUTPUTS or one.iteration not in (-1, 0) for one in outputs):
        return False
    begins = _constants(model, [loop.input(0).get_source_output(), loop.input(1).get_source_output()])
    if begins is None or begins[0] == 0 or not begins[1]:
        return False
    body = loop.get_function()
    turn, again = loop.get_special_body_ports()
    given = {one.body_parameter_index: loop.input(one.input_index).get_source_output() for one in inputs}
    for number, parameter in enumerate(body.get_parameters()):
        if number == turn:
            shape = parameter.get_output_partial_shape(0)
            zero = np.zeros(shape.to_shape() if shape.is_static else (), parameter.get_element_type().to_dtype())
            given[number] = ov.op.Constant(zero).output(0)
        if number not in given:
            return False
        for place in list(parameter.output(0).get_target_inputs()):
            place.replace_source_output(given[number])
    results = [result.input(0).get_source_output() for result in body.get_results()]
    if begins[0] != 1:
        goes_on = _constants(model, [results[again]])
        if goes_on is None or goes_on[0]:
            return False
    for one in outputs:
        _put_through(loop.output(one.output_index), results[one.body_value_index])
    return True


def _constants(model: ov.Model, ports: Sequence[Any]) -> list[Any] | None:
    """What these always are, as scalars; None where one of them is not known."""
    part = ov.Model(list(ports), model.get_parameters(), "condition")
    _fold(part)
    found = [result.input(0).get_source_output().get_node() for result in part.results]
    if any(node.get_type_name() != "Constant" or node.get_data().size != 1 for node in found):
        return None
    return [node.get_data().item() for node in found]


def _leave_out(resize: Any) -> None:
    """A resize to the size that is there already."""
    attributes = resize.get_attributes()
    before, after = resize.get_input_partial_shape(0), resize.get_output_partial_shape(0)
    same = before.is_static and after.is_static and before == after
    exact = attributes.get("coordinate_transformation_mode") in _EXACT_PLACES
    padded = any(attributes.get("pads_begin", ())) or any(attributes.get("pads_end", ()))
    if same and exact and not padded and attributes.get("shape_calculation_mode") == "sizes":
        _put_through(resize.output(0), resize.input(0).get_source_output())


def _put_through(old: Any, new: Any) -> None:
    """Whoever reads `old` reads `new`, under the same names."""
    places = list(old.get_target_inputs())
    if any(place.get_node().get_type_name() == "Result" for place in places):
        new.add_names(old.get_names())
    for place in places:
        place.replace_source_output(new)


def _fold(model: ov.Model) -> None:
    manager = ov.passes.Manager()
    manager.register_pass(ov.passes.ConstantFolding())
    manager.run_passes(model)
