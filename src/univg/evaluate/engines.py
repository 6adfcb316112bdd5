"""Who answers: a model in this process, in batches of like questions; `remote` holds the other one.

An engine is given cases and gives back, batch by batch and in any order, an `Answer` for each, or a `Refusal`
that says why there is none. Prompts, decoding and pixels are the same whichever engine it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from univg.evaluate.benchmarks import ZERO_SHOT, ZERO_SHOT_MAX_PIXELS, Case
from univg.grounding.boxes import SizeWH
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle, render_prompt, style_for
from univg.models.checkpoint import weights_digest
from univg.pictures.images import ImageFault

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.loading import Loaded
    from univg.models.processor import PixelBudget

RefusalKind: TypeAlias = Literal["record", "image", "no_truth", "prompt", "engine"]


class EngineError(RuntimeError):
    """The engine cannot go on; what was answered is kept. One line with what, which and what to do."""


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn. One sample is greedy unless a temperature is given."""

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1 or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"{self}: counts are at least 1, the temperature at least 0")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} greedy samples would be equal: give a temperature above 0")

    def fingerprint(self) -> dict[str, Any]:
        """What decides the texts: without a temperature the seed decides nothing."""
        settings = asdict(self)
        if self.temperature == 0:
            del settings["seed"]
        return settings


@dataclass(frozen=True)
class Text:
    """One response: its `text`, its length in `tokens` (None if the server does not say), and whether the limit
    cut it off."""

    text: str
    tokens: int | None
    truncated: bool


@dataclass(frozen=True)
class Answer:
    """`texts`: as many as were drawn. `seen_wh`: the size of each image as the model saw it. `seconds`: the
    batch's time shared out among its cases, or the request's own."""

    case: Case
    texts: tuple[Text, ...]
    seen_wh: tuple[SizeWH, ...]
    seconds: float


@dataclass(frozen=True)
class Refusal:
    """Why a case has no answer; such a case is counted, and is tried again by the next run."""

    case: Case
    kind: RefusalKind
    why: str


Batch: TypeAlias = list[Answer | Refusal]


class Engine(Protocol):
    """What the runner asks of an engine."""

    name: str
    """The model as it was asked for. A folder may move, so this is not in the fingerprint."""
    style: PromptStyle
    frame: Frame

    def fingerprint(self) -> dict[str, Any]:
        """Everything about the engine that decides a number."""

    def answer(self, cases: Sequence[Case], decoding: Decoding) -> Iterator[Batch]:
        """Answers or refusals to every case, some at a time. Raises EngineError if it cannot go on."""


def wording(style: PromptStyle) -> str:
    """The prompt around a query, for the fingerprint."""
    return render_prompt("{query}", style)


class LocalEngine:
    """A model in this process.

    Cases are put into batches of one task and like length: padding is then little, and as responses of one task
    are of like length too, few rows of a batch wait for the longest. The next batch's images are decoded while
    the model works on this one's.
    """

    def __init__(self, loaded: Loaded, batch_size: int = 32, style: PromptStyle | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.loaded, self.batch_size = loaded, batch_size
        self.name = loaded.name
        self.style: PromptStyle = style or loaded.prompt_style
        self.frame: Frame = loaded.family.frame

    def fingerprint(self) -> dict[str, Any]:
        import torch
        import transformers

        return {
            "engine": "local",
            "model": self.loaded.revision or weights_digest(self.loaded.name),
            "family": self.loaded.family.model_type,
            "prompt": {"style": self.style, "wording": wording(self.style)},
            "pixels": asdict(self.loaded.pixel_budget),
            "dtype": str(self.loaded.model.dtype).removeprefix("torch."),
            "device": self.loaded.device.type,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def answer(self, cases: Sequence[Case], decoding: Decoding) -> Iterator[Batch]:
        step = max(1, self.batch_size // decoding.samples)
        order = self._in_order(cases)
        batches = [order[start : start + step] for start in range(0, len(order), step)]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as reader:
            ahead: Future[_Opened] | None = None
            for place, batch in enumerate(batches):
                opened = ahead.result() if ahead else _open_all(batch)
                following = batches[place + 1] if place + 1 < len(batches) else None
                ahead = reader.submit(_open_all, following) if following else None
                yield self._run(opened, decoding)

    def _in_order(self, cases: Sequence[Case]) -> list[Case]:
        """Task by task, the one with the longest prompt first, within it the longest first: what does not fit
        into memory fails at once."""
        lengths = {case.key: self._length(case) for case in cases}
        longest: dict[str, int] = {}
        for case in cases:
            longest[case.sample.task] = max(longest.get(case.sample.task, 0), lengths[case.key])
        return sorted(
            cases, key=lambda case: (-longest[case.sample.task], case.sample.task, -lengths[case.key])
        )

    def _length(self, case: Case) -> int:
        """About how many tokens the prompt has."""
        pixels = 0
        for size_wh in case.sizes_wh():
            if min(size_wh) > 0 and max(size_wh) <= 200 * min(size_wh):
                width, height = self.loaded.resized(size_wh)
                pixels += width * height
        return pixels // self.loaded.processor.factor**2 + len(case.sample.query) // 3

    def _run(self, opened: _Opened, decoding: Decoding) -> Batch:
        from univg.models.generation.generate import Chat, generate

        started = time.perf_counter()
        asked, refused = self._askable(opened)
        chats = [
            Chat.ask(images, case.sample.query, style_for(case.sample, self.style), key=case.key)
            for case, images in asked
        ]
        if not chats:
            return refused
        with _memory_told(self.batch_size):
            drawn = generate(
                self.loaded,
                chats,
                max_new_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                n=decoding.samples,
                seed=decoding.seed,
                batch_size=max(self.batch_size, decoding.samples),
            )
        seconds = (time.perf_counter() - started) / len(chats)
        answers: Batch = [
            Answer(
                case,
                tuple(Text(one.text, one.tokens, one.truncated) for one in generations),
                tuple(self.loaded.resized(image.size) for image in images),
                seconds,
            )
            for (case, images), generations in zip(asked, drawn, strict=True)
        ]
        return answers + refused

    def _askable(self, opened: _Opened) -> tuple[list[tuple[Case, list[Image.Image]]], Batch]:
        asked: list[tuple[Case, list[Image.Image]]] = []
        refused: Batch = list(opened.refused)
        marks = (self.loaded.processor.image_token, self.loaded.processor.video_token)
        for case, images in opened.pictured:
            if any(mark in case.sample.query for mark in marks):
                why = f"the question spells {' or '.join(marks)}, which stands for an image: remove it"
                refused.append(Refusal(case, "prompt", why))
            else:
                asked.append((case, images))
        return asked, refused


@dataclass(frozen=True)
class _Opened:
    pictured: list[tuple[Case, list[Image.Image]]]
    refused: list[Refusal]


def _open_all(cases: Sequence[Case]) -> _Opened:
    opened = _Opened([], [])
    for case in cases:
        try:
            opened.pictured.append((case, case.pictures()))
        except ImageFault as fault:
            opened.refused.append(Refusal(case, "image", str(fault)))
    return opened


@contextmanager
def _memory_told(batch_size: int) -> Iterator[None]:
    """Turn the accelerator's out-of-memory error into one line that says what to change."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"out of memory with {batch_size} responses at a time: give a smaller --batch-size; "
            "what was answered is kept"
        ) from error


def load_local(
    name: str,
    benchmark: str,
    *,
    device: str | None = None,
    dtype: str = "auto",
    max_pixels: int | None = None,
    batch_size: int = 32,
    style: PromptStyle | None = None,
) -> LocalEngine:
    """Load checkpoint `name` for `benchmark`.

    The pixel budget is `max_pixels` if given, else the checkpoint's own. A checkpoint that has the paper's
    default gets 640000 pixels for the zero-shot sets, as the paper's evaluation of these has.
    Errors: as `univg.models.loading.load`.
    """
    from univg.models.loading import load

    loaded = load(name, device=device, dtype=dtype)
    budget = budget_for(benchmark, loaded.pixel_budget, max_pixels)
    loaded.processor.set_pixel_budget(budget)
    return LocalEngine(loaded, batch_size, style)


def budget_for(benchmark: str, stored: PixelBudget, max_pixels: int | None = None) -> PixelBudget:
    """The pixel budget of a run; see `load_local`.

    >>> from univg.models.processor import PixelBudget
    >>> budget_for("lisa_val", PixelBudget()).max_pixels, budget_for("mig_bench", PixelBudget()).max_pixels
    (640000, 401408)
    """
    from univg.models.processor import PixelBudget

    if max_pixels is not None:
        return PixelBudget(min(stored.min_pixels, max_pixels), max_pixels)
    if benchmark in ZERO_SHOT and stored == PixelBudget():
        return PixelBudget(stored.min_pixels, ZERO_SHOT_MAX_PIXELS)
    return stored
