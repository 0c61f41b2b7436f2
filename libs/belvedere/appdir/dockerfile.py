"""What a Dockerfile asks for, as far as packaging needs to know: whether copying `src` is all of it, and which image it
begins with. Pure: text in, text out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from belvedere.appdir.archive import CODE_ROOT

BASE_IMAGE = "public.ecr.aws/panorama/panorama-application"
"""AWS's image, which stands for the appliance's own base."""

_BASE = re.compile(re.escape(BASE_IMAGE) + r"(?::[\w.${}-]+)?(?:@sha256:[0-9a-f]{64})?(?![\w/-])")
_FILESYSTEM_FREE = {
    *("ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK"),
    *("LABEL", "MAINTAINER", "SHELL", "STOPSIGNAL", "USER"),
}
"""These say how docker would run the image. Only its filesystem is deployed, which they don't change."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    line: int
    """Where it begins, from 1."""
    text: str

    @property
    def keyword(self) -> str:
        return self.text.split(None, 1)[0].upper()

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(self.text.split()[1:])


def instructions(text: str) -> tuple[Instruction, ...]:
    """The instructions of a Dockerfile, without comments."""
    found: list[Instruction] = []
    begun = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not parts:
            begun = number
        goes_on = stripped.endswith("\\")
        parts.append(stripped.removesuffix("\\").strip())
        if not goes_on:
            found.append(Instruction(begun, " ".join(parts)))
            parts = []
    if parts:
        found.append(Instruction(begun, " ".join(parts)))
    return tuple(found)


def needs_engine(text: str) -> Instruction | None:
    """The first instruction that does more than copying `src` to /panorama on the appliance's own base; None when that is
    all."""
    for instruction in instructions(text):
        arguments = instruction.arguments
        base = instruction.keyword == "FROM" and arguments[:1] and _BASE.fullmatch(arguments[0])
        copy = instruction.keyword == "COPY" and [word.strip("/.") for word in arguments] == ["src", CODE_ROOT]
        if not (base or copy or instruction.keyword in _FILESYSTEM_FREE):
            return instruction
    return None


def base_reference(text: str) -> str | None:
    """AWS's base image as the Dockerfile names it; None where it begins with something else."""
    for instruction in instructions(text):
        if instruction.keyword in ("ARG", "FROM", "COPY") and (found := _BASE.search(instruction.text)):
            return found.group()
    return None


def with_base(text: str, image: str) -> str:
    """The same Dockerfile on another base image, wherever it names AWS's."""
    return _BASE.sub(lambda _: image, text)
