from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge.inference.backends.base import Backend
from edge.inference.backends.openvino import CONVERTED, OpenVinoBackend
from edge.inference.backends.quiet import openvino as ov
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from tests.edge.inference.contract import BackendContract, X
from tests.support.models import tiny_onnx, tiny_tensorflow


class TestOpenVino(BackendContract):
    def make_backend(self, cache: Path) -> Backend:
        return OpenVinoBackend(Settings(cached_models=3), cache)

    def test_a_tensorflow_graph_is_read_as_it_is_and_its_names_lose_their_numbers(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        path = tiny_tensorflow(tmp_path / "graph")
        session = self.load(backend, path, [InputSpec("image:0", (1, 2, 2, 3))])
        assert [str(info) for info in session.inputs] == ["`image` uint8 (1, 2, 2, 3)"]
        outputs = session.infer({"image": np.full((1, 2, 2, 3), 7, np.uint8)})
        assert {name: array.ravel()[0] for name, array in outputs.items()} == {"opposite": -7.0, "pixels": 7.0}

    @pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
    def test_an_openvino_model_in_an_archive_is_read(self, backend: Backend, tmp_path: Path, suffix: str) -> None:
        plain = ov.Core().read_model(str(tiny_onnx(tmp_path / "model.onnx")))
        ov.save_model(plain, str(tmp_path / "model.xml"))
        archive = tmp_path / f"asset{suffix}"
        if suffix == ".zip":
            with zipfile.ZipFile(archive, "w") as packed:
                for name in ("model.xml", "model.bin"):
                    packed.write(tmp_path / name, f"export/{name}")
        else:
            with tarfile.open(archive, "w:gz") as packed_tar:
                for name in ("model.xml", "model.bin"):
                    packed_tar.add(tmp_path / name, f"./export/{name}")
        session = self.load(backend, archive)
        assert session.infer({"x": X})["doubled"].tolist() == [[2.0, 4.0, 6.0]]

    def test_a_cache_that_was_cut_short_is_made_again(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        self.load(backend, path).close()
        [folder] = (tmp_path / "cache").iterdir()
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        session = self.load(self.make_backend(tmp_path / "cache"), path)
        assert session.infer({"x": X})["doubled"].tolist() == [[2.0, 4.0, 6.0]]

    def test_the_cache_is_bounded_and_loses_the_longest_unused(self, backend: Backend, tmp_path: Path) -> None:
        for number in range(5):
            self.load(backend, tiny_onnx(tmp_path / f"model-{number}"))
        folders = list((tmp_path / "cache").iterdir())
        assert len(folders) == 3
        assert all((folder / CONVERTED).exists() for folder in folders)

    def test_another_precision_or_version_is_converted_anew(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        self.prepare(backend, path)
        self.prepare(self.make_backend(tmp_path / "cache"), path)
        assert len(list((tmp_path / "cache").iterdir())) == 1
        self.prepare(backend, path, precision="FP16")
        newer = OpenVinoBackend(Settings(cached_models=3), tmp_path / "cache")
        newer.version = "a later one"
        self.prepare(newer, path)
        assert len(list((tmp_path / "cache").iterdir())) == 3

    def test_nothing_is_left_behind_of_a_model_that_failed(self, backend: Backend, tmp_path: Path) -> None:
        path = tmp_path / "broken"
        path.write_bytes(b"\x08\x08garbage")
        with pytest.raises(Exception, match="cannot be read as one"):
            self.load(backend, path)
        assert list((tmp_path / "cache").iterdir()) == []


def test_openvino_does_not_report_to_its_maker() -> None:
    """Its telemetry forks a process and calls out, at the import."""
    program = (
        "import sys, psutil; from edge.inference.backends import create; from edge.inference.settings import Settings;"
        "from pathlib import Path; create('openvino', Settings(), Path('unused'));"
        "assert not [name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module is not None];"
        "assert not psutil.Process().children(recursive=True)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
