"""Ask a model, in this process or behind a server: questions in, answers or refusals out, in any order.

    answerer = LocalAnswerer(load("embedded"))
    for batch in answerer.answer(questions, Decoding(max_new_tokens=256)):
        ...

Prompts, decoding and pixels are the same whichever answerer it is. Loads no torch before a local model is asked.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.models.pixels import PixelBudget
from univg.models.server import GivenUp, Server, as_seen, concurrently, with_pictures
from univg.models.temperature import GREEDY_BELOW, settle_temperature
from univg.models.tokens import estimate_prompt, estimate_text, find_mark
from univg.pictures.images import ImageFault

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.loading import Loaded

RefusalKind: TypeAlias = Literal["image", "prompt", "engine", "unasked"]
"""``image``: a picture cannot be opened. ``prompt``: the question cannot be put to this model. ``engine``: the
server gave no answer. ``unasked``: the account does not allow to ask, or the run was left."""


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn. One sample is greedy unless a temperature is given; one so low that it is greedy
    (`settle_temperature`) is kept as 0."""

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1 or not 0 <= self.temperature < float("inf"):
            raise UnivgError("counts are at least 1, the temperature at least 0", self)
        object.__setattr__(self, "temperature", settle_temperature(self.temperature))
        if self.samples > 1 and self.temperature == 0:
            raise UnivgError(
                f"{self.samples} greedy samples would be equal",
                remedy=f"give a temperature of {GREEDY_BELOW:g} or above",
            )

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the texts: without a temperature the seed decides nothing."""
        settings = asdict(self)
        if self.temperature == 0:
            del settings["seed"]
        return settings


@dataclass(frozen=True)
class Question:
    """What is asked: a chat in which each image is named by one ``{"type": "image"}``, and a way to its pictures.

    ``pictures`` opens the images (RGB, upright) and raises ImageFault. ``key`` names the question among all and its
    stream of random numbers in a local model; ``seed`` is what a server is given instead (None: made of the
    decoding's seed and the key). A local model takes questions of one ``group`` together, the longest first, if
    ``sizes_wh`` gives the sizes of the images without opening them ((0, 0) where that fails); else in their order.
    """

    key: str
    messages: Sequence[Mapping[str, Any]]
    pictures: Callable[[], Sequence[Image.Image]]
    seed: int | None = None
    group: str = ""
    sizes_wh: Callable[[], Sequence[SizeWH]] | None = None

    @property
    def text(self) -> str:
        """All words of the messages."""
        return "".join(part.get("text", "") for turn in self.messages for part in turn["content"])


@dataclass(frozen=True)
class Usage:
    """How much was asked: requests, and tokens in and out."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Answer:
    """What came back to the question ``key``, as many ``texts`` as were drawn.

    Of each text: whether the limit cut it off, and its length in ``tokens`` (None if the server does not say). Of the
    whole request: tokens in and out, ``estimated`` if a server did not count them; the size of each image as the model
    saw it; the time, in a batch the questions' equal shares.
    """

    key: str
    texts: tuple[str, ...]
    truncated: tuple[bool, ...]
    tokens: tuple[int | None, ...]
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    seen_wh: tuple[SizeWH, ...]
    seconds: float


@dataclass(frozen=True)
class Refusal:
    """Why the question ``key`` has no answer."""

    key: str
    kind: RefusalKind
    why: str


Answers: TypeAlias = Generator[list[Answer | Refusal], None, None]
Record: TypeAlias = Callable[[Sequence[Answer]], None]
Account: TypeAlias = Callable[[Usage, threading.Event], AbstractContextManager[Record | None]]
"""Holds what a request may cost at most, waiting if need be until the event; gives what notes its answers down before
anybody else sees them, or None if it may not be asked. What was held for a request that fails is given back."""


def free_of_charge(most: Usage, stop: threading.Event) -> AbstractContextManager[Record | None]:
    """Allow every request and note nothing down."""
    return nullcontext(lambda answers: None)


class Answerer(Protocol):
    """A model that can be asked; ``name`` is what it was asked for by."""

    name: str

    def answer(
        self, questions: Sequence[Question], decoding: Decoding, account: Account = free_of_charge
    ) -> Answers:
        """Yield an answer or a refusal to every question, some at a time; closed, it gives up what it has begun.
        Raises UnivgError if it cannot go on."""


def seed_of(*parts: object) -> int:
    """Return the seed of one request: 31 bits that follow from what is asked.

    >>> seed_of(7, "a") == seed_of(7, "a") != seed_of(8, "a")
    True
    """
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_budget(stated: Mapping[str, Any]) -> PixelBudget | None:
    """Return the pixel budget among what a server says of its model; None where it says nothing."""
    if not {"min_pixels", "max_pixels"} <= set(stated):
        return None
    return PixelBudget(int(stated["min_pixels"]), int(stated["max_pixels"]))


class LocalAnswerer:
    """A model in this process.

    Questions are put into batches of one group and like length: padding is then little, and as responses of one
    group are of like length too, few rows of a batch wait for the longest. The next batch's images are decoded
    while the model works on this one's.
    """

    def __init__(self, loaded: Loaded, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.loaded, self.batch_size, self.name = loaded, batch_size, loaded.name

    def answer(
        self, questions: Sequence[Question], decoding: Decoding, account: Account = free_of_charge
    ) -> Answers:
        step = max(1, self.batch_size // decoding.samples)
        order = self.in_order(questions)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as reader:
            ahead = reader.submit(self._open, order[:step])
            for start in range(step, len(order) + step, step):
                opened, refused = ahead.result()
                ahead = reader.submit(self._open, order[start : start + step])
                yield refused + (self._draw(opened, decoding, account) if opened else [])

    def in_order(self, questions: Sequence[Question]) -> list[Question]:
        """Sort by group, the one with the longest prompt first, within it the longest first: what does not fit into
        memory fails at once. Questions without sizes keep their order."""
        lengths = {one.key: self._length(one) for one in questions}
        longest: dict[str, int] = {}
        for one in questions:
            longest[one.group] = max(longest.get(one.group, 0), lengths[one.key])
        return sorted(questions, key=lambda one: (-longest[one.group], one.group, -lengths[one.key]))

    def _length(self, question: Question) -> int:
        if question.sizes_wh is None:
            return 0
        sizes = [size for size in question.sizes_wh() if min(size) > 0 and max(size) <= 200 * min(size)]
        seen_wh = [self.loaded.resized(size_wh) for size_wh in sizes]
        return estimate_prompt(question.text, seen_wh, self.loaded.processor.factor)

    def _open(self, questions: Sequence[Question]) -> tuple[list[_Opened], list[Answer | Refusal]]:
        opened: list[_Opened] = []
        refused: list[Answer | Refusal] = []
        for question in questions:
            try:
                opened.append((question, question.pictures()))
            except ImageFault as fault:
                refused.append(Refusal(question.key, "image", str(fault)))
        return opened, refused

    def _draw(
        self, opened: Sequence[_Opened], decoding: Decoding, account: Account
    ) -> list[Answer | Refusal]:
        import torch

        from univg.models.generation.generate import Chat, generate, measure

        started = time.perf_counter()
        chats = [Chat(tuple(images), tuple(one.messages), one.key) for one, images in opened]
        prompts = [measure(self.loaded, chat) for chat in chats]
        most = Usage(len(chats), sum(prompts), decoding.max_new_tokens * decoding.samples * len(chats))
        with account(most, threading.Event()) as record:
            if record is None:
                return [_unasked(question) for question, _ in opened]
            try:
                drawn = generate(
                    self.loaded,
                    chats,
                    max_new_tokens=decoding.max_new_tokens,
                    temperature=decoding.temperature,
                    n=decoding.samples,
                    seed=decoding.seed,
                    batch_size=max(self.batch_size, decoding.samples),
                )
            except torch.OutOfMemoryError as error:
                cause = f"out of memory with {self.batch_size} responses at a time"
                remedy = "give a smaller --batch-size; what was answered is kept"
                raise UnivgError(cause, remedy=remedy) from error
            seconds = (time.perf_counter() - started) / len(chats)
            answers = [
                Answer(
                    chat.key,
                    tuple(one.text for one in texts),
                    tuple(one.truncated for one in texts),
                    tuple(one.tokens for one in texts),
                    prompt,
                    sum(one.tokens for one in texts),
                    False,
                    tuple(self.loaded.resized(image.size) for image in chat.images),
                    seconds,
                )
                for chat, prompt, texts in zip(chats, prompts, drawn, strict=True)
            ]
            record(answers)
        return list(answers)


class ServerAnswerer:
    """The model ``name`` behind an OpenAI-compatible server, ``concurrency`` requests at a time.

    Images are resized to ``budget`` in multiples of ``factor`` before they are sent; ``served`` is the server's own
    budget, where it says it, which decides at what size the model sees them. ``fields`` go into every
    request beside ours (None takes one of ours out); ``stream`` takes answers piece by piece, which some servers
    insist on. Left early, what is under way gets up to ``drain_s`` seconds to come to its end. Several samples are
    drawn by the interface's ``n``.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        budget: PixelBudget,
        factor: int,
        concurrency: int = 16,
        *,
        fields: Mapping[str, Any] | None = None,
        stream: bool = False,
        drain_s: float = 0.0,
        served: PixelBudget | None = None,
    ) -> None:
        # long because each setting of a request has a name of its own
        self.server, self.name, self.budget, self.factor, self.served = server, name, budget, factor, served
        self.concurrency, self.drain_s = concurrency, drain_s
        self.fields, self.stream = fields or {}, stream

    @property
    def _stated(self) -> Mapping[str, Any]:
        return self.server.conventions(self.name)

    @property
    def _asks_vllm(self) -> bool:
        return self._stated.get("engine") == "vllm"

    def answer(
        self, questions: Sequence[Question], decoding: Decoding, account: Account = free_of_charge
    ) -> Answers:
        """Yield one answer or refusal a batch, as replies come. Raises UnivgError when several requests in a row
        failed for good."""
        ask = partial(self._ask, decoding, account)
        with closing(concurrently(ask, questions, self.concurrency, self.drain_s)) as results:
            for result in results:
                yield [result]

    def _ask(
        self, decoding: Decoding, account: Account, question: Question, stop: threading.Event
    ) -> Answer | Refusal:
        # `univg serve` says how its model is asked, and takes texts for text unless it has started vLLM; of others
        # this cannot be known.
        if (not self._stated or self._asks_vllm) and (mark := find_mark(question.text)):
            why = f"it spells {mark}, which the server may take for a mark of the chat: leave it out"
            return Refusal(question.key, "prompt", why)
        try:
            pictures = [
                as_seen(image, self.budget, self.factor, self.served) for image in question.pictures()
            ]
        except ImageFault as fault:
            return Refusal(question.key, "image", str(fault))
        seen_wh = tuple(size_wh for _, size_wh in pictures)
        prompt = estimate_prompt(question.text, seen_wh, self.factor)
        most = Usage(1, prompt, decoding.max_new_tokens * decoding.samples)
        try:
            with account(most, stop) as record:
                if record is None:
                    return _unasked(question)
                started = time.perf_counter()
                request = self._request(question, [url for url, _ in pictures], decoding)
                reply = self.server.complete(request, decoding.samples, stop, stream=self.stream)
                read, written = reply.prompt_tokens, reply.completion_tokens
                answer = Answer(
                    question.key,
                    reply.texts,
                    reply.truncated,
                    (written if decoding.samples == 1 else None,) * decoding.samples,
                    prompt if read is None else read,
                    1 + estimate_text("".join(reply.texts)) if written is None else written,
                    read is None or written is None,
                    seen_wh,
                    time.perf_counter() - started,
                )
                record([answer])
                return answer
        except GivenUp as error:
            return _unasked(question) if stop.is_set() else Refusal(question.key, "engine", str(error))

    def _request(self, question: Question, urls: Sequence[str], decoding: Decoding) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": with_pictures(question.messages, urls),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "n": decoding.samples,
        }
        if self._asks_vllm:
            body["skip_special_tokens"] = False  # else the marks of boxes are missing from its texts
        if decoding.temperature > 0:
            seed = seed_of(decoding.seed, question.key) if question.seed is None else question.seed
            body |= {"seed": seed, "top_p": 1.0}
        return {name: value for name, value in (body | dict(self.fields)).items() if value is not None}


_Opened: TypeAlias = "tuple[Question, Sequence[Image.Image]]"


def _unasked(question: Question) -> Refusal:
    return Refusal(question.key, "unasked", "it was not asked")
