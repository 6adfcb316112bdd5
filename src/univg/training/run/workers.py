"""Processes that draw data beside a run: they end with it, and one that dies is named."""

from __future__ import annotations

import multiprocessing
import os
import queue
import re
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.utils.data import get_worker_info

from univg.errors import UnivgError

__all__ = ["be_a_worker", "made_ahead", "naming_dead_workers"]

_LOOK_S = 1.0
_END_S = 20.0

A = TypeVar("A")
B = TypeVar("B")
_told = threading.Event()


def be_a_worker(number: int | None = None) -> None:
    """Let this process, if it is a data worker, end with the run: at Ctrl-C at once, or when the run was killed.

    Fits as a loader's `worker_init_fn` and may be called any number of times. Without it a worker whose run was killed
    waits for ever to hand over what it has made: it holds both ends of that pipe, so that nothing tells it.
    """
    if get_worker_info() is None or _told.is_set():
        return
    _told.set()
    # Ctrl-C reaches the whole group. To end as if all were well keeps torch from an error of its own in the run.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(pid: int) -> None:
    """End this process as soon as its parent has ended, or is another one than `pid`.

    Both are looked at: workers that were started later keep the parent's end of our pipe open, and a parent that had
    ended before we asked has another id already. The death signal of Linux would follow the starting thread instead.
    """
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and os.getppid() == pid:
        parent.join(_LOOK_S)
    os._exit(1)


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raise UnivgError for what torch raises in the run, at any line, when one of its data workers has died."""
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (.*)", " ".join(str(error).split()))
        if found is None:
            raise
        pid, what = found[1], found[2].partition(". ")[0].rstrip(". ")
        raise UnivgError(
            f"a data worker (process {pid}) {what.replace('is killed by signal: ', 'was killed by signal ')}",
            remedy="if memory ran out, --resume with fewer workers; workers=0 shows an error of its own",
        ) from error


def made_ahead(items: Iterable[A], prepare: Callable[[A], B], ahead: int = 2) -> Generator[B, None, None]:
    """Yield `prepare(item)` of each item, fetched and prepared by a thread, up to `ahead` before they are asked for.

    What the thread raises is raised here. It ends with the last item, or when this iterator is closed.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    closed = threading.Event()

    def fill() -> None:
        try:
            for item in items:
                put(True, prepare(item))
                if closed.is_set():
                    return
            put(False, None)
        except BaseException as error:  # noqa: BLE001 — whatever it is, the run's own thread must hear of it
            put(False, error)

    def put(is_item: bool, value: Any) -> None:
        while not closed.is_set():
            try:
                return ready.put((is_item, value), timeout=_LOOK_S)
            except queue.Full:
                continue

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        closed.set()
        thread.join(_END_S)
