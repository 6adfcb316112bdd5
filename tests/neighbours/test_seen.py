"""What the tests of neighbours look with: pictures put together again from patches, and what they are held to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from seen import describe

from neighbouring import PICTURES, check_pictures, check_taught, draw_pictures, make_samples
from univg.files import ASSETS
from univg.grounding.prompts import render_answer, render_prompt
from univg.models.processor import GroundingProcessor

NAMES = ("small.png", "large.png", "wide.jpg")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What our own processor makes of a question about three pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder)
    processor = GroundingProcessor.from_pretrained(ASSETS / "tiny-think")
    images = [Image.open(folder / name).convert("RGB") for name in NAMES]
    content = [{"type": "image"}] * 3 + [{"type": "text", "text": render_prompt("Where?")}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    made = processor(images=images, text=[text], return_tensors="pt")
    return describe(
        made["input_ids"][0].tolist(), [], made["pixel_values"], made["image_grid_thw"].tolist(), processor
    )


def test_pictures_are_put_together_as_they_were(found: dict[str, Any]) -> None:
    check_pictures(found, NAMES, 28)
    assert found["text"].count("<|vision_start|><|vision_end|>") == 3
    assert found["pictures"][1]["size"] != list(PICTURES["large.png"][0]), "it was shrunk"


@pytest.mark.parametrize("fault", ["order", "missing", "tokens", "moved"])
def test_what_a_neighbour_gets_wrong_is_seen(found: dict[str, Any], fault: str) -> None:
    wrong = copy.deepcopy(found)
    if fault == "order":
        wrong["pictures"].reverse()
    elif fault == "missing":
        wrong["pictures"].pop()
    elif fault == "tokens":
        wrong["image_tokens"] -= 1
    else:
        wrong["pictures"][0]["red"][0] += 6
    with pytest.raises(AssertionError):
        check_pictures(wrong, NAMES, 28)


def test_taught_boxes_are_read_in_their_frame() -> None:
    sizes = [(644, 448)]
    sample = make_samples()[0]
    thousandths, pixels = render_answer(sample, "direct"), render_answer(sample, "direct", 0, sizes)
    check_taught(thousandths, sample, "direct", "permille", sizes)
    check_taught(pixels, sample, "direct", "pixel", sizes)
    for text, frame in (
        (thousandths, "pixel"),
        (pixels, "permille"),
        (thousandths.replace("600", "601"), "permille"),
    ):
        with pytest.raises(AssertionError):
            check_taught(text, sample, "direct", frame, sizes)  # type: ignore[arg-type]


def test_there_is_a_picture_for_every_sample(tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    assert all((tmp_path / name).is_file() for sample in make_samples(turned=True) for name in sample.images)
