"""Run the command in children that can be killed: `killable.py ARGUMENTS…`, one run for each line of stdin.

A child is forked with everything imported, so that even an early death comes in the middle of its work. Its process
id is printed when it begins, its exit code when it has ended (-9: killed).
"""

from __future__ import annotations

import os
import sys

import httpx2  # noqa: F401  (imported before the fork)

import univg.cli.construct
import univg.construct.pipeline
import univg.construct.sources
import univg.construct.teacher  # noqa: F401
from univg.cli.main import main
from univg.models.pixels import PixelBudget

if __name__ == "__main__":
    PixelBudget().resized((28, 28), 28)  # which imports transformers
    print("ready", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            os._exit(main(sys.argv[1:]))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
