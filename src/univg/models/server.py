"""Ask a server with OpenAI's chat interface patiently: retries, rate, and a reply that is checked.

Pictures are resized here as the checkpoint's own processor would, and sent losslessly: a server whose budget is
no smaller leaves them as they are, so it sees the same pixels as a model in this process. A key is only ever
sent to the server: `Server` takes it out of every message that it passes on.
"""

from __future__ import annotations

import base64
import importlib
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

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH

if TYPE_CHECKING:
    from openai import OpenAI

    from univg.models.pixels import PixelBudget

KEY_VARIABLE = "OPENAI_API_KEY"

_RETRIED = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 403, 404})
_LONGEST_OWN_WAIT_S = 60.0

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class GivenUp(UnivgError):
    """One request that no further attempt would mend. Answerers catch it: others may still be answered."""


class _BrokenReply(Exception):
    """A reply that is not what the interface promises."""


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


@dataclass(frozen=True)
class Reply:
    """`texts` as many as were asked for, and whether the limit cut each off. Tokens are of the whole request,
    None if the server does not say."""

    texts: tuple[str, ...]
    truncated: tuple[bool, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


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
        self.address = without_credentials(url)
        self.patience, self._pace = patience or Patience(), Pace(per_minute)
        self._secrets = [text for text in (api_key, *_credentials(url)) if text and text != "none"]
        self._url_option, self._model_option = url_option, model_option
        self._in_a_row, self._lock = 0, threading.Lock()
        self._stated: dict[str, Mapping[str, Any]] = {}
        # Retrying is done here, where a broken reply counts as a failure like any other.
        self._client = _client(url, api_key, self.patience.timeout_s)

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
        import openai

        broken: tuple[type[Exception], ...] = (openai.APIError, json.JSONDecodeError, _BrokenReply)
        broken += _transport_errors()
        wait, why = self.patience.first_wait_s, ""
        for attempt in range(self.patience.attempts):
            self._pace.wait(stop)
            if stop.is_set():
                raise GivenUp("stopped before it was asked")
            try:
                return self._ask_once(request, samples, stream)
            except openai.APIStatusError as error:
                why = f"status {error.status_code}: {self.quote(error.message)}"
                if error.status_code in _REFUSED:
                    options = f"{self._url_option}, {self._model_option}"
                    remedy = f"check {options} and the key"
                    raise UnivgError(f"the server refuses ({why})", self.address, remedy) from None
                if error.status_code not in _RETRIED and error.status_code < 500:
                    raise GivenUp(why) from None
                asked_s = _seconds(error.response.headers.get("retry-after"))
                if asked_s is not None:
                    self._heed(asked_s, why)
                    continue
            except broken as error:
                why = f"{type(error).__name__.lstrip('_')}: {self.quote(str(error))}"
            if attempt + 1 < self.patience.attempts:
                if stop.wait(min(_LONGEST_OWN_WAIT_S, wait * random.uniform(0.75, 1.25))):
                    break
                wait *= 2
        raise GivenUp(f"{why} (after {self.patience.attempts} attempts)")

    def _ask_once(self, request: Mapping[str, Any], samples: int, stream: bool) -> Reply:
        create = self._client.chat.completions.create
        if not stream:
            return _read_reply(create(**request), samples)
        with create(**request, stream=True, stream_options={"include_usage": True}) as pieces:
            return _read_pieces(pieces, samples)

    def _heed(self, asked_s: float, why: str) -> None:
        """Keep the wait that the server asks for, for all requests; one too long to wait for ends the run."""
        if asked_s > self.patience.longest_wait_s:
            cause = f"the server asks to wait {asked_s:.0f} s ({why})"
            raise UnivgError(cause, self.address, "run the same command then; what was answered is kept")
        self._pace.hold(asked_s)

    def served(self, model: str | None) -> tuple[str, str]:
        """Return the model's name (None: the only one there is), and what the server says it was loaded from."""
        import openai

        try:
            cards = {one.id: one for one in self._client.models.list()}
        except (openai.APIError, json.JSONDecodeError) as error:
            cause = f"no OpenAI-compatible server answers ({self.quote(str(error))})"
            raise UnivgError(cause, self.address, f"start it, or correct {self._url_option}") from None
        served = {name: str(getattr(card, "root", None) or name) for name, card in cards.items()}
        stated = {name: getattr(card, "univg", None) for name, card in cards.items()}
        self._stated = {name: one for name, one in stated.items() if isinstance(one, Mapping)}
        if model is None and len(served) == 1:
            [model] = served
        if model is None or model not in served:
            remedy = f"choose {self._model_option} from {', '.join(served) or 'none'}"
            raise UnivgError(f"the server does not serve {model or 'one model only'}", self.address, remedy)
        return model, served[model]

    def conventions(self, model: str) -> Mapping[str, Any]:
        """Return what `univg serve` says of a model: family, frame, prompt_style, min_pixels, max_pixels, factor.
        Empty for other servers, and before `served`."""
        return self._stated.get(model, {})

    def quote(self, text: str) -> str:
        """Return a server's words on one short line, without the key: some quote it when they refuse it."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return " ".join(text.split())[:160]


def as_seen(image: Image.Image, budget: PixelBudget, factor: int) -> tuple[str, SizeWH]:
    """Return a data address of the picture at the size that the model sees, and that size."""
    size_wh = budget.resized(image.size, factor)
    if size_wh != image.size:
        image = image.resize(size_wh, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), size_wh


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


def _client(url: str, api_key: str, timeout_s: float) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise UnivgError(
            "no client for servers", "the openai package is missing", "pip install 'univg[serve]'"
        ) from error
    return OpenAI(base_url=url, api_key=api_key, timeout=timeout_s, max_retries=0)


def _transport_errors() -> tuple[type[Exception], ...]:
    """List what breaks in the middle of a stream reaches us as the HTTP library's own error, whichever that is."""
    found: list[type[Exception]] = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).HTTPError)
        except ImportError:
            continue
    return tuple(found)


def _read_reply(reply: Any, samples: int) -> Reply:
    """Read the texts of a reply. Servers answer status 200 with all kinds of things when they fail."""
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or len(choices) != samples:
        found = len(choices) if isinstance(choices, list) else "no"
        raise _BrokenReply(f"{found} choices where {samples} were asked for")
    if any(getattr(choice, "message", None) is None for choice in choices):
        raise _BrokenReply("a choice without a message")
    texts = tuple(choice.message.content or "" for choice in choices)
    return Reply(texts, tuple(choice.finish_reason == "length" for choice in choices), *_usage(reply))


def _read_pieces(pieces: Iterable[Any], samples: int) -> Reply:
    texts: list[list[str]] = [[] for _ in range(samples)]
    ends: list[str | None] = [None] * samples
    used: tuple[int | None, int | None] = (None, None)
    for piece in pieces:
        if getattr(piece, "usage", None) is not None:
            used = _usage(piece)
        for choice in getattr(piece, "choices", None) or ():
            if not 0 <= choice.index < samples:
                raise _BrokenReply(f"a piece of choice {choice.index} where {samples} were asked for")
            texts[choice.index].append(getattr(choice.delta, "content", None) or "")
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    if None in ends:
        raise _BrokenReply("the stream ended before the answer did")
    return Reply(tuple("".join(text) for text in texts), tuple(end == "length" for end in ends), *used)


def _usage(reply: Any) -> tuple[int | None, int | None]:
    usage = getattr(reply, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return prompt, completion


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
