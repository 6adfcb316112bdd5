"""Read the images of requests in processes of their own.

What a file costs is known only once it is decoded, and a thread cannot be stopped. A process can: it has so many
seconds and so much memory, and where a request needs more, or crashes it, only that request is refused.
"""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from univg.grounding.boxes import SizeWH
from univg.models.pixels import PixelBudget
from univg.serve.errors import ApiError
from univg.serve.images import Bounds, read_images

if TYPE_CHECKING:
    from univg.serve.config import Limits

__all__ = ["Decoders"]

_BASE_MIB = 256  # for the interpreter, and for a body's base64 in its several forms
_KEPT = 4_000_000  # pixels of an image that has to stay as it is until the model is given it
_BYTES_A_PIXEL = 24  # a picture twice in memory, and what its decoder holds beside it


class _Job(NamedTuple):
    urls: Sequence[str]
    bounds: Bounds
    seconds: float
    budget: PixelBudget
    factor: int


class Decoders:
    """`count` processes, started when they are first needed. `read` may be called on as many threads."""

    def __init__(self, limits: Limits, count: int) -> None:
        self._limits = limits
        self._bounds = Bounds(limits.megapixels, min(limits.image_megapixels, limits.megapixels))
        most_bytes = (_BASE_MIB << 20) + int(self._bounds.image_megapixels * 1e6 * _BYTES_A_PIXEL)
        self._all = [_Decoder(most_bytes) for _ in range(count)]
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()
        for one in self._all:
            self._idle.put(one)

    def read(self, urls: Sequence[str], budget: PixelBudget, factor: int) -> list[Image.Image]:
        """Return what `read_images` returns, in its bounds of time and memory. Raises ApiError."""
        decoder = self._idle.get()
        try:
            job = _Job(urls, self._bounds, self._limits.images_s, budget, factor)
            return decoder.read(job, self._limits.timeout_s)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for one in self._all:
            one.end()


class _Decoder:
    def __init__(self, most_bytes: int) -> None:
        self._bytes = most_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, job: _Job, patience_s: float) -> list[Image.Image]:
        process = self._process = self._process or _start(self._bytes)
        timer = Timer(patience_s, self.end)  # whatever keeps the process from ending by itself
        timer.start()
        try:
            return _ask(process, job)
        except (
            OSError,
            ValueError,
        ) as error:  # also for an answer that is not there, as the process has ended
            self.end()
            why = f"took more than {job.seconds:g} s" if process.returncode == -signal.SIGPROF else "failed"
            message = f"reading the images {why}: shrink them, or save them anew as PNG or JPEG"
            raise ApiError(400, message, param="messages", code="invalid_image") from error
        finally:
            timer.cancel()
            timer.join()

    def end(self) -> None:
        """End the process; who waits for it finds nothing more to read."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError), process:  # closes its pipes and waits
                pass


def _start(most_bytes: int) -> subprocess.Popen[bytes]:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from univg.serve.decoders import work; work({most_bytes})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _ask(process: subprocess.Popen[bytes], job: _Job) -> list[Image.Image]:
    assert process.stdin is not None and process.stdout is not None
    pickle.dump(job, process.stdin, pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()
    # What comes back is no pickle: those files have been at work there.
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    if "refused" in answer:
        raise ApiError(400, answer["refused"], param="messages", code=answer["code"])
    sizes = [(width, height) for width, height in answer["sizes"]]
    return [Image.frombytes("RGB", size, process.stdout.read(3 * size[0] * size[1])) for size in sizes]


def work(most_bytes: int) -> None:
    """Read the images of one job after another, from standard input to standard output, until that ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a server that is told to stop first answers what it was asked
    with suppress(
        ImportError, ValueError, OSError
    ):  # where the system knows no such bound, time is the only one
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    inbox, outbox = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, BrokenPipeError):
        while True:
            job: _Job = pickle.load(inbox)
            # Of its own time, so that a busy machine refuses nothing; when it is over, the process ends at once.
            signal.setitimer(signal.ITIMER_PROF, job.seconds)
            answer, images = _read(job)
            signal.setitimer(signal.ITIMER_PROF, 0)
            outbox.write(json.dumps(answer).encode() + b"\n")
            for image in images:
                outbox.write(image.tobytes())
            outbox.flush()


def _find_size(job: _Job, size_wh: SizeWH) -> SizeWH:
    """Return the size at which an image is kept. Raises ApiError where that is its own, and too large."""
    kept_wh = job.budget.prepared(size_wh, job.factor)
    if kept_wh[0] * kept_wh[1] > max(_KEPT, 2 * job.budget.max_pixels):
        message = f"an image of {size_wh[0]}x{size_wh[1]} is too long for its size: shrink or crop it"
        raise ApiError(400, message, param="messages", code="invalid_image")
    return kept_wh


def _read(job: _Job) -> tuple[dict[str, Any], list[Image.Image]]:
    try:
        images = read_images(job.urls, job.bounds, partial(_find_size, job))
    except ApiError as error:
        return {"refused": str(error), "code": error.code}, []
    except MemoryError:
        return {"refused": "the images take too much memory: shrink them first", "code": "invalid_image"}, []
    return {"sizes": [image.size for image in images]}, images
