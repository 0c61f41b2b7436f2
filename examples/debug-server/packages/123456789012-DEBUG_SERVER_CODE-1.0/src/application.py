"""An HTTP server inside an application: what it sees, how fast, and where its threads are.

GET /                    status, as JSON
GET /picture?camera=NAME the camera's newest picture, as JPEG
GET /threads             the stack of every thread, as text
"""

import json
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs, urlsplit

import cv2

import panoramasdk

PORT = 8080
"""As package.json declares it (network.inboundPorts); the graph's networkRoutingRules say where it is on the appliance."""
REPORT_EVERY_S = 10.0


class Pictures:
    """The newest picture of each camera, for whoever asks: written by one thread, read by others."""

    def __init__(self):
        self._lock = threading.Lock()
        self._newest = {}
        self._counts = {}
        self.begun = time.time()

    def keep(self, name, image):
        """A camera has a new picture."""
        with self._lock:
            self._newest[name] = image
            self._counts[name] = self._counts.get(name, 0) + 1

    def newest(self, name):
        """The picture; None where there is no such camera."""
        with self._lock:
            return self._newest.get(name)

    def status(self):
        """What is known, for JSON."""
        with self._lock:
            cameras = {
                name: {"pictures": self._counts[name], "size": [image.shape[1], image.shape[0]]}
                for name, image in self._newest.items()
            }
        return {"cameras": cameras, "seconds": round(time.time() - self.begun, 1), "threads": threading.active_count()}


class Server(ThreadingMixIn, HTTPServer):
    """A thread for each request."""

    daemon_threads = True

    def __init__(self, pictures):
        # All addresses of the sandbox: nothing but the declared port leads into it.
        HTTPServer.__init__(self, ("0.0.0.0", PORT), Handler)
        self.pictures = pictures


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/":
            self.answer(200, "application/json", json.dumps(self.server.pictures.status()).encode())
        elif parts.path == "/threads":
            self.answer(200, "text/plain; charset=utf-8", stacks().encode())
        elif parts.path == "/picture":
            image = self.server.pictures.newest(parse_qs(parts.query).get("camera", [""])[0])
            if image is None:
                self.answer(404, "text/plain", b"no picture of such a camera\n")
            else:
                self.answer(200, "image/jpeg", cv2.imencode(".jpg", image)[1].tobytes())
        else:
            self.answer(404, "text/plain", b"there are /, /picture?camera=NAME and /threads\n")

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Not a line a request: a page that refreshes itself would fill the log."""


def stacks():
    """Where every thread is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames().items()
    return "\n".join(
        "{}\n{}".format(names.get(ident, ident), "".join(traceback.format_stack(frame))) for ident, frame in frames
    )


class Application(panoramasdk.node):
    """Takes the pictures, keeps the newest, hands them on."""

    def __init__(self, pictures):
        super().__init__()
        self.pictures = pictures

    def process_streams(self):
        """One batch: a picture from each camera."""
        streams = self.inputs.video_in.get()
        for stream in streams:
            if not stream.is_cached:
                self.pictures.keep(stream.stream_id, stream.image.copy())
        self.outputs.video_out.put(streams)


def report(pictures):
    """A line of the log now and then, from a thread of its own."""
    while True:
        time.sleep(REPORT_EVERY_S)
        print(json.dumps(pictures.status()), flush=True)


def main():
    pictures = Pictures()
    application = Application(pictures)
    threading.Thread(target=Server(pictures).serve_forever, name="http", daemon=True).start()
    threading.Thread(target=report, args=(pictures,), name="report", daemon=True).start()
    print(f"debug server: listening on port {PORT}", flush=True)
    while True:
        application.process_streams()


if __name__ == "__main__":
    main()
