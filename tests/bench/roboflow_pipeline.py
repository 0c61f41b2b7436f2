"""B12's peer, in its own environment: Roboflow's InferencePipeline over several cameras, the same person detector by OpenVINO as
its custom logic, `max_fps` 5. One file that imports nothing of ours.

    python roboflow_pipeline.py MODEL WARM_S SECONDS URL…

Prints {"counting": true} when it begins to count, then {"answers": {camera: count}}.
"""

import json
import os
import sys
import threading
import time

os.environ.update(TELEMETRY_OPT_OUT="True", DISABLE_VERSION_CHECK="True", OFFLINE_MODE="True", LOG_LEVEL="ERROR")
for _name in ("SAM", "SAM2", "SAM3", "GAZE", "YOLO_WORLD", "GROUNDINGDINO", "CLIP", "DOCTR", "TROCR", "OWLV2", "PE"):
    os.environ[f"CORE_MODEL_{_name}_ENABLED"] = "False"
sys.modules["openvino_telemetry"] = None

import cv2  # noqa: E402 - the lines above come first
import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
from inference import InferencePipeline  # noqa: E402

PER_SECOND = 5


def main(model, warm_s, seconds, urls):
    core = ov.Core()
    read = core.read_model(model)
    read.reshape({read.inputs[0]: ov.PartialShape([1, 300, 300, 3])})
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    request = core.compile_model(read, "CPU", config).create_infer_request()
    answers, lock = {}, threading.Lock()
    until = [float("inf"), float("inf")]

    def infer(frames):
        found = []
        for frame in frames:
            tensor = cv2.cvtColor(cv2.resize(frame.image, (300, 300)), cv2.COLOR_BGR2RGB)[np.newaxis]
            request.infer({0: tensor})
            found.append(np.array(request.get_output_tensor(2).data))
        return found

    def take(predictions, frames):
        now = time.monotonic()
        pairs = zip(predictions, frames, strict=False) if isinstance(frames, list) else [(predictions, frames)]
        with lock:
            for prediction, frame in pairs:
                if prediction is not None and frame is not None and until[0] <= now < until[1]:
                    key = str(frame.source_id)
                    answers[key] = answers.get(key, 0) + 1

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=urls, on_video_frame=infer, on_prediction=take, max_fps=PER_SECOND
    )
    pipeline.start(use_main_thread=False)
    until[0] = time.monotonic() + warm_s
    until[1] = until[0] + seconds
    while time.monotonic() < until[0]:
        time.sleep(0.1)
    print(json.dumps({"counting": True}), flush=True)
    while time.monotonic() < until[1] + 0.2:
        time.sleep(0.1)
    print(json.dumps({"answers": answers}), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
