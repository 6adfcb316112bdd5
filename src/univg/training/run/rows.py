"""Mix the data of both stages, of the world and of files, into rows that depend on their number alone.

Row `i` is a pure function of (config, i). So a run that was killed goes on with exactly the rows that it has not
seen, and neither the number of workers nor their pace changes anything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from PIL import Image

from univg.data.dataset import ENDLESS, digest_parts
from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH, is_degenerate
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle, render_answer, render_chat
from univg.grounding.samples import GroundingSample
from univg.models.pixels import PixelBudget, is_resizable
from univg.models.processor import GroundingProcessor
from univg.models.tokens import count_prompt, image_tokens
from univg.pictures.images import ImageFault
from univg.training.config import GrpoConfig, SftConfig, StageConfig
from univg.training.run.dropped import Dropped
from univg.training.run.log import LEFT_OUT_MARK
from univg.training.run.mirroring import mirror
from univg.training.run.sources import Source, choose_prompt_style, open_sources
from univg.training.run.written import as_written, find_place
from univg.training.sources import SampleSource

__all__ = ["Row", "StageRows", "count_steps", "data_digest", "render_prompt_text"]

TRIES = 20
"""So many samples in a row that cannot be used are no longer bad luck."""


@dataclass(frozen=True)
class Row:
    """A sample that fits: its pictures, how it is asked, what is to be answered (None in RL), and `notes` on
    what was shrunk for it or left out before it."""

    sample: GroundingSample
    images: tuple[Image.Image, ...]
    style: PromptStyle
    response: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def prompt(self) -> list[dict[str, Any]]:
        return render_chat(len(self.images), self.sample.query, self.style)


class StageRows:
    """`total` rows of the mixture that `config` describes; `rows[i]` is a :class:`Row` and always the same.

    `teach`: rows carry the response to be learnt (SFT), in the `frame` that the model's family writes; pixels are those
    of the pictures as the model sees them, after all shrinking. A prompt over the token budget has its pictures shrunk;
    if that is not enough, or a picture cannot be opened, the next sample of the source takes its place, and the row's
    notes say so. `sources`: the config's, where they are open already.
    Raises UnivgError.
    """

    def __init__(
        self,
        config: StageConfig,
        processor: GroundingProcessor,
        total: int = 0,
        teach: bool = True,
        frame: Frame = "permille",
        sources: Sequence[Source] | None = None,
    ) -> None:
        self.config, self.processor, self.teach, self.frame = config, processor, teach, frame
        self.sources = list(sources) if sources is not None else open_sources(config, teach)
        self.total = total
        self._places: list[tuple[int, int]] = []

    def resize(self, total: int) -> None:
        """Set the number of rows; those there are stay what they are."""
        self.total, self._places = total, []

    @property
    def dropped(self) -> list[Dropped]:
        """What was found in the sources' files when they were read, and left out of them."""
        return [source.dropped for source in self.sources if source.dropped is not None]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < self.total:
            raise IndexError(i)
        if not self._places:
            self._places = self._mix()
        source_index, rank = self._places[i]
        source = self.sources[source_index]
        notes: list[str] = []
        for attempt in range(TRIES):
            k = self._choose_sample(source_index, rank, attempt)
            item = source.data.item(k)
            name = item.sample.name
            try:
                sample, images = item.sample, tuple(item.pictures())
                if isinstance(self.config, SftConfig) and self.config.mirror:
                    sample, images = mirror(sample, images, random.Random(f"{self.config.seed}/mirror/{i}"))
                row, why = self._fit(sample, images, source.settings)
            except ImageFault as error:
                row, why = None, str(error).replace("--images", f"data.{source_index}.images")
            if row is not None:
                shrunk = (f"{name}: pictures shrunk: {why}",) if why else ()
                return replace(row, notes=(*notes, *shrunk))
            notes.append(f"{name}{LEFT_OUT_MARK}{why}")
        raise UnivgError(f"data: {TRIES} samples in a row cannot be used; the last: {notes[-1]}")

    def preview(self, n: int) -> Iterator[Row]:
        """Yield up to `n` rows of each source, in its own order; those that cannot be used are passed over."""
        for source in self.sources:
            for k in range(min(n, source.data.total)):
                item = source.data.item(k)
                try:
                    row, _ = self._fit(item.sample, item.pictures(), source.settings)
                except ImageFault:
                    continue  # told when its turn comes
                if row is not None:
                    yield row

    def _mix(self) -> list[tuple[int, int]]:
        """Return for every row its source, and how many rows of that source come before it."""
        rng = random.Random(f"{self.config.seed}/mixture")
        weights = [settings.weight for settings in self.config.data]
        seen = [0] * len(self.sources)
        places = []
        for s in rng.choices(range(len(self.sources)), weights, k=self.total):
            places.append((s, seen[s]))
            seen[s] += 1
        return places

    def _choose_sample(self, s: int, rank: int, attempt: int) -> int:
        """Return which of its samples source `s` gives as its `rank`-th; `attempt` counts replacements."""
        size = self.sources[s].data.total
        if size == ENDLESS:
            return rank + attempt * 10**9
        order = _shuffle(f"{self.config.seed}/{s}/{rank // size}", size)
        return order[(rank + attempt) % size]

    def _fit(
        self, sample: GroundingSample, images: Sequence[Image.Image], settings: SampleSource
    ) -> tuple[Row | None, str]:
        """Return the row and why its pictures were shrunk, or None and why it cannot be used."""
        style = choose_prompt_style(sample, settings, self.config)
        response = self._write_response(sample, style, images) if self.teach else None
        row = Row(sample, tuple(images), style, response)
        if self.config.max_tokens is None:
            return self._check_boxes(row, "")
        tokenizer, factor = self.processor.tokenizer, self.processor.factor
        budget = self.processor.pixel_budget
        after = self.config.max_completion_tokens if isinstance(self.config, GrpoConfig) else 0
        after += len(self.processor.encode_text(response)) + 1 if response else 0
        seen_wh = [self.seen_wh(image) for image in images]
        found = count_prompt(tokenizer, render_prompt_text(self.processor, row), seen_wh, factor) + after
        if found <= self.config.max_tokens:
            return self._check_boxes(row, "")
        why = f"{found} tokens, max_tokens={self.config.max_tokens}"
        room = self.config.max_tokens - found + image_tokens(seen_wh, factor)
        cap = self._find_budget([image.size for image in images], budget, room)
        sizes = [] if cap is None else [cap.resized(image.size, factor) for image in images]
        # The processor resizes them again: not at all, but for what its least pixels or the longest shape change.
        if not sizes or not all(map(is_resizable, sizes)) or self._count_tokens(sizes, budget) > room:
            return None, why
        smaller = tuple(
            image.resize(size_wh, Image.Resampling.BICUBIC)
            for image, size_wh in zip(images, sizes, strict=True)
        )
        response = self._write_response(sample, style, smaller) if self.teach else None
        return self._check_boxes(Row(sample, smaller, style, response), why)

    def _check_boxes(self, row: Row, why: str) -> tuple[Row | None, str]:
        """Return a row and `why` its pictures were shrunk, or None and the reason where the model is to write whole
        pixels and one of its boxes has no area in them. (Thousandths do not depend on the picture: files are checked
        for them when they are read.)"""
        if self.frame == "pixel":
            sizes = [self.seen_wh(image) for image in row.images]
            written = as_written(row.sample, sizes).boxes
            if any(map(is_degenerate, written if row.sample.complete else written[:1])):
                seen = ", ".join(f"{width}x{height}" for width, height in sizes)
                return None, f"a box has no area in whole pixels of what the model sees ({seen})"
        return row, why

    def seen_wh(self, image: Image.Image) -> SizeWH:
        """Return the size at which the model sees a picture."""
        return self.processor.pixel_budget.resized(image.size, self.processor.factor)

    def _write_response(
        self, sample: GroundingSample, style: PromptStyle, images: Sequence[Image.Image]
    ) -> str:
        sizes = [self.seen_wh(image) for image in images] if self.frame == "pixel" else ()
        return render_answer(sample, style, find_place(sample), sizes)

    def _count_tokens(self, sizes: Sequence[SizeWH], budget: PixelBudget) -> int:
        factor = self.processor.factor
        return image_tokens((budget.resized(size_wh, factor) for size_wh in sizes), factor)

    def _find_budget(self, sizes: Sequence[SizeWH], budget: PixelBudget, room: int) -> PixelBudget | None:
        """Find the largest budget (to a token's area) with which images of these sizes take at most `room` tokens."""
        area = self.processor.factor**2
        low, high = budget.min_pixels // area, budget.max_pixels // area
        if room <= 0 or self._count_tokens(sizes, PixelBudget(budget.min_pixels, budget.min_pixels)) > room:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            wider = PixelBudget(budget.min_pixels, max(budget.min_pixels, middle * area))
            low, high = (middle, high) if self._count_tokens(sizes, wider) <= room else (low, middle - 1)
        return PixelBudget(budget.min_pixels, max(budget.min_pixels, low * area))


@lru_cache(maxsize=16)
def _shuffle(key: str, size: int) -> list[int]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return order


def render_prompt_text(processor: GroundingProcessor, row: Row) -> str:
    """Return the prompt with the chat's marks, ready for the answer."""
    return str(processor.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True))


def count_steps(config: StageConfig, rows: StageRows, per_step: int) -> int:
    """Return the run's steps: `max_steps`, else `epochs` times the sources' samples in steps of `per_step`."""
    if config.max_steps is not None:
        return config.max_steps
    sizes = [source.data.total for source in rows.sources]
    if ENDLESS in sizes:
        raise UnivgError("max_steps", "the world has no end", "give max_steps, or the world's count")
    return max(1, round(config.epochs * sum(sizes) / per_step))


def data_digest(rows: StageRows) -> str:
    """Return the SHA-256 of what the rows are drawn from: files whole (their samples, not their pictures), the world
    by its first samples, pixels included."""

    def parts() -> Iterator[str | bytes]:
        for source in rows.sources:
            settings = source.settings.model_dump(mode="json", exclude={"path", "images"})
            yield json.dumps(settings, sort_keys=True)
            yield from source.data.content()

    return digest_parts(parts())
