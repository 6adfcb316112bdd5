"""Who writes chains of thought: a server, a model in this process, or the world that knows them exactly.

    openai:MODEL     any OpenAI-compatible server at --base-url
    a checkpoint     whatever `univg.models.loading.load` takes: a folder, a hub name, "embedded"
    world            the exact thought of a sample of the procedural world

Every teacher is given requests and gives back, in any order, an answer or the failure of each; None where the
budget did not allow to ask. What it was paid for is in the ledger before it is given back.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from univg.construct.data import WORLD, Item
from univg.construct.ledger import Answer, Draw, Failure, Ledger, Request, Role, Usage
from univg.files import canonical
from univg.grounding.boxes import SizeWH
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import render_response
from univg.models.loading import FAMILIES
from univg.models.server import FACTORS, GivenUp, Server, as_seen, concurrently, with_pictures
from univg.pictures.images import ImageFault

if TYPE_CHECKING:
    from univg.models.loading import Loaded
    from univg.models.processor import PixelBudget

Result: TypeAlias = Answer | Failure | None
Results: TypeAlias = Generator[tuple[Request, Result], None, None]

DRAIN_S = 20.0
"""How long requests under way may go on when a run is left: their answers are paid for."""


class TeacherError(RuntimeError):
    """A teacher that cannot go on; one line with what, which and what to do."""


class Teacher(Protocol):
    """Who proposes, or judges."""

    name: str
    frame: Frame
    """What its own numbers mean, when it is not told."""
    sees: bool
    """Whether it looks at the images."""
    block: int
    """How many samples to put before it at a time."""

    def fingerprint(self) -> dict[str, Any]:
        """Everything about it that decides an answer."""

    def about(self) -> dict[str, Any]:
        """What a reader of the data should know of it."""

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results: ...


def request_of(
    teacher: Teacher,
    item: Item,
    role: Role,
    draw: int,
    messages: tuple[Mapping[str, Any], ...],
    how: Draw,
    seed: int,
) -> Request:
    """The request with its key. Raises ImageFault for an image that is not there."""
    asked = hashlib.sha256(f"{seed}\0{item.sample.key}\0{role}\0{draw}".encode()).digest()
    own_seed = int.from_bytes(asked[:4], "big") >> 1
    decides = {
        "teacher": teacher.fingerprint(),
        "messages": messages,
        "images": item.digests() if teacher.sees else (),
        "sample": item.sample.key,
        "how": asdict(how),
        "seed": own_seed if how.temperature > 0 else None,
        "draw": draw,
    }
    key = hashlib.sha256(canonical(decides).encode("ascii")).hexdigest()[:32]
    return Request(key, item, role, draw, messages, how, own_seed)


@dataclass
class WorldTeacher:
    """Gives back the exact thought that a world's sample carries; it costs nothing."""

    name: str = "world"
    frame: Frame = "permille"
    sees: bool = False
    block: int = 256

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "world"}

    def about(self) -> dict[str, Any]:
        return {"kind": "world", "name": "the procedural world's exact thoughts"}

    @staticmethod
    def knows(item: Item) -> bool:
        sample = item.sample
        return sample.source.startswith(WORLD) and bool(sample.thought) and bool(sample.boxes)

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        for request in requests:
            sample = request.item.sample
            text = render_response(sample.boxes[0], sample.thought)
            yield request, Answer((text,), (False,), 0, 0, False, (), 0.0)


@dataclass
class LocalTeacher:
    """A model in this process."""

    loaded: Loaded
    batch_size: int = 16
    sees: bool = True
    name: str = field(init=False)
    frame: Frame = field(init=False)
    block: int = field(init=False)
    _digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from univg.models.checkpoint import weights_digest

        self.name, self.frame = self.loaded.name, self.loaded.family.frame
        self.block = max(16, 2 * self.batch_size)
        self._digest = self.loaded.revision or weights_digest(self.loaded.name)

    def fingerprint(self) -> dict[str, Any]:
        pixels = asdict(self.loaded.pixel_budget)
        return {
            "kind": "local",
            "model": self._digest,
            "pixels": pixels,
            "dtype": str(self.loaded.model.dtype),
        }

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "family": self.loaded.family.model_type, **self.fingerprint()}

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        never = threading.Event()
        groups: dict[Draw, list[Request]] = {}
        for request in requests:
            groups.setdefault(request.how, []).append(request)
        for how, group in groups.items():
            step = max(1, self.batch_size // how.n)
            for start in range(0, len(group), step):
                opened, failed = self._opened(group[start : start + step])
                yield from failed
                if not opened:
                    continue
                estimates = [
                    _estimate(request, self._seen(images), self.loaded.processor.factor)
                    for request, images in opened
                ]
                held = ledger.admit(sum(estimates, Usage()), never)
                if held is None:
                    yield from ((request, None) for request, _ in opened)
                    continue
                answered = self._run(opened, estimates, how)
                ledger.record(answered, held, self.name)
                yield from answered

    def _opened(self, requests: Sequence[Request]) -> tuple[list[tuple[Request, Any]], list[Any]]:
        opened: list[tuple[Request, Any]] = []
        failed: list[tuple[Request, Result]] = []
        processor = self.loaded.processor
        for request in requests:
            text = canonical(request.messages)
            if any(mark in text for mark in (processor.image_token, processor.video_token)):
                failed.append((request, Failure("no_response", "the question spells the model's image mark")))
                continue
            try:
                opened.append((request, tuple(request.item.pictures())))
            except ImageFault as fault:
                failed.append((request, Failure("image", str(fault))))
        return opened, failed

    def _seen(self, images: Sequence[Any]) -> tuple[SizeWH, ...]:
        return tuple(self.loaded.resized(image.size) for image in images)

    def _run(
        self, opened: Sequence[tuple[Request, Any]], estimates: Sequence[Usage], how: Draw
    ) -> list[tuple[Request, Answer]]:
        import torch

        from univg.models.generation.generate import Chat, generate

        started = time.perf_counter()
        chats = [Chat(images, request.messages, request.key) for request, images in opened]
        try:
            drawn = generate(
                self.loaded,
                chats,
                max_new_tokens=how.max_new_tokens,
                temperature=how.temperature,
                n=how.n,
                seed=0,  # a request's key stands for all that decides, its seed included
                batch_size=max(self.batch_size, how.n),
            )
        except torch.OutOfMemoryError as error:
            raise TeacherError(
                f"out of memory: {self.batch_size} responses at a time: give a smaller --batch-size; "
                "what was answered is kept"
            ) from error
        seconds = round((time.perf_counter() - started) / len(chats), 3)
        return [
            (
                request,
                Answer(
                    tuple(one.text for one in texts),
                    tuple(one.truncated for one in texts),
                    estimate.prompt_tokens,
                    sum(one.tokens for one in texts),
                    True,
                    self._seen(images),
                    seconds,
                ),
            )
            for (request, images), estimate, texts in zip(opened, estimates, drawn, strict=True)
        ]


@dataclass
class RemoteTeacher:
    """A model behind an OpenAI-compatible server, several requests at a time.

    `fields` go into every request beside ours (None takes one of ours out); `stream` takes answers piece by
    piece, which some servers insist on.
    """

    server: Server
    name: str
    budget: PixelBudget
    family: str = "qwen2_vl"
    concurrency: int = 8
    fields: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    sees: bool = True
    frame: Frame = field(init=False)
    block: int = field(init=False)
    factor: int = field(init=False)

    def __post_init__(self) -> None:
        self.frame, self.block = FAMILIES[self.family].frame, max(16, 4 * self.concurrency)
        # What `univg serve` says of its model; for other servers the family says it.
        self.factor = int(self.server.conventions(self.name).get("factor") or FACTORS[self.family])

    def fingerprint(self) -> dict[str, Any]:
        # Not the address: the same model served on another port is the same teacher.
        pixels = {**asdict(self.budget), "factor": self.factor}
        return {"kind": "openai", "model": self.name, "pixels": pixels, "fields": dict(self.fields)}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "address": self.server.address, **self.fingerprint()}

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        def work(request: Request, stop: threading.Event) -> tuple[Request, Result]:
            return request, self._ask(request, ledger, stop)

        yield from concurrently(work, requests, self.concurrency, DRAIN_S)

    def _ask(self, request: Request, ledger: Ledger, stop: threading.Event) -> Result:
        try:
            pictures = [as_seen(image, self.budget, self.factor) for image in request.item.pictures()]
        except ImageFault as fault:
            return Failure("image", str(fault))
        sizes = tuple(size_wh for _, size_wh in pictures)
        estimate = _estimate(request, sizes, self.factor)
        held = ledger.admit(estimate, stop)
        if held is None:
            return None
        started = time.perf_counter()
        try:
            body = self._body(request, [url for url, _ in pictures])
            reply = self.server.complete(body, request.how.n, stop, stream=self.stream)
        except GivenUp as error:
            ledger.release(held)
            return None if stop.is_set() else Failure("no_response", str(error))
        except BaseException:
            ledger.release(held)
            raise
        written = sum(len(text) for text in reply.texts) // 3 + 1
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        answer = Answer(
            reply.texts,
            reply.truncated,
            estimate.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens,
            written if reply.completion_tokens is None else reply.completion_tokens,
            not counted,
            sizes,
            round(time.perf_counter() - started, 3),
        )
        ledger.record([(request, answer)], held, self.name)
        return answer

    def _body(self, request: Request, urls: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": with_pictures(request.messages, urls),
            "max_tokens": request.how.max_new_tokens,
            "temperature": request.how.temperature,
            "n": request.how.n,
        }
        if request.how.temperature > 0:
            body |= {"seed": request.seed, "top_p": 1.0}
        own = {name: value for name, value in self.fields.items() if name in _KNOWN}
        more = {name: value for name, value in self.fields.items() if name not in _KNOWN}
        body |= own
        body = {name: value for name, value in body.items() if value is not None}
        return body | ({"extra_body": more} if more else {})


_KNOWN = frozenset(
    {
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "stop"),
        *("presence_penalty", "frequency_penalty", "reasoning_effort", "service_tier"),
    }
)
"""Fields that the client takes by name; any other travels in `extra_body`."""


def _estimate(request: Request, seen_wh: Sequence[SizeWH], factor: int) -> Usage:
    """The most that a request should cost: its words, a token for each factor² pixels, and the longest answer."""
    text = "".join(part.get("text", "") for message in request.messages for part in message["content"])
    wide = sum(1 for char in text if ord(char) > 0x2E80)
    words = (len(text) - wide) // 3 + wide + 16
    pixels = sum(width * height for width, height in seen_wh) // factor**2 + 2 * len(seen_wh)
    return Usage(1, words + pixels, request.how.max_new_tokens * request.how.n)
