"""framelink and panoramasdk go into other people's containers: old Pythons, no packages but numpy."""

import ast
import pathlib
import sys

import pytest

import framelink
import panoramasdk

LIBS = pathlib.Path(__file__).resolve().parents[2] / "libs"
FILES = sorted([*LIBS.glob("framelink/**/*.py"), *LIBS.glob("panoramasdk/**/*.py")])
OURS = {"numpy", "framelink", "panoramasdk"}


def test_there_are_files_to_look_at():
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_every_file_is_python_3_7(file):
    given = {"feature_version": (3, 7)} if sys.version_info >= (3, 8) else {}
    ast.parse(file.read_text(encoding="utf-8"), **given)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names of Python 3.10")
@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_every_import_is_the_standard_library_numpy_or_ours(file):
    allowed = set(sys.stdlib_module_names) | OURS
    if file.parent.name == "framelink":
        allowed.discard("panoramasdk")
    for step in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(step, ast.Import):
            names = [alias.name for alias in step.names]
        elif isinstance(step, ast.ImportFrom):
            assert step.level == 0
            names = [step.module or ""]
        assert {name.split(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("package", [framelink, panoramasdk], ids=["framelink", "panoramasdk"])
def test_the_public_names_are_there_and_documented(package):
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, type):
            assert value.__doc__, name


def test_what_applications_see_of_the_sdk_is_what_aws_had_and_our_errors():
    assert set(panoramasdk.__all__) == {"media", "node", "port", "ModelError", "NodeError", "TimeoutException"}
