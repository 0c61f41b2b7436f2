"""The AWS CLI's `s3` and `s3api` commands on ordinary buckets: copies in every direction, streams, syncs, odd names, presigned URLs."""

from __future__ import annotations

import json
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import Aws
from tests.support.clients import INSTALL_TIMEOUT_S, Clients
from tests.support.front_door import Door

pytestmark = [pytest.mark.peers, pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)]

ODD = ("a b.txt", "plus+and%41.txt", "ünï/日本.txt", "dir/../dots.txt", "q?x=y&z#f.txt", "quote'\"<&>.txt")


@pytest.fixture
def bucket(aws: Aws) -> Iterator[str]:
    name = f"cli-{uuid.uuid4().hex[:12]}"
    aws("s3", "mb", f"s3://{name}")
    yield name
    aws("s3", "rb", f"s3://{name}", "--force")
    assert name not in str(aws("s3", "ls"))


def test_files_with_odd_names_are_synced_moved_and_removed(aws: Aws, bucket: str, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    for name in ("a b.txt", "plus+and%41.txt", "ünï/日本.txt", "q?x=y&z#f.txt", "quote'<&>.txt", "empty"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("" if name == "empty" else name)
    aws("s3", "sync", str(here), f"s3://{bucket}/in")
    # The second time there is nothing to do.
    assert aws("s3", "sync", str(here), f"s3://{bucket}/in") == ""
    aws("s3", "sync", f"s3://{bucket}/in", f"s3://{bucket}/copy")
    aws("s3", "mv", f"s3://{bucket}/copy/a b.txt", f"s3://{bucket}/moved/to +.txt")
    (here / "empty").unlink()
    assert "delete: " in str(aws("s3", "sync", str(here), f"s3://{bucket}/in", "--delete"))
    aws("s3", "cp", f"s3://{bucket}/", str(back), "--recursive")
    found = {str(file.relative_to(back)): file.read_text() for file in back.rglob("*") if file.is_file()}
    names = {"plus+and%41.txt", "ünï/日本.txt", "q?x=y&z#f.txt", "quote'<&>.txt"}
    kept = {f"{top}/{name}": name for top in ("in", "copy") for name in names}
    assert found == {**kept, "in/a b.txt": "a b.txt", "moved/to +.txt": "a b.txt", "copy/empty": ""}
    said = str(aws("s3", "ls", f"s3://{bucket}/", "--recursive", "--summarize"))
    assert f"Total Objects: {len(found)}" in said and "ünï/日本.txt" in said
    assert "PRE in/" in str(aws("s3", "ls", f"s3://{bucket}"))
    aws("s3", "rm", f"s3://{bucket}/", "--recursive", "--exclude", "*", "--include", "copy/*")
    assert "copy/" not in str(aws("s3", "ls", f"s3://{bucket}/", "--recursive"))


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_a_large_file_goes_in_parts_with_any_checksum(aws: Aws, bucket: str, tmp_path: Path, algorithm: str) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(range(251)) * (9 << 12))
    place = ["--bucket", bucket, "--key", "large.bin"]
    aws("s3", "cp", str(large), f"s3://{bucket}/large.bin", "--checksum-algorithm", algorithm)
    told = aws("s3api", "get-object-attributes", *place, "--object-attributes", "ObjectParts", "ObjectSize", "Checksum")
    assert told["ObjectSize"] == large.stat().st_size and told["ObjectParts"]["TotalPartsCount"] == 2
    assert f"Checksum{algorithm}" in told["Checksum"]
    aws("s3", "cp", f"s3://{bucket}/large.bin", str(tmp_path / "back"), "--checksum-mode", "ENABLED")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    if algorithm == "CRC32":
        aws("s3", "mv", f"s3://{bucket}/large.bin", f"s3://{bucket}/elsewhere.bin")
        part = ["--bucket", bucket, "--key", "elsewhere.bin", "--part-number", "2", str(tmp_path / "part")]
        assert aws("s3api", "get-object", *part)["PartsCount"] == 2
        assert (tmp_path / "part").read_bytes() == large.read_bytes()[8 << 20 :]


def test_streams_and_presigned_urls(
    aws: Aws, door: Door, installed_tools: Clients, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text("{}")
    aws("s3", "cp", str(tmp_path / "x.json"), f"s3://{bucket}/ä b.json", "--metadata", "k=v", "--acl", "private",
        "--cache-control", "no-cache", "--storage-class", "STANDARD_IA", "--sse", "AES256")  # fmt: skip
    assert aws("s3", "cp", f"s3://{bucket}/ä b.json", "-") == {}
    head = aws("s3api", "head-object", "--bucket", bucket, "--key", "ä b.json")
    assert (head["ContentType"], head["Metadata"], head["StorageClass"]) == (
        "application/json",
        {"k": "v"},
        "STANDARD_IA",
    )
    url = str(aws("s3", "presign", f"s3://{bucket}/ä b.json", "--expires-in", "60"))
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == b"{}" and answer.headers["Content-Type"] == "application/json"
    piped = subprocess.run(
        [installed_tools.folder / "bin" / "aws", "s3", "cp", "-", f"s3://{bucket}/piped"],
        input=b"from a pipe", env={**door.environment, "PATH": "/usr/bin", "HOME": str(tmp_path)}, timeout=60, check=False,
        capture_output=True,
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    aws("s3", "cp", f"s3://{bucket}/piped", str(tmp_path / "piped"))
    assert (tmp_path / "piped").read_bytes() == b"from a pipe"


def test_what_is_not_there_is_told_as_scripts_read_it(
    aws: Aws, door: Door, tools: Clients, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")

    def error(*command: str) -> str:
        done = tools.run(door, ["aws", *command], cwd=tmp_path, check=False)
        assert done.returncode != 0
        return done.stderr

    place = ["--bucket", bucket, "--key", "none"]
    assert "(404)" in error("s3api", "head-object", *place) and "Not Found" in error("s3api", "head-object", *place)
    assert "(NoSuchKey)" in error("s3api", "get-object", *place, str(tmp_path / "out"))
    assert "(404)" in error("s3", "cp", f"s3://{bucket}/none", str(tmp_path / "out"))
    assert "(NoSuchBucket)" in error("s3", "cp", str(tmp_path / "f"), "s3://no-such-bucket-here/f")
    assert "(404)" in error("s3api", "head-bucket", "--bucket", "no-such-bucket-here")
    aws("s3api", "put-object", "--bucket", bucket, "--key", "f", "--body", "f")
    there = ["--bucket", bucket, "--key", "f"]
    tag = aws("s3api", "head-object", *there)["ETag"]
    assert "(PreconditionFailed)" in error("s3api", "put-object", *there, "--body", "f", "--if-none-match", "*")
    assert "(304)" in error("s3api", "get-object", *there, "--if-none-match", tag, "out")
    assert "(InvalidRange)" in error("s3api", "get-object", *there, "--range", "bytes=5-", "out")
    assert "(BucketNotEmpty)" in error("s3", "rb", f"s3://{bucket}")
    unsigned = error("s3", "ls", f"s3://{bucket}", "--no-sign-request")
    assert "(AccessDenied)" in unsigned and "Access Denied" in unsigned


def test_objects_are_listed_in_pages_by_a_starting_token(aws: Aws, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for key in ODD:
        aws("s3api", "put-object", "--bucket", bucket, "--key", key, "--body", "f")
    seen: list[str] = []
    more: list[str] = []
    while True:
        page: Any = aws("s3api", "list-objects-v2", "--bucket", bucket, "--page-size", "2", "--max-items", "2", *more)
        seen += [entry["Key"] for entry in page["Contents"]]
        if "NextToken" not in page:
            break
        more = ["--starting-token", page["NextToken"]]
    assert seen == sorted(ODD, key=str.encode)
    (tmp_path / "gone.json").write_text(json.dumps({"Objects": [{"Key": key} for key in ODD], "Quiet": True}))
    aws("s3api", "delete-objects", "--bucket", bucket, "--delete", "file://gone.json")
    assert "Contents" not in (aws("s3api", "list-objects-v2", "--bucket", bucket) or {})
