"""Write the log: one line each, whatever clients and models put into it, and never waited for."""

from __future__ import annotations

import logging
import queue
from logging.handlers import QueueHandler, QueueListener
from types import TracebackType
from typing import Any

from univg.errors import one_line

__all__ = ["start_log"]

_LINES = 10_000  # that wait to be written; what is more is lost

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def start_log(level: str) -> QueueListener:
    """Send the log to stderr from a thread of its own: a full pipe that nobody reads stops no request."""
    number = getattr(logging, level.upper())
    lines: queue.Queue[Any] = queue.Queue(_LINES)
    handler = _Handler(lines)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, number))
    logging.getLogger("univg").setLevel(number)
    listener = QueueListener(lines, logging.StreamHandler())
    listener.start()
    return listener


class _Handler(QueueHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: the one place to say so is the log."""


class _Formatter(logging.Formatter):
    r"""Escapes control characters; a traceback's lines are set in, so that none looks like an entry of its own.

    >>> record = logging.makeLogRecord({"msg": "no such file: %s", "args": ("a\n2026-01-01 INFO b",)})
    >>> _Formatter("%(message)s").format(record)
    'no such file: a\\n2026-01-01 INFO b'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _ExcInfo) -> str:
        return "\n".join(f"    {one_line(line)}" for line in super().formatException(ei).split("\n"))
