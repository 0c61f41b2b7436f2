"""What a Dockerfile asks for."""

from __future__ import annotations

import pytest

from belvedere.appdir.dockerfile import BASE_IMAGE, Instruction, base_reference, instructions, needs_engine, with_base

PLAIN = f"FROM {BASE_IMAGE}\nCOPY src /panorama\n"


def test_continued_lines_are_one_instruction_and_comments_are_none() -> None:
    text = "# syntax\nFROM a\n\nRUN apt-get update && \\\n  # in between\n  apt-get install x\n  COPY a b"
    assert instructions(text) == (
        Instruction(2, "FROM a"),
        Instruction(4, "RUN apt-get update && apt-get install x"),
        Instruction(7, "COPY a b"),
    )


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f"FROM {BASE_IMAGE}:1.2.1-arm64v8\ncopy ./src/ /panorama/\n",
        f'# mine\nFROM {BASE_IMAGE} AS base\nCOPY src /panorama\nENV LOG=1\nENTRYPOINT ["python3"]\nLABEL a=b',
    ],
)
def test_copying_the_code_onto_the_base_needs_no_engine_however_it_is_written(text: str) -> None:
    assert needs_engine(text) is None


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (3, PLAIN + "RUN pip3 install torch"),
        (3, PLAIN + "ADD https://example.org/model.tar /models/"),
        (3, PLAIN + "COPY --from=builder /opt /opt"),
        (1, "FROM ubuntu:22.04\nCOPY src /panorama"),
        (1, f"FROM {BASE_IMAGE}-mine\nCOPY src /panorama"),
        (3, PLAIN + "WORKDIR /made"),
    ],
)
def test_what_changes_the_file_system_otherwise_needs_one(line: int, text: str) -> None:
    found = needs_engine(text)
    assert found is not None and found.line == line


def test_the_base_is_found_and_replaced_wherever_it_is_named() -> None:
    text = (
        f"ARG TAG=1\nFROM {BASE_IMAGE}:${{TAG}} AS one\nFROM {BASE_IMAGE}@sha256:{'a' * 64}\n"
        f"COPY --from={BASE_IMAGE}:1.2 /usr/lib /usr/lib\nFROM {BASE_IMAGE}-other:2\n"
    )
    assert base_reference(text) == f"{BASE_IMAGE}:${{TAG}}"
    assert with_base(text, "docker.io/library/python:3.11-slim") == (
        "ARG TAG=1\nFROM docker.io/library/python:3.11-slim AS one\nFROM docker.io/library/python:3.11-slim\n"
        f"COPY --from=docker.io/library/python:3.11-slim /usr/lib /usr/lib\nFROM {BASE_IMAGE}-other:2\n"
    )
    assert base_reference("FROM python:3.11\n") is None
