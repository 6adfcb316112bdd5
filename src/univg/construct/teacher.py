"""Who writes chains of thought: a server, a model in this process, or the world that knows them exactly.

    openai:MODEL     any OpenAI-compatible server at --base-url
    a checkpoint     whatever `univg.models.loading.load` takes: a folder, a hub name, "embedded"
    world            the exact thought of a sample of the procedural world

Every teacher is given requests and gives back, in any order, an answer or the failure of each; None where the
budget did not allow to ask. What was paid for is in the ledger before it is given back.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from univg.construct.ledger import Draw, Ledger, Request, Role
from univg.data.dataset import Item
from univg.files import canonical
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import render_answer
from univg.models.answering import (
    Answer,
    Answerer,
    Decoding,
    LocalAnswerer,
    Question,
    Record,
    Refusal,
    ServerAnswerer,
    Usage,
    read_budget,
    seed_of,
)
from univg.models.checkpoint import weights_digest
from univg.models.conventions import find_served_family
from univg.models.pixels import PixelBudget
from univg.models.server import Server
from univg.world import SOURCE

if TYPE_CHECKING:
    from univg.models.loading import Loaded

Result: TypeAlias = Answer | Refusal | None
Results: TypeAlias = Generator[tuple[Request, Result], None, None]

DRAIN_S = 20.0
"""How long requests under way may go on when a run is left: their answers are paid for."""


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
        """Return everything about it that decides an answer."""

    def about(self) -> dict[str, Any]:
        """Return what a reader of the data should know of it."""

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        """Yield each request with its answer, its failure, or None. Raises UnivgError if it cannot go on."""


def request_of(
    teacher: Teacher,
    item: Item,
    role: Role,
    draw: int,
    messages: tuple[Mapping[str, Any], ...],
    how: Draw,
    seed: int,
) -> Request:
    """Return the request with its key. Raises ImageFault for an image that is not there."""
    own_seed = seed_of(seed, item.sample.key, role, draw)
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
        return sample.source.startswith(SOURCE) and bool(sample.thought) and sample.is_answered

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        for request in requests:
            sample = request.item.sample
            text = render_answer(sample, "set" if sample.complete else "think")
            yield request, Answer(request.key, (text,), (False,), (0,), 0, 0, False, (), 0.0)


class _AnswererTeacher:
    """A teacher whose answers an answerer gives."""

    sees = True
    name: str
    frame: Frame

    def __init__(self, answerer: Answerer, block: int) -> None:
        self.answerer, self.block, self.name = answerer, block, answerer.name

    def answer(self, requests: Sequence[Request], ledger: Ledger) -> Results:
        asked = {request.key: request for request in requests}

        @contextmanager
        def account(most: Usage, stop: threading.Event) -> Iterator[Record | None]:
            held = ledger.admit(most, stop)
            if held is None:
                yield None
                return
            try:
                yield lambda answers: ledger.record(
                    [(asked[one.key], one) for one in answers], held, self.name
                )
            except BaseException:  # Ctrl-C as well: what is held back for a request must be free again
                ledger.release(held)
                raise

        for how in dict.fromkeys(request.how for request in requests):
            # A request's key stands for all that decides, its seed included.
            decoding = Decoding(how.n, how.temperature, how.max_new_tokens, seed=0)
            questions = [
                Question(one.key, one.messages, one.item.pictures, one.seed)
                for one in requests
                if one.how == how
            ]
            with closing(self.answerer.answer(questions, decoding, account)) as batches:
                for result in (one for batch in batches for one in batch):
                    if isinstance(result, Answer):  # as the ledger keeps it
                        yield asked[result.key], replace(result, seconds=round(result.seconds, 3))
                    else:
                        yield asked[result.key], None if result.kind == "unasked" else result


class LocalTeacher(_AnswererTeacher):
    """A model in this process."""

    def __init__(self, loaded: Loaded, batch_size: int = 16) -> None:
        super().__init__(LocalAnswerer(loaded, batch_size), max(16, 2 * batch_size))
        self.loaded, self.frame = loaded, loaded.family.frame
        self._digest = loaded.revision or weights_digest(loaded.name)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "local",
            "model": self._digest,
            "pixels": asdict(self.loaded.pixel_budget),
            "dtype": str(self.loaded.model.dtype),
        }

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "family": self.loaded.family.model_type, **self.fingerprint()}


class RemoteTeacher(_AnswererTeacher):
    """A model behind an OpenAI-compatible server, several requests at a time.

    `fields` go into every request beside ours (None takes one of ours out); `stream` takes answers piece by
    piece, which some servers insist on.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        budget: PixelBudget,
        family: str | None = None,
        concurrency: int = 8,
        fields: Mapping[str, Any] | None = None,
        stream: bool = False,
    ) -> None:
        # What `univg serve` says of its model; for other servers the family says it, or the name.
        stated = server.conventions(name)
        writes, _ = find_served_family(family, stated, name)
        factor = int(stated.get("factor") or writes.factor)
        asking: dict[str, Any] = {"fields": fields, "stream": stream, "served": read_budget(stated)}
        answerer = ServerAnswerer(server, name, budget, factor, concurrency, drain_s=DRAIN_S, **asking)
        super().__init__(answerer, max(16, 4 * concurrency))
        self.frame = writes.frame
        self._address, self._pixels = server.address, {**asdict(budget), "factor": factor}
        self._fields = dict(fields or {})

    def fingerprint(self) -> dict[str, Any]:
        # Not the address: the same model served on another port is the same teacher.
        return {"kind": "openai", "model": self.name, "pixels": self._pixels, "fields": self._fields}

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "address": self._address, **self.fingerprint()}
