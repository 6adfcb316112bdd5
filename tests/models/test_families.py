"""Checkpoints of the three families as they are published: what a user downloads is what is read here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import families
from univg.models.grounder import Grounder

Picture = Callable[..., Image.Image]


@pytest.mark.parametrize("model_type", families.FAMILIES)
def test_a_published_checkpoint_answers_about_several_images(
    model_type: str, picture: Picture, tmp_path: Path
) -> None:
    """Qwen2.5-VL's tokenizer has a template of its own, of texts alone: the processor's knows images."""
    folder = families.save_family(tmp_path / model_type, model_type, tied=False, pixels=(64 * 64, 128 * 128))
    grounder = Grounder.from_pretrained(folder)
    grounding = grounder.ground([picture(120, 60), picture(64, 64)], "Where is the dog?", max_new_tokens=4)
    assert grounding.raw and grounding.fault == "truncated"
