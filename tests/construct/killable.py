"""Runs the command again and again in children that are killed: `killable.py ARGUMENTS…`, a delay a line on stdin.

A child is forked with everything imported, so that even an early death comes in the middle of its work. After
each, its exit code is printed (-9: killed). A delay of 0 lets it finish.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import openai  # noqa: F401  (imported before the fork)

import univg.construct.pipeline
import univg.construct.results
import univg.models.processor  # noqa: F401
from univg.cli.main import main

if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            os._exit(main(sys.argv[1:]))
        if float(line):
            time.sleep(float(line))
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
