"""Several processes that train together end together, and say once why.

A launcher ends all processes by SIGTERM as soon as one has died. In a collective on processors (gloo) they may find out
before it; on GPUs (NCCL) they wait for it. Either way one line says where the run goes on: the first process's, or, if
it is the dead one, that of another, which is told by the run's lock.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from univg.errors import one_line
from univg.terminal import is_first_process
from univg.training.run.checkpoints import say_kept
from univg.training.run.launch import LOCK, count_processes

__all__ = ["ending_together"]

_RELEASED_S = 2.0
"""A dead process's lock is free when its data workers have ended, too."""
_GONE = ("closed by peer", "reset by peer", "broken pipe", "socket closed", "connection was likely closed")
_SILENT = ("timed out", "timeout")
"""How torch says, in lower case, that another process has gone, or does not answer."""
_ABOVE = "(what it said, if anything, stands above)"
_taken: list[FileLock] = []
_watched: list[int] = []


@contextmanager
def ending_together(out: Path, say_where: Callable[[Path], str] = say_kept) -> Iterator[None]:
    """Say in one line where a run of several processes goes on, if one of them has died or does not answer.

    `say_where` says it of the run's folder. For the command alone, because it takes SIGTERM over.
    """
    if count_processes() == 1:
        yield
        return
    said = threading.Event()

    def say(what: str) -> None:
        if not said.is_set() and _may_speak(out):
            said.set()
            print(f"error: {what}: {say_where(out)}", file=sys.stderr, flush=True)

    with _at_sigterm(
        lambda: say(f"ended from outside, as when another process of the run has died {_ABOVE}")
    ):
        try:
            yield
        except Exception as error:
            lost = _find_lost(error)
            if lost is None:
                raise
            say(lost)
            raise SystemExit(1) from error


def _find_lost(error: Exception) -> str | None:
    """Return what an error of torch says of another process: that it has gone, or does not answer; else None.

    >>> _find_lost(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2048"))
    'another process of the run has died (what it said, if anything, stands above)'
    >>> _find_lost(RuntimeError("shape mismatch"))
    """
    text = " ".join(str(error).split())
    if "gloo" not in text and not type(error).__name__.startswith("Dist"):
        return None
    if any(sign in text.lower() for sign in _GONE):
        return f"another process of the run has died {_ABOVE}"
    if any(sign in text.lower() for sign in _SILENT):
        return f"another process of the run does not answer in time ({one_line(text)[:120]})"
    return None


def _may_speak(out: Path) -> bool:
    """Tell whether this process is the one to speak for all: the first, or if that is dead, who gets its lock first."""
    if is_first_process():
        return True
    try:
        _taken.append(FileLock(out / LOCK))
        _taken[-1].acquire(timeout=_RELEASED_S)
    except (OSError, NotImplementedError):  # held, or a file system without locks
        return False
    return True


@contextmanager
def _at_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Do something at SIGTERM before the process ends by it, also while the main thread waits in a collective.

    Python's own handlers wait until such a call returns; a byte written at the signal wakes a thread at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGTERM:
                act()
                os._exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _watched.append(writer)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGTERM, before)
        _watched.remove(writer)
        os.close(writer)


def _leave_alone() -> None:
    """In a forked process, such as a data worker: it shares the pipe, and its end is not the run's."""
    if _watched:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_leave_alone)
