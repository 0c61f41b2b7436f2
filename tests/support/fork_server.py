"""Starts Python programs without Python's start: one process imports what they import, and forks itself for each.

    python fork_server.py SOCKET '[["aws", "s3", "ls"], …]'      # in the programs' environment, with it first on PATH

It first runs the command lines given, in its own process and without a word, so that whatever programs import lazily
is there; then it prints "ready". Variables of the environment that an import has changed (AWS_DATA_PATH) must come as
they were in that first run. From then on SHIM (with the two paths filled in), put on a PATH in place of a program,
has that program run in a fork that takes over its arguments, environment, working directory and standard streams, and
ends as that ends. The program itself is the one on the environment's PATH, unmodified and run as `__main__`.

Runs as a script, in any Python 3.11; must not know what the programs are.
"""

from __future__ import annotations

import atexit
import gc
import json
import marshal
import os
import runpy
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHIM = """#!{python} -IS
import marshal, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    server.sendall(marshal.dumps((sys.argv, dict(os.environ), os.getcwd())))
    server.shutdown(socket.SHUT_WR)
    code = server.recv(1)
sys.exit(code[0] if code else "it ended without an exit code")
"""
STREAMS = 3
BACKLOG = 64


def run_program(name: str, arguments: list[str], own_path: str) -> int:
    """Runs a program that is found on that PATH as `__main__`; its exit code."""
    path = shutil.which(name, path=own_path)
    if path is None:
        raise FileNotFoundError(f"{name} is not on {own_path}")
    sys.argv = [path, *arguments]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as Python itself does with what nobody catches
        traceback.print_exc()
        return 1
    return 0


def warm_up(commands: list[list[str]]) -> dict[str, tuple[str | None, str]]:
    """Runs them for what they import; the variables that this changed: what each was and is."""
    kept = [os.dup(stream) for stream in range(STREAMS)]
    environment, folder = dict(os.environ), Path.cwd()
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        for stream in range(STREAMS):
            os.dup2(nothing.fileno(), stream)
    for command in commands:
        run_program(command[0], command[1:], os.environ["PATH"])
    _flush()
    for stream, was in enumerate(kept):
        os.dup2(was, stream)
        os.close(was)
    changed = {
        name: (environment.get(name), value) for name, value in os.environ.items() if environment.get(name) != value
    }
    os.chdir(folder)
    if threading.active_count() > 1:
        raise RuntimeError("a program left threads, which no fork would have")
    gc.collect()
    gc.freeze()
    return changed


def serve(path: str, own_path: str, changed: Mapping[str, tuple[str | None, str]]) -> None:
    """One fork for each who connects. `own_path`: the PATH where the programs themselves are found; `changed`: what
    `warm_up` told."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: they tell their end themselves
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(BACKLOG)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _become(connection, own_path, changed)
            connection.close()


def _become(connection: socket.socket, own_path: str, changed: Mapping[str, tuple[str | None, str]]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, STREAMS)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    told = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    given: tuple[list[str], dict[str, str], str] = marshal.loads(told)
    arguments, environment, folder = given
    for name, values in changed.items():
        if environment.get(name) not in values:
            raise SystemExit(f"{name} is read at import: {environment.get(name)!r} comes too late")
        environment[name] = values[1]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    code = run_program(Path(arguments[0]).name, arguments[1:], own_path)
    _end_as_python_does()
    connection.sendall(bytes([code & 0xFF]))
    os._exit(code & 0xFF)


def _end_as_python_does() -> None:
    end: Any = threading
    end._shutdown()
    atexit._run_exitfuncs()
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # whoever read has left


def main() -> None:
    path, commands = sys.argv[1], json.loads(sys.argv[2])
    own_path = os.environ["PATH"]
    serve(path, own_path, warm_up(commands))


if __name__ == "__main__":
    main()
