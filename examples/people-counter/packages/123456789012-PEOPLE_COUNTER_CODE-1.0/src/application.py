"""Counts the people in each camera's picture: an application for AWS Panorama, and for Belvedere."""

import logging
import os
import time
from logging.handlers import RotatingFileHandler

import cv2
import numpy as np
from metrics import PeopleMetric

import panoramasdk

MODEL_NODE = "person_detector"
MODEL_INPUT = "image_tensor"
MODEL_SIZE = (300, 300)
LOG_FILE = "/opt/aws/panorama/logs/app.log"
LOG_EVERY_S = 10.0

log = logging.getLogger("people_counter")


class Application(panoramasdk.node):
    """Reads camera streams, asks the model for people, marks them, sends the pictures on."""

    def __init__(self):
        super().__init__()
        self.threshold = float(self.inputs.threshold.get())
        self.metric = PeopleMetric(log)
        self.frames = 0
        self.last_log = time.monotonic()
        log.info("counting people with a threshold of %.2f", self.threshold)

    def process_streams(self):
        """One batch: a picture from each camera."""
        streams = self.inputs.video_in.get()
        for stream in streams:
            self.process_media(stream)
        self.outputs.video_out.put(streams)

    def process_media(self, stream):
        """Marks and counts the people in one picture."""
        picture = cv2.resize(stream.image, MODEL_SIZE)
        tensor = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)[np.newaxis]
        results = self.call({MODEL_INPUT: tensor}, MODEL_NODE)
        if results is None:
            log.warning("the model gave no answer for a picture of %s", stream.stream_id)
            return
        boxes, _classes, scores = results[0][0], results[1][0], results[2][0]

        found = np.clip(boxes[scores >= self.threshold], 0.0, 1.0)
        for top, left, bottom, right in found:
            stream.add_rect(left, top, right, bottom)
        people = len(found)
        stream.add_label(f"People: {people}", 0.02, 0.05)

        self.frames += 1
        self.metric.add(people)
        if time.monotonic() - self.last_log >= LOG_EVERY_S:
            self.last_log = time.monotonic()
            log.info("%d pictures so far, %d people in the last one of %s", self.frames, people, stream.stream_id)


def set_up_log():
    """Whatever is written to this folder appears in the log stream of the code node."""
    handler = RotatingFileHandler(LOG_FILE, maxBytes=10000000, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(os.environ.get("LOG_LEVEL", "INFO"))
    log.addHandler(handler)


def main():
    set_up_log()
    print("people counter: starting")
    try:
        application = Application()
        while True:
            application.process_streams()
    except Exception:
        log.exception("the people counter ends because of an error")
        raise


if __name__ == "__main__":
    main()
