"""Pictures as inputs: by the name of their frame and by their pixels, exact to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from belvedere.graph import ImageInput
from edge.inference import pictures
from edge.inference.errors import InvalidInput
from edge.inference.model import WantedModel
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo
from framelink import CallError, Frame, FrameName, FrameReader, FrameWriter, PixelFormat, slot_bytes_for
from tests.support.inference import WAIT_S, Inference
from tests.support.models import ONNX_UINT8, image_onnx

WIDTH, HEIGHT, SIDE = 160, 90, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = ImageInput("RGB", scale=1 / 255, mean=MEAN, std=STD)
FLOATS = TensorInfo("image", (1, 3, SIDE, SIDE), np.dtype("float32"))
BYTES = TensorInfo("image", (1, SIDE, SIDE, 3), np.dtype("uint8"))


@pytest.fixture
def photo() -> Array:
    """Noise, blurred: edges as in a picture, every value there is."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    blurred: Array = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return blurred


def by_hand(photo: Array, color: str = "BGR") -> Array:
    """As the samples do it in their own code."""
    resized = cv2.resize(photo, (SIDE, SIDE))
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB) if color == "RGB" else resized)


def test_without_a_word_in_the_descriptor_a_picture_is_resized_and_nothing_else(photo: Array) -> None:
    assert (pictures.tensor(photo, BYTES, pictures.AS_IT_IS)[0] == by_hand(photo)).all()
    assert (pictures.tensor(photo, FLOATS, pictures.AS_IT_IS)[0] == by_hand(photo).transpose(2, 0, 1)).all()


def test_colours_are_put_in_order_and_normalised_channel_by_channel(photo: Array) -> None:
    made = pictures.tensor(photo, FLOATS, IMAGENET)
    wanted = ((by_hand(photo, "RGB") / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    assert made.shape == (1, 3, SIDE, SIDE) and made.dtype == np.float32
    np.testing.assert_allclose(made[0], wanted, atol=1e-6)


def test_a_grey_input_gets_grey(photo: Array) -> None:
    info = TensorInfo("image", (1, 1, SIDE, SIDE), np.dtype("uint8"))
    grey = cv2.cvtColor(cv2.resize(photo, (SIDE, SIDE)), cv2.COLOR_BGR2GRAY)
    assert (pictures.tensor(photo, info, ImageInput("GRAY"))[0, 0] == grey).all()


def test_a_letterbox_keeps_the_proportions_in_the_middle_of_grey(photo: Array) -> None:
    made = pictures.tensor(photo, BYTES, ImageInput(fit="letterbox"))[0]
    assert (made[:7] == 114).all() and (made[-7:] == 114).all()
    assert (made[7:25] == cv2.resize(photo, (SIDE, 18))).all()


def test_inputs_that_are_no_pictures_are_told_what_a_picture_needs(photo: Array) -> None:
    with pytest.raises(InvalidInput, match=r"the model takes `x` float32 \(1, 3\); it would have to be"):
        pictures.tensor(photo, TensorInfo("x", (1, 3), np.dtype("float32")), pictures.AS_IT_IS)
    with pytest.raises(InvalidInput, match="a picture is"):
        pictures.tensor(photo[:, :, 0], BYTES, pictures.AS_IT_IS)
    with pytest.raises(InvalidInput, match="there is no input `y` for the picture"):
        pictures.input_of("y", {"image": BYTES})


class Camera:
    """One frame in a ring, held as an application holds it."""

    def __init__(self, root: Path, photo: Array) -> None:
        path = root / "cameras" / "door" / "frames.sock"
        path.parent.mkdir(parents=True)
        self.writer = FrameWriter(path, "door", slots=4, slot_bytes=slot_bytes_for(WIDTH, HEIGHT))
        self.reader = FrameReader(path, "app")
        self.frame = self.taken(photo)

    def taken(self, photo: Array) -> Frame:
        self.reader.request()
        slot = self.writer.acquire()
        assert slot is not None
        slot.planes(WIDTH, HEIGHT, PixelFormat.I420)[0][...] = 0
        slot.bgr(WIDTH, HEIGHT)[...] = photo
        self.writer.publish(
            slot, capture_ns=0, pts_us=0, width=WIDTH, height=HEIGHT, format=PixelFormat.I420, has_bgr=True
        )
        return self.reader.get(WAIT_S)

    def name(self, **changes: Any) -> FrameName:
        frame = self.frame
        fields = {"camera_id": "door", "ring_id": frame.ring_id, "slot": frame.slot, "sequence": frame.info.sequence}
        return FrameName(**{**fields, **changes})

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture
def camera(tmp_path: Path, photo: Array) -> Iterator[Camera]:
    camera = Camera(tmp_path, photo)
    yield camera
    camera.close()


@pytest.fixture
def inference(tmp_path: Path) -> Iterator[Inference]:
    with Inference(tmp_path, Settings(backend="openvino", trial_s=0)) as inference:
        yield inference


def test_a_frame_by_its_name_gives_what_its_pixels_give_and_what_the_application_would_make_itself(
    tmp_path: Path, camera: Camera, inference: Inference, photo: Array
) -> None:
    spec = InputSpec("image", (1, 3, SIDE, SIDE), "float32", IMAGENET)
    inference.ready(WantedModel("m", image_onnx(tmp_path / "m", (1, 3, SIDE, SIDE)), "ONNX", "FP32", (spec,)))
    own = np.float32(1) * ((by_hand(photo, "RGB") / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    with inference.client() as client:
        by_name = client.call("m", {}, WAIT_S, {"image": camera.name()})["same"]
        by_pixels = client.call("m", {}, WAIT_S, {"": photo})["same"]
    assert by_name.tobytes() == by_pixels.tobytes()
    np.testing.assert_allclose(by_name[0], own, atol=1e-6)
    assert inference.row("m", lambda row: row["calls"] == 2)["prepare_ms"]["p50"] is not None


def test_bytes_arrive_exactly_as_they_were_in_the_ring(
    tmp_path: Path, camera: Camera, inference: Inference, photo: Array
) -> None:
    shape = (1, HEIGHT, WIDTH, 3)
    inference.ready(WantedModel("m", image_onnx(tmp_path / "m", shape, ONNX_UINT8), "ONNX", "FP32", ()))
    with inference.client() as client:
        assert (client.call("m", {}, WAIT_S, {"image": camera.name()})["same"][0] == photo).all()


def test_reading_a_ring_attaches_no_reader_and_holds_no_slot(
    tmp_path: Path, camera: Camera, inference: Inference
) -> None:
    inference.ready(WantedModel("m", image_onnx(tmp_path / "m", (1, 3, SIDE, SIDE)), "ONNX", "FP32", ()))
    with inference.client() as client:
        client.call("m", {}, WAIT_S, {"image": camera.name()})
    assert [reader.name for reader in camera.writer.stats().readers] == ["app"]


def test_a_frame_that_is_gone_is_said_to_be_gone(
    tmp_path: Path, camera: Camera, inference: Inference, photo: Array
) -> None:
    inference.ready(WantedModel("m", image_onnx(tmp_path / "m", (1, 3, SIDE, SIDE)), "ONNX", "FP32", ()))
    gone = [
        camera.name(sequence=77),
        camera.name(slot=3),
        camera.name(slot=99),
        camera.name(ring_id=1),
        camera.name(camera_id="yard"),
        camera.name(camera_id="../cameras/door"),
        camera.name(camera_id=""),
    ]
    with inference.client() as client:
        for name in gone:
            with pytest.raises(CallError) as caught:
                client.call("m", {}, WAIT_S, {"image": name})
            assert caught.value.code == "FRAME_GONE"
        assert client.call("m", {}, WAIT_S, {"image": camera.name()})
    assert inference.row("m", lambda row: True)["errors_by_code"]["FRAME_GONE"] == len(gone)


def test_a_camera_that_came_back_is_found_again(
    tmp_path: Path, camera: Camera, inference: Inference, photo: Array
) -> None:
    inference.ready(WantedModel("m", image_onnx(tmp_path / "m", (1, 3, SIDE, SIDE)), "ONNX", "FP32", ()))
    with inference.client() as client:
        first = client.call("m", {}, WAIT_S, {"image": camera.name()})["same"]
        old = camera.name()
        camera.close()
        path = tmp_path / "cameras" / "door" / "frames.sock"
        camera.writer = FrameWriter(path, "door", slots=4, slot_bytes=slot_bytes_for(WIDTH, HEIGHT))
        camera.reader = FrameReader(path, "app")
        camera.frame = camera.taken(255 - photo)
        assert (client.call("m", {}, WAIT_S, {"image": camera.name()})["same"] != first).any()
        with pytest.raises(CallError, match="FRAME_GONE"):
            client.call("m", {}, WAIT_S, {"image": old})
