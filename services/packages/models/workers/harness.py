"""What every conversion does around its framework: read the request, compare the answers, write the result.

    request   {"model": path, "kind": text, "inputs": [{"name", "shape", "dtype"}], "output": path of the .onnx to make}
    result    {"ok": true, "converted": bool, "difference": number | null, "outputs": [name], "operators": count, "batches": bool}
              {"ok": false, "message": what is wrong and what to do}

The model that was given and the one that was made get the same random input. Only where their answers agree is it accepted.
Must not know any framework.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

OPSET = 17
"""Of ONNX: read by every backend, new enough for LayerNormalization."""
TOLERANCE = 1e-3
"""Largest difference that is accepted, of the largest number in the output: float32 in another order of sums gives 1e-6 to 1e-4."""
SEED = 20
CALLS = 3
"""That are computed together in the check of a model which takes several."""
DYNAMIC_SIZE = 2
"""What a dimension of any size has in the check; the first one, the batch, has 1."""

Array = NDArray[Any]


class ConversionRefused(Exception):
    """The model can't be converted; the message says why and what to do."""


@dataclass(frozen=True)
class Input:
    """One input as its descriptor says. -1 in `shape`: any size."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def sample(self, random: np.random.Generator) -> Array:
        """Random numbers as a picture's: 0..255 for whole numbers, a normal distribution for the others."""
        shape = [size if size > 0 else (DYNAMIC_SIZE if place else 1) for place, size in enumerate(self.shape)]
        if self.dtype == "bool":
            return random.integers(0, 2, shape).astype(bool)
        if np.dtype(self.dtype).kind in "iu":
            top = min(255, int(np.iinfo(self.dtype).max))
            return random.integers(0, top, shape, endpoint=True).astype(self.dtype)
        return random.standard_normal(shape).astype(self.dtype)


class Original(ABC):
    """A model in its own framework."""

    keeps_file = False
    """It is ONNX already: there is nothing to make."""

    @abstractmethod
    def run(self, values: Sequence[Array]) -> list[Array]:
        """Its outputs for the inputs, in the descriptor's order."""

    @abstractmethod
    def export(self, path: Path) -> None:
        """Writes it as ONNX. Raises ConversionRefused."""

    def export_for_batches(self, path: Path) -> bool:
        """Writes it as ONNX with the size of the first axis left open, whatever the descriptor says of it. False where its exporter
        is not asked for that; whatever it raises says that it can't be done.
        """
        return False


def main(load: Callable[[Path, str, list[Input]], Original]) -> None:
    """One conversion. Exit status 0 also where the model is refused: the result says so."""
    request = json.loads(Path(sys.argv[1]).read_text())
    try:
        result = _convert(request, load)
    except ConversionRefused as error:
        result = {"ok": False, "message": str(error)}
    Path(sys.argv[2]).write_text(json.dumps(result))


def _convert(request: dict[str, Any], load: Callable[[Path, str, list[Input]], Original]) -> dict[str, Any]:
    inputs = [Input(row["name"], tuple(row["shape"]), row["dtype"]) for row in request["inputs"]]
    output = Path(request["output"])
    original = load(Path(request["model"]), request["kind"], inputs)
    random = np.random.default_rng(SEED)
    values = [item.sample(random) for item in inputs]
    before = [np.asarray(answer) for answer in original.run(values)]
    batches = False
    if not original.keeps_file:
        batches = exported_for_batches(original, inputs, output, random)
        if not batches:
            original.export(output)
            keep_weights_constant(output)
    made = Path(request["model"]) if original.keeps_file else output
    operators = check_operators(made)
    session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
    check_names([item.name for item in inputs], [item.name for item in session.get_inputs()])
    after = session.run(None, dict(zip((item.name for item in inputs), values, strict=True)))
    return {
        "ok": True,
        "converted": not original.keeps_file,
        "difference": difference(before, [np.asarray(answer) for answer in after]),
        "outputs": [item.name for item in session.get_outputs()],
        "operators": operators,
        "batches": batches,
    }


def exported_for_batches(
    original: Original, inputs: Sequence[Input], output: Path, random: np.random.Generator
) -> bool:
    """Whether `output` now holds a model that takes several calls at once and gives each the answers that the original gives it
    alone. Descriptors say one call; appliances compute those of all cameras together where the file allows it.
    """
    if any(len(item.shape) < 2 or item.shape[0] != 1 for item in inputs):
        return False
    calls = [[item.sample(random) for item in inputs] for _ in range(CALLS)]
    try:
        alone = [[np.asarray(answer) for answer in original.run(values)] for values in calls]
        if not original.export_for_batches(output):
            return False
        keep_weights_constant(output)
        session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
        stacked = [np.concatenate(arrays) for arrays in zip(*calls, strict=True)]
        together = session.run(None, dict(zip((item.name for item in inputs), stacked, strict=True)))
        for number, answers in enumerate(alone):
            rows = [len(answer) for answer in answers]
            parts = [
                np.asarray(one)[number * many : (number + 1) * many] for one, many in zip(together, rows, strict=True)
            ]
            difference(answers, parts)
    except Exception as error:  # noqa: BLE001 - whatever the exporter or the model has against it: then one call at a time
        print(f"not exported for batches: {type(error).__name__}: {error}"[:500], flush=True)
        return False
    return True


def check_names(described: Sequence[str], found: Sequence[str]) -> None:
    """The descriptor's inputs are the model's. Raises ConversionRefused with both lists."""
    if sorted(described) != sorted(found):
        raise ConversionRefused(
            f"the descriptor names the inputs {', '.join(described)}, the model's are {', '.join(found)}; correct the descriptor"
        )


def check_operators(path: Path) -> int:
    """How many nodes the ONNX file has, all of them of operators that ONNX defines. Raises ConversionRefused naming the others."""
    model = onnx.load(str(path), load_external_data=False)
    versions = {item.domain: item.version for item in model.opset_import}
    unknown = set()
    count = 0
    graphs = [model.graph]
    own = {(function.domain, function.name) for function in model.functions}
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            count += 1
            domain = "" if node.domain == "ai.onnx" else node.domain
            if (node.domain, node.op_type) not in own and not onnx.defs.has(
                node.op_type, domain=domain, max_inclusive_version=versions.get(node.domain, OPSET)
            ):
                unknown.add(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    if unknown:
        raise refuse_operators(unknown)
    return count


def keep_weights_constant(path: Path) -> None:
    """Takes the weights out of a graph's inputs, where older exporters list them: backends may then fold them."""
    model = onnx.load(str(path))
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if len(inputs) != len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        onnx.save(model, str(path))


def refuse_operators(names: set[str]) -> ConversionRefused:
    """The refusal that names them."""
    shown = sorted(names)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ConversionRefused(
        f"operators that can not be converted: {', '.join(shown[:10])}{more}; export the model without them"
    )


def difference(before: Sequence[Array], after: Sequence[Array]) -> float:
    """The largest difference of any output, as a part of that output's largest number. Raises ConversionRefused where it is too large."""
    if len(before) != len(after):
        raise ConversionRefused(f"the model gives {len(before)} outputs, the converted one {len(after)}")
    worst = 0.0
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        if one.shape != other.shape:
            raise ConversionRefused(
                f"output {place} has the shape {list(one.shape)}, that of the converted model {list(other.shape)}"
            )
        if not one.size:
            continue
        left, right = one.astype(np.float64), other.astype(np.float64)
        if not np.array_equal(np.isfinite(left), np.isfinite(right)):
            raise ConversionRefused(
                f"output {place} of the converted model has numbers that are not finite where they were"
            )
        finite = np.isfinite(left)
        gap = float(np.max(np.abs(left - right)[finite], initial=0.0))
        worst = max(worst, gap / max(float(np.max(np.abs(left[finite]), initial=0.0)), 1e-6))
    if worst > TOLERANCE:
        raise ConversionRefused(
            f"the converted model answers differently: by {worst:.2g} of the largest number on random input, {TOLERANCE:g} is accepted"
        )
    return worst
