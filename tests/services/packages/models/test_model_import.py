"""Real models of real frameworks, each in its environment and the sandbox, to ONNX files that answer the same."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest

from belvedere import modelfile
from belvedere.blobs import BlobStore
from belvedere.modelfile import ModelKind
from services.packages.models.convert import ModelRefused, sandbox
from services.packages.models.environments import Environments
from services.packages.models.importer import ModelImporter, Taken
from tests.support.frameworks import CACHE, framework, make
from tests.support.models import tiny_onnx, tiny_tensorflow_bytes

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]  # the first run installs frameworks

PYTORCH = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 5)
    def forward(self, x):
        features = torch.relu(self.convolution(x)).mean((2, 3))
        return self.linear(features), features
class Noise(torch.nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)
class Singular(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)
class Together(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)
net = Net().eval()
torch.jit.trace(Together(), torch.zeros(1, 4)).save("together.pt")
torch.jit.trace(net, torch.zeros(1, 3, 32, 32)).save("net.pt")
torch.jit.trace(Noise(), torch.zeros(1, 4), check_trace=False).save("noise.pt")
torch.jit.trace(Singular(), torch.eye(3)[None]).save("singular.pt")
torch.save(net.state_dict(), "weights.pth")
"""
TENSORFLOW = """
import tensorflow as tf
from tensorflow import keras
layers = [keras.layers.Input((32, 32, 3), name="image"), keras.layers.Conv2D(4, 3, activation="relu"),
          keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, activation="softmax")]
net = keras.Sequential(layers)
net.save("net.keras"); net.save("net.h5"); net.export("saved")
open("net.tflite", "wb").write(tf.lite.TFLiteConverter.from_saved_model("saved").convert())
"""
MXNET = """
import mxnet as mx
data = mx.sym.Variable("data")
features = mx.sym.Activation(mx.sym.Convolution(data, kernel=(3, 3), num_filter=4, name="c"), act_type="relu")
pooled = mx.sym.Flatten(mx.sym.Pooling(features, global_pool=True, pool_type="avg", kernel=(1, 1)))
head = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(pooled, num_hidden=5, name="f"), name="softmax")
module = mx.mod.Module(head, context=mx.cpu())
module.bind([("data", (1, 3, 32, 32))], [("softmax_label", (1,))])
module.init_params(mx.init.Xavier())
module.save_checkpoint("net", 0)
"""
SCRIPTS = {"pytorch": PYTORCH, "tensorflow": TENSORFLOW, "mxnet": MXNET}
IMAGE = [{"name": "image", "shape": [1, 32, 32, 3]}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models by framework, made on first use by `models`."""
    return {}


@pytest.fixture
def models(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    def of(name: str) -> Path:
        environment = framework(name)
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            make(environment, SCRIPTS[name], made[name])
        return made[name]

    return of


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore.at(tmp_path / "blobs")


@pytest.fixture
def importer(blobs: BlobStore, tmp_path: Path) -> ModelImporter:
    return ModelImporter(blobs, Environments(CACHE), timeout_s=300, work=tmp_path)


def packed(*files: Path) -> bytes:
    """As AWS's add-raw-model wants it: a .tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for file in files:
            archive.add(file, file.name)
    return out.getvalue()


def descriptor(inputs: list[dict[str, Any]], framework: str = "PYTORCH") -> str:
    rows = [{"type": "float32", **row} for row in inputs]
    inner = {
        "envelopeVersion": "2021-01-01",
        "framework": framework,
        "frameworkVersion": "1.8",
        "precisionMode": "FP16",
    }
    return json.dumps({"mlModelDescriptor": inner | {"inputs": rows}})


async def take(importer: ModelImporter, blobs: BlobStore, data: bytes, inputs: list[dict[str, Any]]) -> Taken:
    blob = await blobs.put_bytes(data)
    return await importer.take(blob.digest, blob.size_bytes, descriptor(inputs))


@pytest.mark.parametrize(
    ("name", "files", "inputs", "kind"),
    [
        ("pytorch", ["net.pt"], [{"name": "x", "shape": [1, 3, 32, 32]}], "PyTorch TorchScript"),
        ("tensorflow", ["net.keras"], IMAGE, "Keras"),
        ("tensorflow", ["net.h5"], IMAGE, "Keras"),
        ("tensorflow", ["saved"], [{"name": "image", "shape": [-1, 32, 32, 3]}], "TensorFlow SavedModel"),
        ("tensorflow", ["net.tflite"], [{"name": "serving_default_image:0", "shape": [1, 32, 32, 3]}], "TFLite"),
        ("mxnet", ["net-symbol.json", "net-0000.params"], [{"name": "data", "shape": [1, 3, 32, 32]}], "MXNet"),
    ],
)
async def test_an_archive_becomes_an_onnx_file_that_answers_the_same(
    name: str, files: list[str], inputs: list[dict[str, Any]], kind: str, models: Any, importer: ModelImporter,
    blobs: BlobStore, tmp_path: Path,
) -> None:  # fmt: skip
    folder = models(name)
    data = packed(*(folder / file for file in files))
    taken = await take(importer, blobs, data, inputs)
    assert taken.note.startswith(f"{kind} converted to ONNX, largest difference ")
    assert float(taken.note.split()[-4]) < 1e-4
    document = json.loads(taken.descriptor)["mlModelDescriptor"]
    assert (document["framework"], document["precisionMode"]) == ("ONNX", "FP16")
    assert [row["name"] for row in document["inputs"]] == [row["name"] for row in inputs]
    converted = tmp_path / "converted"
    converted.write_bytes(await blobs.read(taken.digest))
    assert modelfile.find(converted, tmp_path / "found").kind == ModelKind.ONNX
    assert taken.size_bytes == converted.stat().st_size
    # Their file leaves the batch open, whatever the descriptor says of it: several calls are computed at once.
    first = onnx.load(str(converted)).graph.input[0].type.tensor_type.shape.dim[0]
    assert bool(first.dim_value) == (kind == "MXNet")


async def test_a_pytorch_model_takes_several_calls_at_once_where_that_changes_no_answer(
    models: Any, importer: ModelImporter, blobs: BlobStore
) -> None:
    folder, first = models("pytorch"), {}
    for file, shape in (("net.pt", [1, 3, 32, 32]), ("together.pt", [1, 4])):
        taken = await take(importer, blobs, packed(folder / file), [{"name": "x", "shape": shape}])
        [value] = onnx.load_from_string(await blobs.read(taken.digest)).graph.input
        first[file] = value.type.tensor_type.shape.dim[0]
    assert not first["net.pt"].dim_value and first["net.pt"].dim_param
    assert first["together.pt"].dim_value == 1


async def test_a_frozen_graph_is_converted_with_the_names_of_its_nodes(
    importer: ModelImporter, blobs: BlobStore
) -> None:
    framework("tensorflow")
    inputs = [{"name": "image", "shape": [1, 2, 2, 3], "type": "uint8"}]
    taken = await take(importer, blobs, tiny_tensorflow_bytes(), inputs)
    assert taken.note == "TensorFlow frozen graph converted to ONNX, largest difference 0.0e+00 on random input"
    written = await blobs.read(taken.digest)
    assert b"opposite" in written and b"opposite:0" not in written and b"image:0" not in written


async def test_an_onnx_model_stays_as_it_is_once_it_has_run(
    importer: ModelImporter, blobs: BlobStore, tmp_path: Path
) -> None:
    framework("onnx")
    data = tiny_onnx(tmp_path / "net.onnx").read_bytes()
    taken = await take(importer, blobs, data, [{"name": "x", "shape": [1, 3]}])
    assert taken.digest == (await blobs.put_bytes(data)).digest
    assert taken.note == "ONNX, 2 operators, runs"
    strange = tiny_onnx(tmp_path / "strange.onnx", op="Frobnicate", domain="my.ops").read_bytes()
    with pytest.raises(ModelRefused, match=r"my\.ops"):
        await take(importer, blobs, strange, [{"name": "x", "shape": [1, 3]}])


@pytest.mark.parametrize(
    ("file", "inputs", "says"),
    [
        ("singular.pt", [{"name": "x", "shape": [1, 3, 3]}], r"can not be converted: aten::linalg_svdvals; export"),
        ("noise.pt", [{"name": "x", "shape": [1, 4]}], r"answers differently: by \S+ of the largest number"),
        ("net.pt", [{"name": "x", "shape": [1, 4, 32, 32]}], r"does not take what its descriptor says: .*channels"),
        (
            "weights.pth",
            [{"name": "x", "shape": [1, 3, 32, 32]}],
            r"without the code they belong to; save .*jit\.trace",
        ),
    ],
)
async def test_what_can_not_be_converted_is_named(
    file: str, inputs: list[dict[str, Any]], says: str, models: Any, importer: ModelImporter, blobs: BlobStore
) -> None:
    data = packed(models("pytorch") / file)
    with pytest.raises(ModelRefused, match=says):
        await take(importer, blobs, data, inputs)


async def test_inputs_that_the_model_does_not_have_are_listed_beside_those_it_has(
    models: Any, importer: ModelImporter, blobs: BlobStore
) -> None:
    folder = models("mxnet")
    data = packed(folder / "net-symbol.json", folder / "net-0000.params")
    with pytest.raises(ModelRefused, match=r"the descriptor names the inputs picture, the model's are data; correct"):
        await take(importer, blobs, data, [{"name": "picture", "shape": [1, 3, 32, 32]}])


async def test_a_damaged_model_is_refused_and_the_next_one_converted(
    models: Any, importer: ModelImporter, blobs: BlobStore, tmp_path: Path
) -> None:
    whole = models("tensorflow") / "net.h5"
    damaged = tmp_path / "net.h5"
    damaged.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ModelRefused, match=r"Keras model: TensorFlow does not read it"):
        await take(importer, blobs, packed(damaged), IMAGE)
    assert (await take(importer, blobs, packed(whole), IMAGE)).note.startswith("Keras converted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "net.h5"], "nothing is left of the work"


async def test_a_conversion_that_takes_too_long_is_ended(models: Any, blobs: BlobStore, tmp_path: Path) -> None:
    hurried = ModelImporter(blobs, Environments(CACHE), timeout_s=0.05, work=tmp_path)
    with pytest.raises(ModelRefused, match=r"took more than 0 s; BELVEDERE_PACKAGES_MODEL_IMPORT_TIMEOUT_S"):
        await take(hurried, blobs, packed(models("pytorch") / "net.pt"), [{"name": "x", "shape": [1, 3, 32, 32]}])


def test_the_code_of_a_model_sees_neither_the_machine_nor_the_network(tmp_path: Path) -> None:
    environment = framework("onnx")
    secret = tmp_path / "secret"
    secret.write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    look = f"""
import os, pathlib, socket
print(pathlib.Path({str(secret)!r}).exists(), os.path.exists("/etc/passwd"), os.listdir("/proc/self/net") and socket.if_nameindex())
try:
    pathlib.Path(os.__file__).write_text("")
except OSError as error:
    print(error.strerror)
"""
    command = [*sandbox(environment, work), str(environment.python), "-c", look]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["False False [(1, 'lo')]", "Read-only file system"]
