"""B12's peer, in its own environment: Roboflow's InferencePipeline over several cameras, the same person detector by OpenVINO as
its custom logic. One file that imports nothing of ours.

    python roboflow_pipeline.py MODEL

A line of JSON on stdin is one try, {"collection", "computation", "warm_s", "seconds", "urls"}; each prints {"counting": true}
when it begins to count, then {"answers": {camera: count}}. It says {"ready": true} before the first.

Each camera is held to five pictures a second where it is read, so that what is not asked about is decoded and nothing more
(`max_fps` with ENABLE_FRAME_DROP_ON_VIDEO_FILE_RATE_LIMITING; without that, `max_fps` is a limit for all cameras together).
collection: how a batch of pictures comes together: `auto`, `every_frame`, `freshest` (its video_processing_mode), or `legacy`.
computation: `latency` (OpenVINO's hint; one picture after the other, on all cores) or `throughput` (all of a batch side by side,
a thread each).
"""

import json
import os
import sys
import threading
import time
from typing import Any

os.environ.update(TELEMETRY_OPT_OUT="True", DISABLE_VERSION_CHECK="True", OFFLINE_MODE="True", LOG_LEVEL="ERROR")
os.environ["ENABLE_FRAME_DROP_ON_VIDEO_FILE_RATE_LIMITING"] = "True"
for _name in ("SAM", "SAM2", "SAM3", "GAZE", "YOLO_WORLD", "GROUNDINGDINO", "CLIP", "DOCTR", "TROCR", "OWLV2", "PE"):
    os.environ[f"CORE_MODEL_{_name}_ENABLED"] = "False"
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # as if it were not installed

import cv2  # noqa: E402 - the lines above come first
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
from inference import InferencePipeline  # noqa: E402

PER_SECOND = 5
OPENING_S = 30.0
"""For all cameras to have had an answer; it opens one after the other. What has none by then counts as it is."""
ENDING_S = 8.0
"""For a pipeline to end; one that does not takes the process with it."""
DETECTIONS = 2
"""The output that has the boxes."""


class Detector:
    """The model, behind the pipeline's `on_video_frame`."""

    def __init__(self, path: str, computation: str) -> None:
        core = ov.Core()
        read = core.read_model(path)
        read.reshape({read.inputs[0]: ov.PartialShape([1, 300, 300, 3])})
        config = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        config["PERFORMANCE_HINT"] = computation.upper()
        model = core.compile_model(read, "CPU", config)
        side_by_side = model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._queue = ov.AsyncInferQueue(model, side_by_side if computation == "throughput" else 1)
        self._queue.set_callback(self._done)
        self._found: list[Any] = []

    def _done(self, request: Any, place: int) -> None:
        self._found[place] = np.array(request.get_output_tensor(DETECTIONS).data)

    def __call__(self, frames: list[Any]) -> list[Any]:
        self._found = [None] * len(frames)
        for place, frame in enumerate(frames):
            tensor = cv2.cvtColor(cv2.resize(frame.image, (300, 300)), cv2.COLOR_BGR2RGB)[np.newaxis]
            self._queue.start_async({0: tensor}, place)
        self._queue.wait_all()
        return self._found


def attempt(detector: Detector, collection: str, warm_s: float, seconds: float, urls: list[str]) -> Any:
    """One try: prints its two lines; gives the pipeline back."""
    answers: dict[str, int] = {}
    seen: set[str] = set()
    lock = threading.Lock()
    until = [float("inf"), float("inf")]

    def take(predictions: Any, frames: Any) -> None:
        now = time.monotonic()
        pairs = zip(predictions, frames, strict=False) if isinstance(frames, list) else [(predictions, frames)]
        with lock:
            for prediction, frame in pairs:
                if prediction is None or frame is None:
                    continue
                key = str(frame.source_id)
                seen.add(key)
                if until[0] <= now < until[1]:
                    answers[key] = answers.get(key, 0) + 1

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=urls,
        on_video_frame=detector,
        on_prediction=take,
        max_fps=PER_SECOND,
        video_processing_mode=collection,
    )
    pipeline.start(use_main_thread=False)
    opened_by = time.monotonic() + OPENING_S
    while len(seen) < len(urls) and time.monotonic() < opened_by:
        time.sleep(0.1)
    until[0] = time.monotonic() + warm_s
    until[1] = until[0] + seconds
    time.sleep(warm_s)
    print(json.dumps({"counting": True}), flush=True)
    time.sleep(max(0.0, until[1] + 0.2 - time.monotonic()))
    with lock:
        print(json.dumps({"answers": answers}), flush=True)
    return pipeline


def end(pipeline: Any) -> None:
    pipeline.terminate()
    pipeline.join()


def main(model: str) -> None:
    detectors: dict[str, Detector] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        computation = job.pop("computation")
        if computation not in detectors:
            detectors[computation] = Detector(model, computation)
        pipeline = attempt(detectors[computation], **job)
        ending = threading.Thread(target=end, args=(pipeline,), daemon=True)
        ending.start()
        ending.join(ENDING_S)
        if ending.is_alive():
            break
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
