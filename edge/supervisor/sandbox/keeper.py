"""The keeper of one container of runc: makes it, starts it when told, tells how it ended, takes away what is left.

Run as a program: `python keeper.py RUNC ROOT BUNDLE ID LOG STATUS GO`. runc itself leaves once a container is made; somebody
has to be the parent of its first process, to learn how it ended, and to end it when the supervisor is gone.

  1. `runc create`; the container waits. On STATUS: {"child-pid": …}, or {"error": …}.
  2. A byte on GO: `runc start`. The end of GO without one: nobody will start it; it is deleted.
  3. The first process ends: {"exit-code": …} on STATUS (128 + the signal, as a shell has it), and its output is let go.
  4. The end of standard input, at any time: everything in it is killed and deleted. So a killed supervisor leaves nothing.

Standard output and error are the container's. Standard library only, started without site packages: it stands in the
way of every start, and one stays for each application (7 MB).
"""

import ctypes
import json
import os
import select
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
DELETE_TRIES = 3
LOG_MAX_BYTES = 1 << 20


def main(runc: str, root: str, bundle: str, name: str, log: str, status: int, go: int) -> int:
    """Returns the exit code."""
    # A container's first process is runc's child, and an orphan once runc ends: it becomes ours.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    null = os.open("/dev/null", os.O_RDWR)
    pid_file = bundle + "/pid"

    def call(*arguments: str, output: int | None = None) -> int:
        command = [runc, "--root", root, "--log", log, "--log-format", "json", *arguments]
        actions = [(os.POSIX_SPAWN_DUP2, null, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2) if output is not None]
        pid = os.posix_spawn(runc, command, os.environ, file_actions=actions)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def tell(**message: object) -> None:
        try:
            os.write(status, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return  # nobody listens any more: standard input will end too

    def delete() -> None:
        for _ in range(DELETE_TRIES):
            if call("delete", "--force", name, output=null) == 0:
                return

    if call("create", "--bundle", bundle, "--pid-file", pid_file, name) != 0:
        tell(error=_last_error(log))
        delete()
        return 1
    with open(pid_file) as file:  # noqa: PTH123 - pathlib takes 10 ms to import
        init = int(file.read())
    tell(**{"child-pid": init})
    code = 1
    try:
        if not _told(go):
            return code
        if call("start", name, output=null) != 0:
            tell(error=_last_error(log))
            return code
        for number in (1, 2):
            os.dup2(null, number)
        code = _watch(init)
        tell(**{"exit-code": code})
        os.read(0, 1)
    finally:
        delete()
    return code


def _told(go: int) -> bool:
    """Whether it is to be started; not where standard input ends first."""
    poll = select.poll()
    poll.register(go, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    return 0 not in [fd for fd, _ in poll.poll()] and bool(os.read(go, 1))


def _watch(init: int) -> int:
    """Until it ends; kills it where the supervisor has gone."""
    pidfd = os.pidfd_open(init)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    if pidfd not in [fd for fd, _ in poll.poll()]:
        os.kill(init, signal.SIGKILL)
    while True:
        pid, state = os.waitpid(-1, 0)  # orphans of runc's other steps may come first
        if pid == init:
            code = os.waitstatus_to_exitcode(state)
            return code if code >= 0 else 128 - code


def _last_error(log: str) -> str:
    try:
        with open(log, "rb") as file:  # noqa: PTH123
            lines = file.read(LOG_MAX_BYTES).splitlines()
    except FileNotFoundError:
        lines = []
    messages = [json.loads(line) for line in lines if line.startswith(b"{")]
    errors = [message["msg"] for message in messages if message.get("level") in ("error", "fatal")]
    return str(errors[-1]) if errors else "runc gave no reason"


if __name__ == "__main__":
    _, runc_, root_, bundle_, name_, log_, status_, go_ = sys.argv
    sys.exit(main(runc_, root_, bundle_, name_, log_, int(status_), int(go_)))
