"""Find the place in several images that a question means.

from univg import Grounder

grounder = Grounder.from_pretrained("embedded")
grounding = grounder.ground(["a.png", "b.png"], "What changed between the images?")
grounding.thought, grounding.boxes[0].box_px, grounding.boxes[0].image_index

every = grounder.ground(["a.png", "b.png"], "Every red circle.", style=grounder.set_style)
[(box.image_index, box.box_px) for box in every.boxes], every.says_none
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from univg.errors import UnivgError
from univg.grounding.agreement import choose_most_agreed, count_agreeing
from univg.grounding.boxes import Box, BoxPermille, SizeWH, unit_to_permille, unit_to_px
from univg.grounding.coordinates import Frame
from univg.grounding.mentions import ImageRule
from univg.grounding.prompts import SETS, PromptStyle, style_of_sets
from univg.grounding.reading import Asked, Fault, PlacedBox, read
from univg.models.doubts import list_doubts
from univg.models.familiarity import note_strange_images
from univg.models.families import AskedStyle, settle_style
from univg.models.loading import Loaded, load
from univg.models.tokens import choose_longest
from univg.pictures.images import Picture, as_picture, open_picture

if TYPE_CHECKING:
    import torch

    from univg.models.generation.generate import Generation
    from univg.models.pixels import PixelBudget

ImageLike = str | PathLike[str] | Image.Image


@dataclass(frozen=True)
class GroundedBox:
    """A box on image `image_index` (from 0). `box_px` is in pixels of that image, to hundredths: of a file, as it
    is seen upright (after its EXIF rotation); of a PIL image, as it stands. `box_unit` is 0-1 and `box_permille`
    integers 0-1000 of its width and height. `confidence` is None for one sample and where one box was asked for, else
    the share of the other samples that have this box too (an IoU of at least 0.5)."""

    image_index: int
    box_px: Box
    box_unit: Box
    box_permille: BoxPermille
    confidence: float | None = None


@dataclass(frozen=True)
class Grounding:
    """The answer to a question about images.

    `boxes` is empty when the response holds none that can be used; `fault` then names why, and it may also
    name a flaw of a response whose box could be used (None: nothing was wrong). `image_rule` says what
    decided which image the first box is on: "answer", "question", "thought" or "last". `confidence` is None for one
    sample, else the agreement of the samples, 0-1. `raw` is the response as the model wrote it, `model` the
    checkpoint's name, `seconds` the time from opening the images to the answer, `notes` what opening them
    took ("animated, first frame used"), and whether the embedded model was asked about what it does not know.
    `says_none`: there is no box, because the response says that nothing of what was asked for is there. `style`: how it
    was asked; in a style of sets, `boxes` are all that were found, on whichever images.
    """

    thought: str | None
    boxes: tuple[GroundedBox, ...]
    image_rule: ImageRule
    fault: Fault | None
    confidence: float | None
    raw: str
    model: str
    seconds: float
    notes: tuple[str, ...] = ()
    says_none: bool = False
    style: PromptStyle = "think"

    @property
    def is_set(self) -> bool:
        """Whether all that fit were asked for, not one box."""
        return self.style in SETS

    def to_json(self) -> dict[str, Any]:
        """Return a dict for `json.dumps`: the fields by name, boxes as lists of numbers."""
        return asdict(self)


class Grounder:
    """A loaded model that answers grounding questions. `Grounder.from_pretrained(name)` makes one."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "embedded",
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        pixel_budget: PixelBudget | None = None,
        lora: str | Path | None = None,
        frame: Frame | None = None,
    ) -> Grounder:
        """Load a checkpoint: see `univg.models.loading.load` for the arguments and errors."""
        return cls(load(name, dtype=dtype, device=device, pixel_budget=pixel_budget, lora=lora, frame=frame))

    @property
    def set_style(self) -> PromptStyle:
        """The style that asks this checkpoint for every box that fits, or that none does."""
        return style_of_sets(self.loaded.prompt_style)

    def ground(
        self,
        images: ImageLike | Sequence[ImageLike],
        query: str,
        *,
        samples: int = 1,
        style: AskedStyle | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> Grounding:
        """Ground `query` in `images` (paths, or PIL images), given in the order the query speaks of them.

        One sample is decoded greedily. With `samples` = k, k responses are drawn at temperature 1 and the one
        whose box agrees most with the others (the medoid by IoU) is returned, one without a fault if there is
        one; its `confidence` is that mean IoU with the k - 1 others, where a box on another image, or no box at
        all, agrees by 0. The same `seed` draws the same. `style` replaces the checkpoint's own way of being
        asked ("native" is that of its family's stock models), `temperature` the one that `samples` implies. A response
        has up to `max_new_tokens` (default: 256, in a style of sets 512).

        With `style=grounder.set_style` all that fit are asked for, on whichever images, or that none does; k samples
        then agree by the soft-F1 of their boxes.

        Errors: UnivgError for no image, fewer than one sample, an empty query, and more than the model's context holds;
        ImageFault for a file that is no usable image.
        """
        started = time.perf_counter()
        # Looked at before torch is needed: a mistaken path or question is told at once.
        pictures = _open_images(images)
        if not query.strip():
            raise UnivgError("the question is empty", remedy="say what to look for")
        if samples < 1:
            raise UnivgError(f"samples={samples}", remedy="draw at least one")
        from univg.models.generation.generate import Chat, generate, measure

        style = settle_style(style or self.loaded.prompt_style, self.loaded.family)
        chat = Chat.ask([picture.image for picture in pictures], query, style)
        max_new_tokens = choose_longest(style in SETS) if max_new_tokens is None else max_new_tokens
        self._check_length(measure(self.loaded, chat), max_new_tokens)
        if temperature is None:
            temperature = 0.0 if samples == 1 else 1.0
        [responses] = generate(
            self.loaded, [chat], max_new_tokens=max_new_tokens, temperature=temperature, n=samples, seed=seed
        )
        return self._read(pictures, query, style, responses, started)

    def _read(
        self,
        pictures: Sequence[Picture],
        query: str,
        style: PromptStyle,
        responses: Sequence[Generation],
        started: float,
    ) -> Grounding:
        """Read all responses to a question, asked at the time `started`, and return the one that is the answer."""
        sizes = [picture.image.size for picture in pictures]
        asked = Asked(len(sizes), query, style, self.loaded.family.frame)
        seen_wh = [self.loaded.resized(size_wh) for size_wh in sizes]
        readings = [read(response.text, asked, seen_wh, response.truncated) for response in responses]
        sets = style in SETS
        chosen, confidence = choose_most_agreed(readings, sets)
        reading = readings[chosen]
        shares: Sequence[float | None] = [None] * len(reading.boxes)
        if sets and len(responses) > 1:
            shares = count_agreeing(readings, chosen)
        return Grounding(
            thought=reading.thought,
            boxes=tuple(
                _measure_box(box, sizes, share) for box, share in zip(reading.boxes, shares, strict=True)
            ),
            image_rule=reading.first.image_rule if reading.first else reading.image_rule,
            fault=reading.fault,
            confidence=confidence,
            raw=responses[chosen].text,
            model=self.loaded.name,
            seconds=time.perf_counter() - started,
            notes=(
                *(f"{picture.path}: {note}" for picture in pictures for note in picture.notes),
                *note_strange_images(self.loaded.name, [picture.image for picture in pictures]),
                *list_doubts(reading, len(pictures)),
            ),
            says_none=reading.says_none,
            style=style,
        )

    def _check_length(self, tokens: int, max_new_tokens: int) -> None:
        if tokens + max_new_tokens > self.loaded.context:
            cause = (
                f"the question and its images are {tokens} tokens, and {max_new_tokens} may be written: more than the "
                f"model's {self.loaded.context}"
            )
            raise UnivgError(cause, remedy="ask a shorter question, or give fewer images")


def _open_images(images: ImageLike | Sequence[ImageLike]) -> list[Picture]:
    if isinstance(images, (str, PathLike, Image.Image)):
        images = [images]
    if not images:
        raise UnivgError("no images", remedy="give at least one")
    return [
        as_picture(image, str(getattr(image, "filename", "") or f"image {number}"))
        if isinstance(image, Image.Image)
        else open_picture(image)
        for number, image in enumerate(images, start=1)
    ]


def _measure_box(box: PlacedBox, sizes: Sequence[SizeWH], confidence: float | None) -> GroundedBox:
    x1, y1, x2, y2 = (round(edge, 2) for edge in unit_to_px(box.box, sizes[box.image_index]))
    return GroundedBox(box.image_index, (x1, y1, x2, y2), box.box, unit_to_permille(box.box), confidence)
