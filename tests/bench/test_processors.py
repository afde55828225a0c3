"""Processor time is given to whom it belongs: to a process with its children, and to this one without them."""

import os
import subprocess
import sys

from bench.processors import Usage, accounting

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"

BURN_AND_STAY = BURN + "print(flush=True)\ninput()"

# A child that ends, one that goes on, and a word when both have worked.
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
other = subprocess.Popen([sys.executable, "-c", {BURN_AND_STAY!r}], stdout=-1, stdin=-1)
other.stdout.readline()
print(flush=True)
input()
other.communicate(b"\\n")
"""


def test_a_process_answers_for_its_children() -> None:
    """Also for one that has ended, as a server's connections do."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        with accounting({"it": parent.pid, "this": os.getpid()}) as usage:
            parent.stdout.readline()
        parent.communicate(b"\n")
    assert usage.used["it"] > 0.5
    assert usage.used["this"] < usage.used["it"]


def test_the_time_is_told_for_each_of_what_was_done() -> None:
    usage = Usage(seconds=10, used={"the API": 4.0, "PostgreSQL": 6.0})
    share, *each = usage.figures(2000, "a command")
    assert share.value == 100 * 10 / (10 * (os.cpu_count() or 1))
    assert [(figure.name, figure.value, figure.unit) for figure in each] == [
        ("the API's processor time for a command", 2.0, "ms"),
        ("PostgreSQL's processor time for a command", 3.0, "ms"),
    ]
