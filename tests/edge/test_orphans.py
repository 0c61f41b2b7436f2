"""What outlives its parent below the runner is ended by it; what the runner started itself is not touched."""

from __future__ import annotations

import subprocess
import sys

ORPHANS = """
import os, subprocess, sys, time
import psutil
from edge.orphans import adopt_orphans, end_orphans

adopt_orphans()
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
# A parent that starts a process of another session, which starts one in turn, and is killed.
script = '''
import subprocess, sys, time
inner = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
time.sleep(600)
'''
parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
parent.stdout.readline()
orphans = psutil.Process(parent.pid).children(recursive=True)
assert len(orphans) == 2, orphans
parent.kill()
parent.wait()
assert end_orphans({own.pid}) == 2
assert not any(orphan.is_running() for orphan in orphans)
assert own.poll() is None
assert end_orphans({own.pid}) == 0
own.kill()
own.wait()
print("done")
"""


def test_orphans_are_ended_with_all_below_them_and_own_children_stay() -> None:
    ended = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.endswith("done\n"), ended.stderr
