"""Ask a server with OpenAI's chat interface patiently: retries, rate, and a reply that is bounded and checked.

Pictures are resized here as the checkpoint's own processor would, and sent losslessly: a server whose budget is
no smaller leaves them as they are, so it sees the same pixels as a model in this process. A key is only ever
sent to the server: `Server` takes it out of every message that it passes on.
"""

from __future__ import annotations

import io
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from PIL import Image

from univg.errors import UnivgError, one_line
from univg.grounding.boxes import SizeWH
from univg.models.keys import tidy_key
from univg.models.server_replies import (
    BrokenReply,
    Reply,
    ends_stream,
    read_complaint,
    read_models,
    read_pieces,
    read_reply,
)
from univg.pictures.pages import data_url

if TYPE_CHECKING:
    from univg.models.pixels import PixelBudget

KEY_VARIABLE = "OPENAI_API_KEY"

_RETRIED = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 403, 404})
_LONGEST_OWN_WAIT_S = 60.0
_REPLY_BYTES = 4 << 20
_TOKEN_BYTES = 1 << 10  # with all that stands around a token that comes alone
_LONGEST_ANSWER = 1 << 15  # tokens, where a request sets no limit

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class GivenUp(UnivgError):
    """One request that no further attempt would mend. Answerers catch it: others may still be answered."""


class _Status(Exception):
    """A reply whose status is not 200."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}: {why}")
        self.status, self.headers = status, headers


@dataclass(frozen=True)
class Patience:
    """How long to go on with a server that fails: `attempts` a request, waits doubling from `first_wait_s` (or
    what the server asks for, up to `longest_wait_s`), `timeout_s` for one attempt; `failures` requests in a row
    that failed for good end it all."""

    attempts: int = 6
    first_wait_s: float = 0.5
    timeout_s: float = 600.0
    longest_wait_s: float = 600.0
    failures: int = 16


class Pace:
    """At most `per_minute` requests, evenly spread, over all threads; None is no limit."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Wait until it is this caller's turn, or `stop`."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap_s
        stop.wait(max(0.0, turn - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Let no turn begin for so long: a server that asks one request to wait means the others too."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class Server:
    """One address such as `http://localhost:8000/v1`, for any number of threads.

    `url_option`, `model_option`: what errors tell the user to correct.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "none",
        patience: Patience | None = None,
        per_minute: float | None = None,
        *,
        url_option: str = "--url",
        model_option: str = "--model",
    ) -> None:
        import httpx2

        key = tidy_key(api_key, "the key")
        try:
            self._base, self.address = httpx2.URL(url), without_credentials(url)
        except (ValueError, httpx2.InvalidURL) as error:
            raise UnivgError(f"no address ({error})", url_option, "write it as http://host:8000/v1") from None
        if self._base.scheme not in ("http", "https") or not self._base.host:
            raise UnivgError(
                "no address of a server", f"{url_option} {self.address}", "begin it with http://"
            )
        self.patience, self._pace = patience or Patience(), Pace(per_minute)
        self._secrets = [text for text in (key, *_credentials(url)) if text and text != "none"]
        self._url_option, self._model_option = url_option, model_option
        self._in_a_row, self._lock = 0, threading.Lock()
        self._stated: dict[str, Mapping[str, Any]] = {}
        # A small reply that unpacks to a large one cannot come; where a redirect leads, no key was meant to go.
        headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity", "User-Agent": "univg"}
        self._http = httpx2.Client(
            headers=headers,
            timeout=self.patience.timeout_s,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        )

    def complete(
        self, request: Mapping[str, Any], samples: int, stop: threading.Event, *, stream: bool = False
    ) -> Reply:
        """Return the reply to a chat request, `samples` texts. With `stream` it is taken piece by piece, for servers
        that answer in no other way.

        Raises GivenUp for this request; UnivgError if no request is worth sending any more.
        """
        try:
            reply = self._try(request, samples, stop, stream)
        except GivenUp as error:
            with self._lock:
                self._in_a_row += 1
                failed = self._in_a_row
            if failed >= self.patience.failures:
                cause = f"{failed} requests in a row failed ({error})"
                remedy = "see the server's log, then run again; what was answered is kept"
                raise UnivgError(cause, self.address, remedy) from error
            raise
        with self._lock:
            self._in_a_row = 0
        return reply

    def _try(self, request: Mapping[str, Any], samples: int, stop: threading.Event, stream: bool) -> Reply:
        import httpx2

        wait, why = self.patience.first_wait_s, ""
        for attempt in range(self.patience.attempts):
            self._pace.wait(stop)
            if stop.is_set():
                raise GivenUp("stopped before it was asked")
            try:
                return self._ask_once(request, samples, stream)
            except _Status as error:
                why = self.quote(str(error))
                if error.status in _REFUSED:
                    options = f"{self._url_option}, {self._model_option}"
                    remedy = f"check {options} and the key"
                    raise UnivgError(f"the server refuses ({why})", self.address, remedy) from None
                if error.status not in _RETRIED and error.status < 500:
                    raise GivenUp(why) from None
                asked_s = _seconds(error.headers.get("retry-after"))
                if asked_s is not None:
                    self._heed(asked_s, why)
                    continue
            except BrokenReply as error:
                why = f"no usable reply: {self.quote(str(error))}"
            except httpx2.HTTPError as error:
                why = self.quote(f"{type(error).__name__}: {error}")
            if attempt + 1 < self.patience.attempts:
                if stop.wait(min(_LONGEST_OWN_WAIT_S, wait * random.uniform(0.75, 1.25))):
                    break
                wait *= 2
        raise GivenUp(f"{why} (after {self.patience.attempts} attempts)")

    def _ask_once(self, request: Mapping[str, Any], samples: int, stream: bool) -> Reply:
        if stream:
            request = {**request, "stream": True, "stream_options": {"include_usage": True}}
        longest = request.get("max_tokens") or request.get("max_completion_tokens")
        longest = longest if isinstance(longest, int) else _LONGEST_ANSWER
        most = _REPLY_BYTES + _TOKEN_BYTES * samples * longest
        content = self._send("POST", "/chat/completions", most, json.dumps(request).encode())
        return (read_pieces if stream else read_reply)(content, samples)

    def _send(self, method: str, path: str, most: int = _REPLY_BYTES, body: bytes | None = None) -> bytes:
        """Return the body of a reply, of at most so many bytes. Raises _Status, BrokenReply or the library's
        HTTPError."""
        until = time.monotonic() + self.patience.timeout_s
        url = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        content = bytearray()
        headers = {"Content-Type": "application/json"} if body else None
        with self._http.stream(method, url, content=body, headers=headers) as reply:
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise BrokenReply("it is compressed, which was not asked for")
            for piece in reply.iter_raw():
                content += piece
                if len(content) > most:
                    raise BrokenReply(f"it is longer than {most:,} bytes")
                if time.monotonic() > until:
                    raise BrokenReply(f"it did not end within {self.patience.timeout_s:g} s")
                if ends_stream(content):
                    break
        if reply.is_redirect:
            where = reply.headers.get("location", "nowhere")
            raise _Status(reply.status_code, f"it redirects to {where}: give that as {self._url_option}", {})
        if reply.status_code != 200:
            raise _Status(reply.status_code, read_complaint(bytes(content)), reply.headers)
        return bytes(content)

    def _heed(self, asked_s: float, why: str) -> None:
        """Keep the wait that the server asks for, for all requests; one too long to wait for ends the run."""
        if asked_s > self.patience.longest_wait_s:
            cause = f"the server asks to wait {asked_s:.0f} s ({why})"
            raise UnivgError(cause, self.address, "run the same command then; what was answered is kept")
        self._pace.hold(asked_s)

    def served(self, model: str | None) -> tuple[str, str]:
        """Return the model's name (None: the only one there is), and what the server says it was loaded from."""
        import httpx2

        try:
            models = read_models(self._send("GET", "/models"))
        except (_Status, BrokenReply, httpx2.HTTPError) as error:
            cause = f"no OpenAI-compatible server answers ({self.quote(str(error))})"
            raise UnivgError(cause, self.address, f"start it, or correct {self._url_option}") from None
        self._stated = {name: card["univg"] for name, card in models.items()}
        if model is None and len(models) == 1:
            [model] = models
        if model is None or model not in models:
            remedy = f"choose {self._model_option} from {self.quote(', '.join(models)) or 'none'}"
            raise UnivgError(f"the server does not serve {model or 'one model only'}", self.address, remedy)
        return model, str(models[model]["root"])

    def conventions(self, model: str) -> Mapping[str, Any]:
        """Return what `univg serve` says of a model: family, frame, prompt_style, min_pixels, max_pixels, factor, and
        "vllm" as its engine if it is that. Empty for other servers, and before `served`."""
        return self._stated.get(model, {})

    def quote(self, text: str) -> str:
        """Return a server's words on one short line, without the key: some quote it when they refuse it."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return one_line(" ".join(text.split()))[:160]


def as_seen(
    image: Image.Image, budget: PixelBudget, factor: int, served: PixelBudget | None = None
) -> tuple[str, SizeWH]:
    """Return a data address of the picture at the size that the model sees, and that size.

    `served`: the server's own budget, if it is known; it may make the picture smaller, or larger, than `budget` does.
    """
    size_wh = budget.prepared(image.size, factor)
    if size_wh != image.size:
        image = image.resize(size_wh, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return data_url(buffer.getvalue(), "png"), (served or budget).resized(size_wh, factor)


def with_pictures(messages: Iterable[Mapping[str, Any]], urls: Sequence[str]) -> list[dict[str, Any]]:
    """Return messages of `univg.grounding.prompts.render_chat`'s form with an address in each image's place."""
    addresses = iter(urls)
    return [
        {
            "role": turn["role"],
            "content": [
                {"type": "image_url", "image_url": {"url": next(addresses)}}
                if part["type"] == "image"
                else part
                for part in turn["content"]
            ],
        }
        for turn in messages
    ]


def concurrently(
    work: Callable[[Asked, threading.Event], Answered],
    items: Sequence[Asked],
    concurrency: int,
    drain_s: float = 0.0,
) -> Generator[Answered, None, None]:
    """Yield what `work` makes of each item, as it comes; the first exception is raised and nothing new is begun.

    Left early, what is under way gets up to `drain_s` seconds to come to its end.
    """
    # Daemon threads, not a pool: Ctrl-C must not wait for requests that may take minutes.
    waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    finished: queue.SimpleQueue[tuple[Answered | None, BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((work(item, stop), None))
            except BaseException as error:  # noqa: BLE001  (a thread's edge: raised again where it is waited for)
                finished.put((None, error))
                return

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(concurrency, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(len(items)):
            result, error = finished.get()
            if error is not None:
                raise error
            yield result  # type: ignore[misc]
    finally:
        stop.set()
        until = time.monotonic() + drain_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def without_credentials(url: str) -> str:
    """Return an address that may be shown and stored: no user, password or query.

    >>> without_credentials("https://me:secret@host:8000/v1?key=1")
    'https://host:8000/v1'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _credentials(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    return tuple(text for text in (parts.username, parts.password, parts.query) if text)


def _seconds(header: str | None) -> float | None:
    """Return the wait that a Retry-After header asks for, in either of its forms; None for any other text.

    >>> _seconds("1.5"), _seconds("Thu, 01 Jan 1970 00:00:00 GMT"), _seconds("soon")
    (1.5, 0.0, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            until = parsedate_to_datetime(header)
        except ValueError:
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None
