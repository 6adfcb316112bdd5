"""Who answers: any server with OpenAI's chat interface (vLLM, SGLang and others), several requests at a time.

Pictures are resized here as the checkpoint's own processor would, and sent losslessly: a server whose budget is
no smaller leaves them as they are, so it sees the same pixels as a model in this process.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from univg.boxes import SizeWH
from univg.evaluation.engines import Answer, Batch, Decoding, EngineError, Refusal, Text, wording
from univg.images import ImageFault
from univg.models.loading import FAMILIES
from univg.response import Frame, PromptStyle, render_chat, style_for

if TYPE_CHECKING:
    from openai import OpenAI

    from univg.evaluation.benchmarks import Case
    from univg.models.processor import PixelBudget

FACTORS: Mapping[str, int] = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}
"""Images are resized to multiples of this; a server does not say, so it follows from the family named."""

_RETRIED = frozenset({408, 409, 425, 429})
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Patience:
    """How long to go on with a server that fails: `attempts` a request, waits doubling from `first_wait_s`
    (or what the server asks for), `timeout_s` for one attempt."""

    attempts: int = 6
    first_wait_s: float = 0.5
    timeout_s: float = 600.0


class OpenAIEngine:
    """A model behind an OpenAI-compatible address such as `http://localhost:8000/v1`.

    `model` None takes the only one that is served. `family` says what it writes and how it resizes, as a
    server does not. Several samples are drawn by the interface's `n`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        family: str = "qwen2_vl",
        style: PromptStyle = "think",
        budget: PixelBudget | None = None,
        concurrency: int = 16,
        api_key: str = "none",
        patience: Patience | None = None,
    ) -> None:
        from univg.models.processor import PixelBudget

        if family not in FAMILIES:
            raise EngineError(f"unknown family {family!r}: choose from {', '.join(FAMILIES)}")
        self.url, self.concurrency, self.patience = url, concurrency, patience or Patience()
        self.style: PromptStyle = style
        self.frame: Frame = FAMILIES[family].frame
        self._family, self._budget = family, budget or PixelBudget()
        # Retrying is done here, where a broken reply counts as a failure like any other.
        self._client = _client(url, api_key, self.patience.timeout_s)
        self.name, self._root = self._served(model)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "engine": "openai",
            "model": self.name,
            "root": self._root,
            "family": self._family,
            "prompt": {"style": self.style, "wording": wording(self.style)},
            "pixels": asdict(self._budget),
        }

    def answer(self, cases: Sequence[Case], decoding: Decoding) -> Iterator[Batch]:
        """One case a batch, as replies come. Gives up when several requests in a row failed for good."""
        # Daemon threads, not a pool: Ctrl-C must not wait for requests that may take minutes.
        waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
        for case in cases:
            waiting.put(case)
        finished: queue.SimpleQueue[Answer | Refusal | BaseException] = queue.SimpleQueue()
        stop = threading.Event()
        for _ in range(min(self.concurrency, len(cases))):
            arguments = (waiting, finished, stop, decoding)
            threading.Thread(target=self._work, args=arguments, daemon=True).start()
        in_a_row = 0
        try:
            for _ in range(len(cases)):
                result = finished.get()
                if isinstance(result, BaseException):
                    raise result
                failed = isinstance(result, Refusal) and result.kind == "engine"
                in_a_row = in_a_row + 1 if failed else 0
                yield [result]
                if in_a_row >= max(8, self.concurrency) and isinstance(result, Refusal):
                    raise EngineError(
                        f"{in_a_row} requests in a row failed ({result.why}): {self.url}: "
                        "see the server's log, then run again; what was answered is kept"
                    )
        finally:
            stop.set()

    def _work(
        self,
        waiting: queue.SimpleQueue[Case],
        finished: queue.SimpleQueue[Answer | Refusal | BaseException],
        stop: threading.Event,
        decoding: Decoding,
    ) -> None:
        while not stop.is_set():
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put(self._ask(case, decoding, stop))
            except BaseException as error:  # noqa: BLE001  (a thread's edge: raised again where it is waited for)
                finished.put(error)
                return

    def _ask(self, case: Case, decoding: Decoding, stop: threading.Event) -> Answer | Refusal:
        started = time.perf_counter()
        try:
            pictures = [self._as_seen(image) for image in case.pictures()]
        except ImageFault as fault:
            return Refusal(case, "image", str(fault))
        request = self._request(case, [url for url, _ in pictures], decoding)
        try:
            texts = self._try(request, decoding.samples, stop)
        except _GivenUp as error:
            return Refusal(case, "engine", str(error))
        return Answer(case, texts, tuple(size for _, size in pictures), time.perf_counter() - started)

    def _as_seen(self, image: Image.Image) -> tuple[str, SizeWH]:
        """A data address of the picture at the size that the model sees, and that size."""
        size_wh = self._budget.resized(image.size, FACTORS[self._family])
        if size_wh != image.size:
            image = image.resize(size_wh, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), size_wh

    def _request(self, case: Case, urls: Sequence[str], decoding: Decoding) -> dict[str, Any]:
        [turn] = render_chat(len(urls), case.sample.query, style_for(case.sample, self.style))
        addresses = iter(urls)
        content = [
            {"type": "image_url", "image_url": {"url": next(addresses)}} if part["type"] == "image" else part
            for part in turn["content"]
        ]
        request: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": turn["role"], "content": content}],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "n": decoding.samples,
        }
        if decoding.temperature > 0:
            digest = hashlib.sha256(f"{decoding.seed}\0{case.key}".encode()).digest()
            request |= {"seed": int.from_bytes(digest[:4], "big") >> 1, "top_p": 1.0}
        return request

    def _try(self, request: Mapping[str, Any], samples: int, stop: threading.Event) -> tuple[Text, ...]:
        import openai

        wait, why = self.patience.first_wait_s, ""
        for attempt in range(self.patience.attempts):
            asked_wait = None
            try:
                return _read_reply(self._client.chat.completions.create(**request), samples)
            except openai.APIStatusError as error:
                why = f"status {error.status_code}: {_brief(error.message)}"
                if error.status_code in (401, 403, 404):
                    raise EngineError(
                        f"the server refuses ({why}): {self.url}: check --url, --model and the key"
                    ) from error
                if error.status_code not in _RETRIED and error.status_code < 500:
                    raise _GivenUp(why) from error
                asked_wait = _seconds(error.response.headers.get("retry-after"))
            except (openai.APIError, json.JSONDecodeError, _BrokenReply) as error:
                why = f"{type(error).__name__.lstrip('_')}: {_brief(str(error))}"
            if attempt + 1 < self.patience.attempts:
                pause = min(
                    _LONGEST_WAIT_S, wait * random.uniform(0.75, 1.25) if asked_wait is None else asked_wait
                )
                if stop.wait(pause):
                    break
                wait *= 2
        raise _GivenUp(f"{why} (after {self.patience.attempts} attempts)")

    def _served(self, model: str | None) -> tuple[str, str]:
        """The model's name, and what the server says it was loaded from."""
        import openai

        try:
            served = {one.id: str(getattr(one, "root", None) or one.id) for one in self._client.models.list()}
        except (openai.APIError, json.JSONDecodeError) as error:
            cause = f"no OpenAI-compatible server answers ({_brief(str(error))})"
            raise EngineError(f"{cause}: {self.url}: start it, or correct --url") from error
        if model is None and len(served) == 1:
            [model] = served
        if model not in served:
            raise EngineError(
                f"the server does not serve {model or 'one model only'}: {self.url}: "
                f"choose --model from {', '.join(served) or 'none'}"
            )
        return model, served[model]


class _GivenUp(Exception):
    """One request that no further attempt would mend."""


class _BrokenReply(Exception):
    """A reply that is not what the interface promises."""


def _client(url: str, api_key: str, timeout_s: float) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise EngineError("this engine needs the openai package: pip install 'univg[serve]'") from error
    return OpenAI(base_url=url, api_key=api_key, timeout=timeout_s, max_retries=0)


def _read_reply(reply: Any, samples: int) -> tuple[Text, ...]:
    """The texts of a reply. Servers answer status 200 with all kinds of things when they fail."""
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or len(choices) != samples:
        found = len(choices) if isinstance(choices, list) else "no"
        raise _BrokenReply(f"{found} choices where {samples} were asked for")
    if any(getattr(choice, "message", None) is None for choice in choices):
        raise _BrokenReply("a choice without a message")
    tokens = getattr(getattr(reply, "usage", None), "completion_tokens", None) if samples == 1 else None
    return tuple(
        Text(choice.message.content or "", tokens, choice.finish_reason == "length") for choice in choices
    )


def _seconds(header: str | None) -> float | None:
    """The wait that a Retry-After header asks for; the form with a date is left to our own waits."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _brief(text: str) -> str:
    return " ".join(text.split())[:160]
