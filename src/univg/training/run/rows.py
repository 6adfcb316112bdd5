"""The data of both stages: a mixture of the world and of files, as rows that depend on their number alone.

Row `i` is a pure function of (config, i). So a run that was killed goes on with exactly the rows that it has not
seen, and neither the number of workers nor their pace changes anything.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from PIL import Image

from univg.data.readers import READERS, ImageRoot, RecordFault, read
from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle, render_chat, render_response, style_for
from univg.grounding.samples import GroundingSample
from univg.models.pixels import PixelBudget
from univg.models.processor import GroundingProcessor
from univg.models.tokens import count_prompt, image_tokens
from univg.pictures.images import ImageFault, open_picture
from univg.training.config import DataSource, GrpoConfig, StageConfig
from univg.world import FAMILIES, make_sample

__all__ = ["Row", "StageError", "StageRows", "data_digest", "prompt_text", "steps_of"]

TRIES = 20
"""So many samples in a row that cannot be used are no longer bad luck."""
DIGEST_SAMPLES = 32  # of the world; files count whole
StageError = UnivgError


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


class _Source(Protocol):
    settings: DataSource
    size: int | None  # different samples; None: no end

    def draw(self, k: int) -> GroundingSample: ...

    def pictures(self, sample: GroundingSample, k: int) -> tuple[Image.Image, ...]: ...


class _World:
    """Sample k is drawn from its number; nothing is kept."""

    def __init__(self, settings: DataSource, seed: int) -> None:
        self.settings, self.size = settings, settings.count
        self.seed = 1000 * seed + settings.seed
        families = settings.families or tuple(FAMILIES)
        self.shares = dict(families) if isinstance(families, dict) else dict.fromkeys(families, 1.0)
        unknown = [name for name in self.shares if name not in FAMILIES]
        if unknown:
            raise StageError(f"data: no task family {unknown[0]!r}: choose from {', '.join(FAMILIES)}")
        if any(share < 0 for share in self.shares.values()) or not sum(self.shares.values()):
            raise StageError("data: families: shares are not negative, and one is above zero")

    def draw(self, k: int) -> GroundingSample:
        return self._made(k).sample

    def pictures(self, sample: GroundingSample, k: int) -> tuple[Image.Image, ...]:
        return self._made(k).images

    @lru_cache(maxsize=2)  # noqa: B019  (a source lives as long as its run)
    def _made(self, k: int) -> Any:
        rng = random.Random(f"{self.seed}/{k}")
        family = rng.choices(list(self.shares), list(self.shares.values()))[0]
        difficulty = round(rng.uniform(*self.settings.difficulty), 3)
        return make_sample(family, self.settings.split, self.seed, k, difficulty, self.settings.image_px)


class _File:
    """A file's usable samples, read once; pictures are opened when their sample comes."""

    def __init__(self, settings: DataSource, unusable: Callable[[GroundingSample, DataSource], str]) -> None:
        assert settings.path is not None
        self.settings, self.dropped = settings, 0
        reader = None if settings.reader == "auto" else settings.reader
        if reader is not None and reader not in READERS:
            raise StageError(f"data: no reader {reader!r}: choose from world, auto, {', '.join(READERS)}")
        self.root = ImageRoot(settings.images or ".")
        self.samples: list[GroundingSample] = []
        reason = ""
        faults: list[RecordFault] = []
        try:
            for sample in read(settings.path, reader, settings.images, on_fault=faults.append):
                why = unusable(sample, settings)
                if why:
                    reason, self.dropped = why, self.dropped + 1
                    continue
                self.samples.append(sample)
                if len(self.samples) == settings.count:
                    break
        except UnivgError as error:
            raise StageError(f"data: {error}") from error
        self.dropped += len(faults)
        if not self.samples:
            why = reason or (str(faults[0]) if faults else "it holds no record")
            raise StageError(
                f"data: no usable sample ({why}): {settings.path}: check the reader and the file"
            )
        self.size: int | None = len(self.samples)

    def draw(self, k: int) -> GroundingSample:
        return self.samples[k]

    def pictures(self, sample: GroundingSample, k: int) -> tuple[Image.Image, ...]:
        return tuple(open_picture(self.root.path(name)).image for name in sample.images)


class StageRows:
    """`total` rows of the mixture that `config` describes; `rows[i]` is a :class:`Row` and always the same.

    `teach`: rows carry the response to be learnt (SFT). A prompt over the token budget has its pictures shrunk;
    if that is not enough, or a picture cannot be opened, the next sample of the source takes its place, and the
    row's notes say so. Errors: StageError.
    """

    def __init__(
        self, config: StageConfig, processor: GroundingProcessor, total: int | None = None, teach: bool = True
    ) -> None:
        self.config, self.processor, self.teach = config, processor, teach
        self.sources: list[_Source] = [
            _World(settings, config.seed) if settings.reader == "world" else _File(settings, self._unusable)
            for settings in config.data
        ]
        self.total = total if total is not None else 0
        self._places: list[tuple[int, int]] = []

    def resize(self, total: int) -> None:
        """Set the number of rows; those there are stay what they are."""
        self.total, self._places = total, []

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < self.total:
            raise IndexError(i)
        if not self._places:
            self._places = self._mixture()
        source_index, rank = self._places[i]
        source = self.sources[source_index]
        notes: list[str] = []
        for attempt in range(TRIES):
            k = self._number(source_index, rank, attempt)
            sample = source.draw(k)
            try:
                row, why = self._fit(sample, source.pictures(sample, k), source.settings)
            except ImageFault as error:
                row, why = None, str(error)
            if row is not None:
                shrunk = (f"{_name(sample)}: pictures shrunk: {why}",) if why else ()
                return Row(row.sample, row.images, row.style, row.response, (*notes, *shrunk))
            notes.append(f"{_name(sample)}: left out: {why}")
        raise StageError(f"data: {TRIES} samples in a row cannot be used; the last: {notes[-1]}")

    def _mixture(self) -> list[tuple[int, int]]:
        """For every row its source, and how many rows of that source come before it."""
        rng = random.Random(f"{self.config.seed}/mixture")
        weights = [source.settings.weight for source in self.sources]
        seen = [0] * len(self.sources)
        places = []
        for s in rng.choices(range(len(self.sources)), weights, k=self.total):
            places.append((s, seen[s]))
            seen[s] += 1
        return places

    def _number(self, s: int, rank: int, attempt: int) -> int:
        """Which of its samples source `s` gives as its `rank`-th; `attempt` counts replacements."""
        size = self.sources[s].size
        if size is None:
            return rank + attempt * 10**9
        order = _shuffled(f"{self.config.seed}/{s}/{rank // size}", size)
        return order[(rank + attempt) % size]

    def _style(self, sample: GroundingSample, settings: DataSource) -> PromptStyle:
        return settings.prompt_style or style_for(sample, self.config.prompt_style)

    def _unusable(self, sample: GroundingSample, settings: DataSource) -> str:
        if not sample.boxes:
            return f"{_name(sample)} has no box"
        if self.teach and self._style(sample, settings) == "think" and not sample.thought:
            return f"{_name(sample)} has no thought; set prompt_style: direct to learn boxes alone"
        return ""

    def _fit(
        self, sample: GroundingSample, images: Sequence[Image.Image], settings: DataSource
    ) -> tuple[Row | None, str]:
        """(the row, why its pictures were shrunk) or (None, why it cannot be used)."""
        style = self._style(sample, settings)
        response = render_response(sample.boxes[0], sample.thought, style) if self.teach else None
        row = Row(sample, tuple(images), style, response)
        if self.config.max_tokens is None:
            return row, ""
        tokenizer, factor = self.processor.tokenizer, self.processor.factor
        budget = self.processor.pixel_budget
        after = self.config.max_completion_tokens if isinstance(self.config, GrpoConfig) else 0
        after += len(tokenizer.encode(response)) + 1 if response else 0
        seen_wh = [budget.resized(image.size, factor) for image in images]
        found = count_prompt(tokenizer, prompt_text(self.processor, row), seen_wh, factor) + after
        if found <= self.config.max_tokens:
            return row, ""
        why = f"{found} tokens, max_tokens={self.config.max_tokens}"
        room = self.config.max_tokens - found + image_tokens(seen_wh, factor)
        cap = self._cap(images, budget, room)
        if cap is None:
            return None, why
        smaller = tuple(
            image.resize(cap.resized(image.size, factor), Image.Resampling.BICUBIC) for image in images
        )
        return Row(sample, smaller, style, response), why

    def _tokens(self, images: Sequence[Image.Image], budget: PixelBudget) -> int:
        factor = self.processor.factor
        return image_tokens((budget.resized(image.size, factor) for image in images), factor)

    def _cap(self, images: Sequence[Image.Image], budget: PixelBudget, room: int) -> PixelBudget | None:
        """The largest budget (to a token's area) with which `images` take at most `room` tokens."""
        area = self.processor.factor**2
        low, high = budget.min_pixels // area, budget.max_pixels // area
        if room <= 0 or self._tokens(images, PixelBudget(budget.min_pixels, budget.min_pixels)) > room:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            wider = PixelBudget(budget.min_pixels, max(budget.min_pixels, middle * area))
            low, high = (middle, high) if self._tokens(images, wider) <= room else (low, middle - 1)
        return PixelBudget(budget.min_pixels, max(budget.min_pixels, low * area))


@lru_cache(maxsize=16)
def _shuffled(key: str, size: int) -> list[int]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return order


def _name(sample: GroundingSample) -> str:
    return sample.source or sample.key


def prompt_text(processor: GroundingProcessor, row: Row) -> str:
    """The prompt with the chat's marks, ready for the answer."""
    return str(processor.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True))


def steps_of(config: StageConfig, rows: StageRows, per_step: int) -> int:
    """The run's steps: `max_steps`, else `epochs` times the sources' samples in steps of `per_step`."""
    if config.max_steps is not None:
        return config.max_steps
    sizes = [source.size for source in rows.sources]
    if None in sizes:
        raise StageError("max_steps: the world has no end: give max_steps, or the world's count")
    return max(1, round(config.epochs * sum(size for size in sizes if size is not None) / per_step))


def data_digest(rows: StageRows) -> str:
    """sha256 of what the rows are drawn from: files whole (their samples, not their pictures), the world by its
    first samples, pixels included."""
    sha = hashlib.sha256()
    for source in rows.sources:
        settings = source.settings.model_dump(mode="json", exclude={"path", "images"})
        sha.update(json.dumps(settings, sort_keys=True).encode())
        for k in range(DIGEST_SAMPLES if source.size is None else source.size):
            sample = source.draw(k)
            sha.update(json.dumps(sample.to_json(), sort_keys=True).encode())
            if isinstance(source, _World):
                sha.update(b"".join(image.tobytes() for image in source.pictures(sample, k)))
                if k + 1 == DIGEST_SAMPLES:
                    break
    return sha.hexdigest()
