"""Two models, one after the other, on two cameras: a detector finds people, a classifier tells who faces the camera."""

import time

import cv2
import numpy as np

import panoramasdk

DETECTOR, DETECTOR_INPUT, DETECTOR_SIZE = "person_detector", "image_tensor", (300, 300)
CLASSIFIER, CLASSIFIER_INPUT, CLASSIFIER_SIZE = "face_classifier", "input", 128
PEOPLE_MAX = 6
"""The classifier looks at the surest of them only: each costs a call."""
HEAD = 0.4
"""Part of a person, from the top, in which the face would be."""
SAY_EVERY_S = 10.0


class Application(panoramasdk.node):
    """Takes the pictures of both cameras, marks people, hands the pictures on."""

    def __init__(self):
        super().__init__()
        self.person_threshold = self.inputs.person_threshold.get()
        self.face_threshold = self.inputs.face_threshold.get()
        self.seen = {}
        self.said = time.monotonic()

    def process_streams(self):
        """One batch: a picture from each camera. What a camera showed before already is not looked at again."""
        streams = self.inputs.video_in.get()
        fresh = [stream for stream in streams if not stream.is_cached]
        for stream in fresh:
            self.process(stream)
        self.outputs.video_out.put(fresh)
        if time.monotonic() - self.said > SAY_EVERY_S:
            self.said = time.monotonic()
            for name, (people, facing) in sorted(self.seen.items()):
                print(f"{name}: {people} people seen, {facing} facing the camera", flush=True)

    def process(self, stream):
        """Detector, then classifier on each person."""
        boxes = self.people(stream.image)
        facing = 0
        for top, left, bottom, right in boxes:
            certainty = self.faces_camera(stream.image, top, left, bottom, right)
            stream.add_rect(left, top, right, bottom)
            if certainty >= self.face_threshold:
                facing += 1
                stream.add_label(f"facing {certainty:.0%}", left, max(top - 0.02, 0.0))
        stream.add_label(f"{len(boxes)} people, {facing} facing", 0.02, 0.05)
        people, faces = self.seen.get(stream.stream_id, (0, 0))
        self.seen[stream.stream_id] = (people + len(boxes), faces + facing)

    def people(self, image):
        """Boxes of people, the surest first: top, left, bottom, right, from 0 to 1."""
        picture = cv2.cvtColor(cv2.resize(image, DETECTOR_SIZE), cv2.COLOR_BGR2RGB)
        results = self.call({DETECTOR_INPUT: picture[np.newaxis]}, DETECTOR)
        boxes, scores = results[0][0], results[2][0]
        surest = np.argsort(-scores)[:PEOPLE_MAX]
        return [np.clip(boxes[number], 0.0, 1.0) for number in surest if scores[number] >= self.person_threshold]

    def faces_camera(self, image, top, left, bottom, right):
        """How surely there is a face in the upper part of the person, from 0 to 1."""
        height, width = image.shape[:2]
        head = image[
            int(top * height) : int((top + (bottom - top) * HEAD) * height) + 1,
            int(left * width) : int(right * width) + 1,
        ]
        if min(head.shape[:2]) < 2:
            return 0.0
        # The proportions stay, and black fills what is left, as the model was trained.
        scale = CLASSIFIER_SIZE / max(head.shape[:2])
        small = cv2.resize(head, (max(int(head.shape[1] * scale), 1), max(int(head.shape[0] * scale), 1)))
        square = np.zeros((CLASSIFIER_SIZE, CLASSIFIER_SIZE, 3), np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        tensor = cv2.cvtColor(square, cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1.0
        _boxes, scores = self.call({CLASSIFIER_INPUT: tensor[np.newaxis]}, CLASSIFIER)
        return float(1.0 / (1.0 + np.exp(-np.clip(scores.max(), -80.0, 80.0))))


def main():
    print("facing people: starting", flush=True)
    application = Application()
    while True:
        application.process_streams()


if __name__ == "__main__":
    main()
