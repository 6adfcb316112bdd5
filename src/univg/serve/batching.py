"""Answer requests that arrive at any time, in batches, by one worker thread.

`generate` takes all chats of a batch with one limit, one temperature and one number of responses. So requests that
agree in these three are put together; seeds differ from request to request, as each chat names its own stream of
random numbers. The oldest request is always in the next batch: none is passed over for ever.
"""

from __future__ import annotations

import copy
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from univg.models.generation import generate as generation
from univg.models.generation.generate import Chat, Generation
from univg.models.temperature import settle_temperature
from univg.models.tokens import count_prompt

if TYPE_CHECKING:
    from univg.models.loading import Loaded

WINDOW_S = 0.01
_LONGEST_WINDOW_S = 0.25
_FAILING = 3

_log = logging.getLogger("univg.batching")


@dataclass(frozen=True)
class Ask:
    """One request. `temperature` 0 is greedy, as is one so low that it is kept as 0: its `n` responses are then
    copies of one. The same `seed` gives the same responses whatever else is in the batch; None draws anew.
    `prompt_tokens` is what the prompt takes (`PromptMeter`); `name` is what the log calls the request."""

    chat: Chat
    max_new_tokens: int
    temperature: float = 0.0
    n: int = 1
    seed: int | None = None
    prompt_tokens: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1 or not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"n={self.n}, max_new_tokens={self.max_new_tokens}, temperature={self.temperature}: "
                "counts are at least 1, the temperature at least 0"
            )
        object.__setattr__(self, "temperature", settle_temperature(self.temperature))

    @property
    def rows(self) -> int:
        """How many responses are really generated."""
        return self.n if self.temperature > 0 else 1

    @property
    def settings(self) -> tuple[int, float, int]:
        """What all requests of a batch have in common."""
        return self.max_new_tokens, self.temperature, self.rows


class Closed(RuntimeError):
    """The batcher takes no more requests; `completions` catches it and replies 503."""


class Expired(RuntimeError):
    """A request waited past its deadline; `completions` catches it and replies 504."""


class BatchReport(NamedTuple):
    """What one call of `generate` did: `requests` and `rows` in it, tokens read and written, `seconds`, and
    whether it `failed`."""

    requests: int
    rows: int
    prompt_tokens: int
    tokens: int
    seconds: float
    failed: bool


class _Job(NamedTuple):
    ask: Ask
    future: Future[list[Generation]]
    deadline: float
    arrived: float


class Batcher:
    """A queue and a worker thread around `generate`.

    A batch holds up to `batch_size` responses and `batch_tokens` tokens, padding and responses to come
    included (one request alone may exceed either). An idle worker waits `window_s` after the first request for
    others, and longer (up to a quarter of a second) while some are `arriving`. `on_batch` is called on the worker's
    thread. `submit` is unbounded: whoever calls it bounds what waits.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch_size: int = 16,
        batch_tokens: int = 1 << 17,
        window_s: float = WINDOW_S,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        if batch_size < 1 or batch_tokens < 1:
            raise ValueError(f"batch_size={batch_size}, batch_tokens={batch_tokens}: must be at least 1")
        self._loaded, self._batch_size, self._batch_tokens = loaded, batch_size, batch_tokens
        self._window_s, self._on_batch = window_s, on_batch
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._arriving, self._failed_in_a_row = 0, 0
        self._closed = False
        self._running_since: float | None = None
        self._last_s = 0.0
        # A daemon: a second Ctrl-C must not wait for a batch that takes minutes. `close` waits for it.
        self._worker = threading.Thread(target=self._work, name="generate", daemon=True)
        self._worker.start()

    def submit(self, ask: Ask, timeout_s: float = float("inf")) -> Future[list[Generation]]:
        """Return the future of `ask.n` responses. A request that is cancelled while it waits, or not begun within
        `timeout_s`, is never run.

        Its errors: `Expired`; `ValueError` for a chat that does not name each image once; whatever the model
        raised. Raises `Closed` after `close`.
        """
        future: Future[list[Generation]] = Future()
        now = time.monotonic()
        with self._changed:
            if self._closed or not self._worker.is_alive():
                raise Closed("no more requests are taken")
            self._waiting.append(_Job(ask, future, now + timeout_s, now))
            self._changed.notify_all()
        # At once, not when the batch that is running has ended: until then it would hold its images.
        future.add_done_callback(self._forget_cancelled)
        return future

    def _forget_cancelled(self, future: Future[list[Generation]]) -> None:
        if future.cancelled():
            with self._changed:
                self._waiting = [job for job in self._waiting if job.future is not future]

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Announce, while this is entered, a request on its way to `submit`: a batch about to start waits for it."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many requests are in no batch yet."""
        return len(self._waiting)

    def running_s(self) -> float:
        """Return how long the present batch has been running; 0 between batches."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def last_s(self) -> float:
        """How long the last batch took; 0 before the first."""
        return self._last_s

    @property
    def fault(self) -> str | None:
        """Why answers cannot be expected, or None: the worker has ended, or several batches in a row failed (a
        GPU after an error of its own fails for ever)."""
        if not self._worker.is_alive() and not self._closed:
            return "the worker has ended"
        if self._failed_in_a_row >= _FAILING:
            return f"the last {self._failed_in_a_row} batches failed"
        return None

    def close(self, timeout_s: float | None = None) -> bool:
        """Take nothing more, finish what was taken, end the worker; return whether it ended within `timeout_s`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            self._running_since = time.monotonic()
            try:
                self._run(batch)
            except BaseException as error:  # the thread ends here: nobody may wait for it any longer
                with self._changed:
                    left = batch + self._waiting
                    self._waiting = []
                for job in left:
                    if not job.future.done():
                        job.future.set_exception(error)
                raise
            finally:
                self._running_since = None

    def _next_batch(self) -> list[_Job] | None:
        """Wait for the next batch; None after `close`, when all is done."""
        with self._changed:
            while True:
                self._drop_expired()
                if not self._waiting:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                pause = self._seconds_to_wait()
                if pause <= 0:
                    break
                self._changed.wait(pause)
            batch = self._choose()
            chosen = {id(job) for job in batch}
            self._waiting = [job for job in self._waiting if id(job) not in chosen]
        # From here on it cannot be cancelled; what was cancelled meanwhile is left out.
        return [job for job in batch if job.future.set_running_or_notify_cancel()]

    def _drop_expired(self) -> None:
        now, kept = time.monotonic(), []
        for job in self._waiting:
            if job.deadline > now:
                kept.append(job)
            elif job.future.set_running_or_notify_cancel():
                job.future.set_exception(Expired(f"not begun within {now - job.arrived:.0f} s"))
        self._waiting = kept

    def _seconds_to_wait(self) -> float:
        """Return how long the next batch may still wait for company."""
        if self._closed or sum(job.ask.rows for job in self._waiting) >= self._batch_size:
            return 0.0
        patience = max(self._window_s, _LONGEST_WINDOW_S) if self._arriving else self._window_s
        return self._waiting[0].arrived + patience - time.monotonic()

    def _choose(self) -> list[_Job]:
        """Return the oldest request, and those after it that can go with it and fit."""
        oldest = self._waiting[0].ask
        chosen: list[_Job] = []
        rows = longest = 0
        for job in self._waiting:
            ask = job.ask
            length = max(longest, ask.prompt_tokens + ask.max_new_tokens)
            fits = rows + ask.rows <= self._batch_size and (rows + ask.rows) * length <= self._batch_tokens
            if ask.settings == oldest.settings and (fits or not chosen):
                chosen.append(job)
                rows, longest = rows + ask.rows, length
        return chosen

    def _run(self, batch: Sequence[_Job]) -> None:
        """Answer a batch. One that fails is run again in halves: what is at fault fails alone, and what only took
        too much memory does not fail."""
        if not batch:
            return
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            results = self._generate([job.ask for job in batch])
        except Exception as error:  # noqa: BLE001  (a request's edge: told to whoever waits for it)
            failure = error
        rows, read = sum(job.ask.rows for job in batch), sum(job.ask.prompt_tokens for job in batch)
        report = BatchReport(len(batch), rows, read, 0, time.perf_counter() - started, failure is not None)
        if failure is not None:
            self._on_batch(report)
            self._run_failed(batch, failure)
            return
        self._failed_in_a_row, self._last_s = 0, report.seconds
        written = sum(one.tokens for texts in results for one in texts)
        self._on_batch(report._replace(tokens=written))
        for job, texts in zip(batch, results, strict=True):
            job.future.set_result(texts * (job.ask.n // job.ask.rows))

    def _run_failed(self, batch: Sequence[_Job], failure: Exception) -> None:
        expected = isinstance(failure, ValueError)
        if not expected:
            names = " ".join(job.ask.name for job in batch)
            _log.warning("%s failed together: %s: %s", names, type(failure).__name__, failure)
            _log.debug("where it failed", exc_info=failure)
        failure.__traceback__ = None  # its frames hold the batch's tensors
        if isinstance(failure, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        if len(batch) > 1:
            middle = len(batch) // 2
            self._run(batch[:middle])
            self._run(batch[middle:])
            return
        if not expected:
            self._failed_in_a_row += 1
        batch[0].future.set_exception(failure)

    def _generate(self, asks: Sequence[Ask]) -> list[list[Generation]]:
        first = asks[0]
        # The seed goes into the chat's key, which names its stream as well: so each request has its own.
        keys = [secrets.token_hex(16) if ask.seed is None else f"seed {ask.seed}" for ask in asks]
        return generation.generate(
            self._loaded,
            [replace(ask.chat, key=key) for ask, key in zip(asks, keys, strict=True)],
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature,
            n=first.rows,
            seed=0,
            batch_size=max(self._batch_size, first.rows),
        )


class PromptMeter:
    """Counts a prompt's tokens, images included, on any thread: its tokenizer is a copy, as the worker's cannot be
    shared while it is in use."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._tokenizer: Any = copy.deepcopy(loaded.processor.tokenizer)
        self._lock = threading.Lock()

    def __call__(self, chat: Chat) -> int:
        """Return how many tokens the model is given for `chat`."""
        processor = self._loaded.processor
        messages = [dict(message) for message in chat.messages]
        prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        seen_wh = [self._loaded.resized(image.size) for image in chat.images]
        with self._lock:
            return count_prompt(self._tokenizer, str(prompt), seen_wh, processor.factor)
