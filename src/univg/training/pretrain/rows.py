"""Encode samples of the world quickly: what the processor would make of them, some ten times as fast.

All texts of a step go through the tokenizer at once, the chat's form is rendered once for each number of images, and
pictures are cut into patches as bytes. A test holds the result equal to the processor's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding

from univg.models.processor import GroundingProcessor

__all__ = ["EncodedRow", "RowEncoder"]

_TEXT = "\x00"
"""Stands for the text in a chat's form."""
_BOX = re.compile(r"\((\d+),(\d+)\),\((\d+),(\d+)\)")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedRow:
    """One prompt with its answer, as tokens; the answer's stand last.

    `boxes`: of each box that the answer writes, the token before its first digit and the box, unit coordinates.
    """

    ids_T: Ints
    positions_3T: Ints
    image_at: Ints  # the places of the images' tokens
    answer: int  # tokens
    boxes: tuple[tuple[int, tuple[float, ...]], ...]
    patches_PF: NDArray[np.uint8]
    grids: tuple[tuple[int, int], ...]  # rows and columns of patches, of each image

    def __len__(self) -> int:
        return len(self.ids_T)


class RowEncoder:
    """Encode pictures, what is asked of them and the answer, a step at a time."""

    def __init__(self, processor: GroundingProcessor) -> None:
        self.processor, images = processor, processor.image_processor
        self.patch, self.merge = int(images.patch_size), int(images.merge_size)
        tokenizer = processor.tokenizer
        self.image_id = int(processor.image_token_id)
        self.end_id = int(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.forms: dict[int, tuple[str, str]] = {}

    def encode(
        self, pictures: Sequence[Sequence[Image.Image]], asked: Sequence[str], answers: Sequence[str]
    ) -> list[EncodedRow]:
        """Return a row of each: the pictures, the prompt's text, the answer."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # each worker has a core of its own, not all
        prompts = [text.join(self._form(len(shown))) for shown, text in zip(pictures, asked, strict=True)]
        tokenizer = self.processor.tokenizer.backend_tokenizer
        tokenizer.no_padding()  # the processor's calls leave theirs behind
        tokenizer.no_truncation()
        asked_ids = [each.ids for each in tokenizer.encode_batch(prompts, add_special_tokens=False)]
        said = tokenizer.encode_batch(list(answers), add_special_tokens=False)
        return list(map(self._make_row, pictures, asked_ids, said, answers))

    def _form(self, n_images: int) -> tuple[str, str]:
        """Return what the chat writes before a text about so many images, and after it."""
        if n_images not in self.forms:
            content = [*({"type": "image"} for _ in range(n_images)), {"type": "text", "text": _TEXT}]
            chat = [{"role": "user", "content": content}]
            rendered = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            before, _, after = str(rendered).partition(_TEXT)
            self.forms[n_images] = before, after
        return self.forms[n_images]

    def _make_row(
        self, pictures: Sequence[Image.Image], prompt_ids: Sequence[int], said: Encoding, answer: str
    ) -> EncodedRow:
        cut = [self._cut(picture) for picture in pictures]
        grids = tuple((patches.shape[0], patches.shape[1]) for patches in cut)
        ids = np.array([*prompt_ids, *said.ids, self.end_id])
        marks = np.flatnonzero(ids == self.image_id)
        merged = [(h // self.merge, w // self.merge) for h, w in grids]
        counts, steps = np.ones(len(ids), int), np.ones(len(ids), int)
        counts[marks] = [h * w for h, w in merged]
        steps[marks] = [max(each) for each in merged]
        # As M-RoPE has it: an image's tokens count from where it begins, the text goes on after its longer side.
        positions = np.repeat(np.cumsum(steps) - steps, counts)
        positions_3T = np.stack([positions] * 3)
        starts = (np.cumsum(counts) - counts)[marks]
        for start, (h, w) in zip(starts, merged, strict=True):
            positions_3T[1:, start : start + h * w] += _grid(h, w)
        ids_T = np.repeat(ids, counts)
        asked = len(ids_T) - len(said.ids) - 1
        found = [(said.char_to_token(box.start(1)), box.groups()) for box in _BOX.finditer(answer)]
        boxes = tuple(
            (asked + first - 1, tuple(int(value) / 1000 for value in values))
            for first, values in found
            if first is not None  # which no digit is
        )
        return EncodedRow(
            ids_T,
            positions_3T,
            np.flatnonzero(ids_T == self.image_id),
            len(said.ids) + 1,
            boxes,
            np.concatenate([patches.reshape(-1, patches.shape[-1]) for patches in cut]),
            grids,
        )

    def _cut(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Cut a picture into patches (rows, columns, values), those that are merged one after the other when flat."""
        size = self.processor.pixel_budget.resized(picture.size, self.processor.factor)
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(picture)
        p, m = self.patch, self.merge
        rows, columns = pixels.shape[0] // p, pixels.shape[1] // p
        blocks = pixels.reshape(rows // m, m, p, columns // m, m, p, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        return blocks.reshape(rows, columns, 3 * p * p)


@lru_cache(maxsize=1024)
def _grid(h: int, w: int) -> Ints:
    """Return row and column of every cell, (2, h × w)."""
    return np.indices((h, w)).reshape(2, -1)
