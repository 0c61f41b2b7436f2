"""B1's peer, in its own environment: Roboflow's InferencePipeline with logic that does nothing. Speaks as `takers` do; imports
nothing of ours.

    python roboflow_noop.py URL FRAMES         # how many there are in the footage;
                                               # "ready"; for each "measure N" a JSON line
"""

import json
import os
import pathlib
import queue
import sys
import threading
from typing import Any

os.environ.update(TELEMETRY_OPT_OUT="True", DISABLE_VERSION_CHECK="True", OFFLINE_MODE="True", LOG_LEVEL="ERROR")
os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
for _name in ("SAM", "SAM2", "SAM3", "GAZE", "YOLO_WORLD", "GROUNDINGDINO", "CLIP", "DOCTR", "TROCR", "OWLV2", "PE"):
    os.environ[f"CORE_MODEL_{_name}_ENABLED"] = "False"

from inference import InferencePipeline  # noqa: E402 - the lines above come first

WARM_UP = 20
BLOCK, DIGITS = 32, 10


def cpu_ns() -> int:
    total = 0
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # it has ended meanwhile
            continue
    return total


def main(url: str, frames: int) -> None:
    taken: queue.Queue[int] = queue.Queue()

    def take(predictions: Any, given: Any) -> None:
        for frame in given if isinstance(given, list) else [given]:
            if frame is not None:
                bits = frame.image[BLOCK // 2, BLOCK // 2 : DIGITS * BLOCK : BLOCK, 1] > 127
                taken.put(sum(1 << digit for digit, bit in enumerate(bits) if bit))

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=url,
        on_video_frame=lambda frames: [{} for _ in frames],
        on_prediction=take,
        video_processing_mode="every_frame",
    )
    threading.Thread(target=pipeline.start, kwargs={"use_main_thread": False}, daemon=True).start()
    for _ in range(WARM_UP):
        taken.get(timeout=60)
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line.split()[1])
        while not taken.empty():
            taken.get()
        last = taken.get(timeout=60)
        before, passed = cpu_ns(), 0
        for _ in range(count):
            number = taken.get(timeout=60)
            passed += (number - last) % frames
            last = number
        spent = cpu_ns() - before
        answer = {"frames": count, "camera_frames": passed, "cpu_ms": spent / 1e6, "delays_ms": []}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
