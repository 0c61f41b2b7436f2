"""Writes down what moves in front of each camera, and when: records that outlive restarts, within a fixed space."""

import time

import numpy as np
from records import Records

import panoramasdk

STORAGE = "/opt/aws/panorama/storage/records"
"""The one folder that is kept across restarts, and handed on to the instance that replaces this one."""
STEP = 4
"""Every fourth point of every fourth line is enough to see motion."""
SAY_EVERY_S = 10.0


class Application(panoramasdk.node):
    """Takes the pictures, records what moves, hands them on."""

    def __init__(self):
        super().__init__()
        self.sensitivity = self.inputs.sensitivity.get()
        self.site = self.inputs.site.get()
        self.records = Records(STORAGE, self.inputs.limit_kb.get() * 1024)
        self.before = {}
        self.said = time.monotonic()
        print(f"recorder: {len(self.records)} records from before", flush=True)

    def process_streams(self):
        """One batch: a picture from each camera."""
        streams = self.inputs.video_in.get()
        for stream in streams:
            if not stream.is_cached:
                self.process(stream)
        self.outputs.video_out.put(streams)
        if time.monotonic() - self.said > SAY_EVERY_S:
            self.said = time.monotonic()
            print(f"recorder: {len(self.records)} records, {self.records.size()} bytes", flush=True)

    def process(self, stream):
        """Compares a picture with the one before; writes down where it differs."""
        now = stream.image[::STEP, ::STEP].mean(axis=2) / 255
        before = self.before.get(stream.stream_id, now)
        self.before[stream.stream_id] = now
        if now.shape != before.shape:
            return
        moved = float((np.abs(now - before) > self.sensitivity).mean())
        stream.add_label(f"motion {moved:.1%}, {len(self.records)} records", 0.02, 0.05)
        if moved:
            seconds, micros = stream.time_stamp
            self.records.add(
                {
                    "site": self.site,
                    "camera": stream.stream_id,
                    "time": seconds + micros / 1e6,
                    "moved": round(moved, 4),
                }
            )


def main():
    application = Application()
    while True:
        application.process_streams()


if __name__ == "__main__":
    main()
