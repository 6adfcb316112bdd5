"""Turn pictures and a chat into tensors, the same way everywhere, with or without torchvision.

transformers' own `Qwen2VLProcessor` asks for a video processor, and that one asks for torchvision.
Here a video is a sequence of pictures, so the processor is composed of what is really used: the image
processor in its Pillow class and the tokenizer. What it saves is the standard layout
(`preprocessor_config.json`, tokenizer files, `chat_template.jinja`), so plain transformers reads it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import normalizers
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from univg.models.pixels import PixelBudget
from univg.models.tokens import chat_marks

__all__ = ["CHAT_TEMPLATE", "GroundingProcessor", "PixelBudget"]

# The ChatML exchange of Qwen2-VL: the images of a turn stand where the chat names them. Written anew here for
# checkpoints that bring no template; `generation` marks let trainers find the assistant's tokens.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- set body -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endset -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ body + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{%- else -%}{{ body + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)

VIDEO_FILE = "video_preprocessor_config.json"
"""Qwen3-VL's: nothing here reads it, and plain transformers and servers do."""

_SHIELD = "\ufdd0"  # Unicode keeps this character for a program's own use: no text should hold it


class GroundingProcessor(Qwen2VLProcessor):
    """Image processor and tokenizer of a Qwen2-VL family checkpoint, called as transformers' processors are.

    The texts of a chat are texts: where one spells a mark of the chat (``<|im_end|>``, ``<|image_pad|>``), rendering
    breaks the mark by a character that the tokenizer drops once it has looked for its marks. So only what the
    template writes becomes a mark, and all other tokens are those of the text as it stands.

    `processor(images=[[picture, …], …], text=[…], padding=True, return_tensors="pt")` gives `input_ids`,
    `attention_mask`, `mm_token_type_ids` of shape (batch, tokens), `pixel_values` (patches, patch values)
    and `image_grid_thw` (images, 3).

    `published_as` are the classes, of processor and image processor, that the files of the checkpoint's family name;
    `others` the files about video that the checkpoint came with, by name: what is saved has them as they were.
    """

    published_as: tuple[str, str] = ("Qwen2VLProcessor", "Qwen2VLImageProcessor")
    others: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        backend = tokenizer.backend_tokenizer
        others = [] if backend.normalizer is None else [backend.normalizer]
        if not others or others[0].normalize_str(_SHIELD):
            backend.normalizer = normalizers.Sequence([normalizers.Replace(_SHIELD, ""), *others])

    def apply_chat_template(self, conversation: Any, *arguments: Any, **settings: Any) -> Any:
        """Render, or encode, a chat or a batch of chats as transformers does, with the marks in their texts broken."""
        return super().apply_chat_template(self._shield(conversation), *arguments, **settings)

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is no chat: none is a mark of one."""
        ids: list[int] = self.tokenizer.encode(self._shield(text))
        return ids

    def _shield(self, part: Any) -> Any:
        if isinstance(part, str):
            return _find_begun(tuple(chat_marks(self.tokenizer).values())).sub(rf"\1{_SHIELD}", part)
        if isinstance(part, dict):
            return {
                name: self._shield(value) if name in ("content", "text") else value
                for name, value in part.items()
            }
        return [self._shield(one) for one in part] if isinstance(part, (list, tuple)) else part

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]

    @property
    def factor(self) -> int:
        """Both sides of a resized image are multiples of this many pixels (28 for Qwen2-VL)."""
        return int(self.image_processor.patch_size * self.image_processor.merge_size)

    @property
    def pixel_budget(self) -> PixelBudget:
        size = self.image_processor.size
        return PixelBudget(int(size["shortest_edge"]), int(size["longest_edge"]))

    def set_pixel_budget(self, budget: PixelBudget) -> None:
        self.image_processor.size = {"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels}

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> GroundingProcessor:
        """Read a checkpoint's processor from a folder or the hub, whichever class wrote it."""
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(name, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **kwargs)
        # A processor's own template knows images; a tokenizer's may be one of texts alone (Qwen2.5-VL's is).
        stated, _ = cls.get_processor_dict(str(name), **kwargs)
        template = stated.get("chat_template") or tokenizer.chat_template or CHAT_TEMPLATE
        processor = cls(image_processor, tokenizer, chat_template=template)
        found = Path(name) / VIDEO_FILE
        processor.others = {VIDEO_FILE: found.read_text("utf-8")} if found.is_file() else {}
        return processor

    def save_pretrained(
        self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the standard layout, naming the classes that the family's published files name: AutoProcessor, and
        servers, find the family's own by them."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.chat_template = self.chat_template
        backend = self.tokenizer.backend_tokenizer
        ours, padding, cut = backend.normalizer, backend.padding, backend.truncation
        backend.normalizer = ours[1] if len(ours) > 1 else None  # the file is as it came
        backend.no_padding()  # nor does it hold how the last batch was padded, which other programs would do to theirs
        backend.no_truncation()
        self.tokenizer.save_pretrained(folder)
        backend.normalizer = ours
        if padding is not None:
            backend.enable_padding(**padding)
        if cut is not None:
            backend.enable_truncation(**cut)
        settings = self.image_processor.to_dict()
        budget = self.pixel_budget
        processor_class, image_processor_type = self.published_as
        settings |= {
            "image_processor_type": image_processor_type,
            "processor_class": processor_class,
            "min_pixels": budget.min_pixels,
            "max_pixels": budget.max_pixels,
            "size": {"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels},
        }
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        for file, text in self.others.items():
            (folder / file).write_text(text, "utf-8")
        return [str(path), *(str(folder / file) for file in self.others)]


@lru_cache
def _find_begun(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Find where one of the marks begins, overlapping ones as well, and one that the next text may go on with."""
    begun = []
    for mark in marks:
        rest = ""
        for letter in reversed(mark[1:]):
            rest = rf"(?:\Z|{re.escape(letter)}{rest})"
        begun.append(re.escape(mark[0]) + rest)
    return re.compile(f"(?=(?:{'|'.join(begun)}))(.)", re.DOTALL)
