"""A second process that does what a test says, one piece of Python at a time: for what must not happen in the test's own process.

    with Interpreter("from framelink import FrameReader") as other:
        other.do("reader = FrameReader(path, 'other')", path=str(path))
        assert other.ask("reader.get(2).info.sequence") == 1
        other.kill()                                        # SIGKILL

Standard library only, and valid on Python 3.7, like what it tests.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys

LIBS = str(pathlib.Path(__file__).resolve().parents[2] / "libs")
ANSWER_TIMEOUT_S = 30

_LOOP = """
import json, sys, traceback
answers = open(int(sys.argv[1]), "w")
scope = {"__name__": "other"}
for line in sys.stdin:
    kind, code, given = json.loads(line)
    scope.update(given)
    try:
        answer = {"value": eval(code, scope)} if kind == "ask" else {"value": exec(code, scope)}
    except BaseException as error:
        answer = {"error": type(error).__name__, "message": str(error)}
        traceback.print_exc()
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()
"""


def python():
    """The interpreter of the other process: this one, or BELVEDERE_TEST_PYTHON."""
    return os.environ.get("BELVEDERE_TEST_PYTHON") or sys.executable


class Raised(Exception):
    """What the other process raised; `.kind` is the class's name."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Interpreter:
    """`setup` runs first, in the other process; `environment` is added to its environment."""

    def __init__(self, setup="", **environment):
        answers, theirs = os.pipe()
        self._process = subprocess.Popen(
            [python(), "-c", _LOOP, str(theirs)],
            stdin=subprocess.PIPE,
            pass_fds=[theirs],
            env=dict(os.environ, PYTHONPATH=LIBS, **environment),
            universal_newlines=True,
        )
        os.close(theirs)
        self._answers = os.fdopen(answers)
        self.pid = self._process.pid
        if setup:
            self.do(setup)

    def do(self, code, **given):
        """Run statements; the keywords are variables for them. Raised where they raise."""
        self._send("do", code, given)
        self.answer()

    def ask(self, expression, **given):
        """The expression's value, which must have a JSON form."""
        self._send("ask", expression, given)
        return self.answer()

    def begin(self, code, **given):
        """Like `do`, without waiting: `answer()` waits."""
        self._send("do", code, given)

    def begin_ask(self, expression, **given):
        """Like `ask`, without waiting: `answer()` waits."""
        self._send("ask", expression, given)

    def answer(self):
        ready, _, _ = select.select([self._answers], [], [], ANSWER_TIMEOUT_S)
        line = self._answers.readline() if ready else ""
        if not line:
            raise AssertionError(f"the other process gave no answer within {ANSWER_TIMEOUT_S} s, or has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise Raised(answer["error"], answer["message"])
        return answer["value"]

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self):
        """SIGSTOP: it lives and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.kill()
        self._process.stdin.close()
        self._answers.close()

    def _send(self, kind, code, given):
        self._process.stdin.write(json.dumps([kind, code, given]) + "\n")
        self._process.stdin.flush()
