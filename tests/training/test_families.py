"""Each family is taught and judged in its own coordinates, at the size at which its own processor shows a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

import families
from univg.grounding.boxes import Box, SizeWH, is_degenerate, unit_to_px
from univg.grounding.prompts import PromptStyle, render_chat
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.conventions import write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.generation.generate import forbidden_ids
from univg.models.loading import _read_processor
from univg.models.pixels import PixelBudget
from univg.models.processor import GroundingProcessor
from univg.training.config import DataSource, GrpoConfig, SftConfig
from univg.training.grpo.rewards import RolloutReader, write_ideal
from univg.training.run.batches import IGNORED, encode_row
from univg.training.run.rows import Row, StageRows, render_prompt_text
from univg.training.sft.lessons import check_lessons


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GroundingProcessor]:
    """Those of the three families, read from their published files."""
    root = tmp_path_factory.mktemp("published")
    return {
        name: GroundingProcessor.from_pretrained(families.copy_published(root / name, name))
        for name in families.FAMILIES
    }


def seen_by(processor: GroundingProcessor, images: Sequence[Image.Image]) -> list[SizeWH]:
    """The sizes that transformers' own rule gives the pictures."""
    size = processor.image_processor.size
    limits = processor.factor, size["shortest_edge"], size["longest_edge"]
    return [smart_resize(image.height, image.width, *limits)[::-1] for image in images]


def count_tokens(processor: GroundingProcessor, row: Row) -> int:
    """How many tokens a row takes: its prompt's, those of its pictures, and the answer's with its end."""
    text = len(processor.tokenizer.encode(render_prompt_text(processor, row))) - len(row.images)
    seen = seen_by(processor, row.images)
    pads = sum(width * height // processor.factor**2 for width, height in seen)
    return text + pads + len(processor.tokenizer.encode(row.response)) + 1


def make_rows(
    processor: GroundingProcessor, name: str, data: Sequence[DataSource] = (), **config: Any
) -> StageRows:
    kind = SftConfig if config.pop("teach", True) else GrpoConfig
    given: Any = kind(model="none", data=tuple(data) or (DataSource(image_px=60),), max_steps=1, **config)
    return StageRows(given, processor, 8, isinstance(given, SftConfig), MODEL_FAMILIES[name].frame)


def fit(rows: StageRows, sample: GroundingSample, images: Sequence[Image.Image]) -> tuple[Row | None, str]:
    return rows._fit(sample, images, DataSource(image_px=60))


def check_round_trip(rows: StageRows, row: Row) -> None:
    """What is taught, through the tokens and back, is the truth to half a unit of what the family writes."""
    tokenizer = rows.processor.tokenizer
    text = tokenizer.decode(tokenizer.encode(row.response))
    sizes = seen_by(rows.processor, row.images)
    reading = read(text, Asked.of(row.sample, row.style, rows.frame), sizes)
    assert reading.fault is None, (reading.fault, text, sizes)
    targets = [(on or 0, box) for on, box in row.sample.targets]
    assert len(reading.boxes) == len(targets if row.sample.complete else targets[:1])
    for placed, (on, truth) in zip(reading.boxes, targets, strict=False):
        unit = sizes[on] if rows.frame == "pixel" else (1000, 1000)
        again, exact = unit_to_px(placed.box, unit), unit_to_px(truth, unit)
        assert placed.image_index == on
        assert max(abs(a - b) for a, b in zip(again, exact, strict=True)) <= 0.5 + 1e-6


SIZES = {
    "photograph": (640, 480),
    "upright": (480, 640),
    "large": (1600, 1200),
    "odd": (641, 479),
    "one pixel": (1, 1),
    "a factor": (28, 28),
    "of 32": (32, 32),
    "wide": (3300, 100),
    "as long as may be": (2000, 10),
    "as long as may be, upright": (15, 3000),
    "small": (33, 21),
}
BUDGETS = {
    "the paper's": PixelBudget(),
    "narrow": PixelBudget(3136, 20000),
    "wide": PixelBudget(65536, 1 << 20),
}
TRUTH: Box = (0.123456, 0.234567, 0.765432, 0.876543)


@pytest.mark.parametrize(
    "budget", [pytest.param(each, marks=pytest.mark.slow if each == "wide" else ()) for each in BUDGETS]
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_box_comes_back_to_half_a_unit(
    name: str, size: str, budget: str, processors: Mapping[str, GroundingProcessor]
) -> None:
    """With and without a limit that shrinks the pictures of a prompt, for one box and for a set."""
    processor = processors[name]
    processor.set_pixel_budget(BUDGETS[budget])
    images = [Image.new("RGB", SIZES[size]), Image.new("RGB", (90, 70))]
    one = GroundingSample(("a", "b"), "Where?", "referring", (TRUTH,), target_image=0, thought="There.")
    boxes = (TRUTH, (0.0, 0.0, 1.0, 0.5))
    every = GroundingSample(
        ("a", "b"), "All?", "find_all", boxes, thought="So.", complete=True, box_images=(0, 1)
    )
    whole = make_rows(processor, name)
    for sample in (one, every):
        row, _ = fit(whole, sample, images)
        assert row is not None and row.images == tuple(images)
        check_round_trip(whole, row)
        taken = count_tokens(processor, row)
        for room in (taken - 1, taken - 40):
            rows = make_rows(processor, name, max_tokens=room)
            row, why = fit(rows, sample, images)
            if row is None:  # the least pixels are too many, or the shape cannot be made smaller
                assert why.endswith(f"tokens, max_tokens={room}")
                continue
            check_round_trip(rows, row)
            assert count_tokens(processor, row) <= room


SIDE = st.integers(1, 3000)
EDGE = st.floats(0, 1)


@settings(max_examples=25)
@given(st.sampled_from(families.FAMILIES), SIDE, SIDE, EDGE, EDGE, EDGE, EDGE, st.sampled_from([0, 1, 8, 60]))
@example("qwen2_5_vl", 1500, 8, 0.0, 0.0, 1.0, 1.0, 1)
@example("qwen2_5_vl", 700, 700, 0.1, 0.1, 0.1005, 0.9, 0)
def test_any_box_on_any_picture_comes_back(
    processors: dict[str, GroundingProcessor],
    name: str,
    width: int,
    height: int,
    left: float,
    top: float,
    right: float,
    bottom: float,
    less: int,
) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    processor = processors[name]
    processor.set_pixel_budget(PixelBudget(3136, 200_000))
    box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    assume(not is_degenerate(box))
    sample = GroundingSample(("a",), "Where?", "referring", (box,), thought="There.")
    images = [Image.new("RGB", (width, height))]
    rows = make_rows(processor, name)
    row, why = fit(rows, sample, images)
    if less and row is not None:
        rows = make_rows(processor, name, max_tokens=count_tokens(processor, row) - less)
        row, why = fit(rows, sample, images)
    if row is None:
        assert "max_tokens=" in why or "no area in whole pixels" in why
    elif rows.frame == "pixel" or min(1000 * (box[2] - box[0]), 1000 * (box[3] - box[1])) > 1:
        check_round_trip(rows, row)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_photographs_stored_on_their_side_are_taught_as_they_are_seen(
    name: str, processors: Mapping[str, GroundingProcessor], tmp_path: Path
) -> None:
    """EXIF says that they lie: boxes are of the upright picture, and so is the size that pixels belong to."""
    samples = []
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        Image.new("RGB", (300 + 10 * number, 90)).save(tmp_path / f"{number}.jpg", exif=exif)
        names = (f"{number}.jpg",)
        samples.append(
            GroundingSample(names, "Where?", "referring", (TRUTH,), thought="There.", source=str(number))
        )
    write_jsonl(tmp_path / "samples.jsonl", samples)
    data = DataSource(reader="univg", path=str(tmp_path / "samples.jsonl"), images=str(tmp_path))
    processors[name].set_pixel_budget(PixelBudget(3136, 20000))
    rows = make_rows(processors[name], name, [data], max_tokens=150)
    drawn = [rows[i] for i in range(8)]
    assert {row.images[0].width > row.images[0].height for row in drawn} == {True, False}
    for row in drawn:
        check_round_trip(rows, row)
    assert check_lessons(rows).startswith("oracle: what is taught reads back on 8 samples")


@pytest.mark.parametrize("name", families.FAMILIES)
def test_rewards_read_what_stage_one_teaches(name: str, processors: Mapping[str, GroundingProcessor]) -> None:
    """The rows of RL hold the pictures as they were shrunk, and the reader measures those."""
    processor = processors[name]
    processor.set_pixel_budget(PixelBudget(3136, 200_000))
    sample = GroundingSample(("a",), "Where?", "referring", (TRUTH,), thought="There.")
    images = [Image.new("RGB", (1000, 700))]
    limits = {"max_tokens": 180, "max_completion_tokens": 40}
    row, why = fit(make_rows(processor, name, teach=False, **limits), sample, images)
    assert row is not None and why and row.images[0].size != (1000, 700)
    frame = MODEL_FAMILIES[name].frame
    reader = RolloutReader(
        "think", frame, lambda size_wh: processor.pixel_budget.resized(size_wh, processor.factor)
    )
    asked = {"sample": sample, "images": list(row.images), "style": row.style}
    assert list(reader.sizes_of(asked)) == (seen_by(processor, row.images) if frame == "pixel" else [])
    text, _, ceiling = write_ideal(asked, reader)
    reading = reader.read(asked, text)
    unit = seen_by(processor, row.images)[0] if frame == "pixel" else (1000, 1000)
    again, exact = unit_to_px(reading.boxes[0].box, unit), unit_to_px(TRUTH, unit)
    assert max(abs(a - b) for a, b in zip(again, exact, strict=True)) <= 0.5 + 1e-6 and ceiling > 0.95


def test_a_box_without_area_in_whole_pixels_is_left_out(processors: Mapping[str, GroundingProcessor]) -> None:
    """A hair's breadth is several thousandths of a picture that is seen small."""
    thin = GroundingSample(("a",), "Where?", "referring", ((0.098, 0.1, 0.102, 0.9),), thought="There.")
    images = [Image.new("RGB", (100, 100))]
    for name, kept in (("qwen2_vl", True), ("qwen2_5_vl", False), ("qwen3_vl", True)):
        processors[name].set_pixel_budget(PixelBudget(3136, 20000))
        row, why = fit(make_rows(processors[name], name), thin, images)
        assert (row is not None) == kept
        assert kept or why == "a box has no area in whole pixels of what the model sees (112x112)"


# --- the published chat templates ---


def published_text(name: str, messages: Sequence[Mapping[str, Any]], generation: bool) -> str:
    """What the family's published template makes of a chat, by Jinja alone."""
    template = json.loads((families.PUBLISHED / name / "chat_template.json").read_text())["chat_template"]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=generation)


@pytest.mark.parametrize("style", ["think", "direct", "simple", "set"])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_prompts_are_those_of_the_published_templates(
    name: str, style: PromptStyle, processors: Mapping[str, GroundingProcessor]
) -> None:
    chat = render_chat(2, "Where is the dog?", style)
    ours = processors[name].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert ours == published_text(name, chat, generation=True)
    assert ("You are a helpful assistant." in ours) == (name != "qwen3_vl")
    assert ours.count("<|vision_start|><|image_pad|><|vision_end|>") == 2


@pytest.mark.parametrize("style", ["think", "direct"])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_what_is_learnt_is_the_assistants_turn_and_no_more(
    name: str, style: PromptStyle, processors: Mapping[str, GroundingProcessor]
) -> None:
    """The row's tokens are those of the published template for question and answer, up to the end of the turn."""
    processor = processors[name]
    processor.set_pixel_budget(PixelBudget(3136, 20000))
    sample = GroundingSample(("a",), "Where?", "referring", (TRUTH,), thought="There <it> is.")
    rows = make_rows(processor, name, prompt_style=style)
    row, _ = fit(rows, sample, [Image.new("RGB", (120, 80))])
    assert row is not None and row.response is not None
    encoded = encode_row(processor, row.images, render_prompt_text(processor, row), row.response)
    answered: list[Any] = [*row.prompt, {"role": "assistant", "content": row.response}]
    whole = published_text(name, answered, generation=False)
    tokenizer = processor.tokenizer
    pads = encoded["grids"].prod().item() // 4
    expected = tokenizer.encode(whole.replace("<|image_pad|>", "<|image_pad|>" * pads))
    assert encoded["ids"] == expected[: len(encoded["ids"])]
    assert tokenizer.decode(expected[len(encoded["ids"]) :]).strip() == ""
    learnt = [token for token in encoded["labels"] if token != IGNORED]
    assert tokenizer.decode(learnt) == row.response + "<|im_end|>"
    assert encoded["labels"][-len(learnt) :] == learnt
    side = processor.image_processor.patch_size
    grid = [(width * side, height * side) for _, height, width in encoded["grids"].tolist()]
    assert grid == seen_by(processor, row.images) and count_tokens(processor, row) == len(encoded["ids"])


# --- what is saved ---


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_processor_is_saved_as_its_family_publishes_it(name: str, tmp_path: Path) -> None:
    source = families.copy_published(tmp_path / "source", name)
    processor = _read_processor(source, MODEL_FAMILIES[name])
    processor.set_pixel_budget(PixelBudget(3136, 20000))
    processor.save_pretrained(out := tmp_path / "out")
    write_conventions(out, "think", processor.pixel_budget)

    def settings_of(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_text())
        return found

    ours, theirs = settings_of(out), settings_of(source)
    budgeted = {"size", "min_pixels", "max_pixels"}
    assert {key: ours[key] for key in set(theirs) - budgeted} == {
        key: value for key, value in theirs.items() if key not in budgeted
    }
    assert ours["size"] == {"shortest_edge": 3136, "longest_edge": 20000}
    assert (out / "video_preprocessor_config.json").exists() == (name == "qwen3_vl")
    template = json.loads((source / "chat_template.json").read_text())["chat_template"]
    assert (out / "chat_template.jinja").read_text() == template


@pytest.mark.parametrize("name", families.FAMILIES)
def test_no_answer_holds_what_only_prompts_may_hold(
    name: str, processors: Mapping[str, GroundingProcessor]
) -> None:
    """The rows of the published vocabulary that are no token are not written either."""
    tokenizer = processors[name].tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    banned = set(forbidden_ids(tokenizer, 151_936, frozenset({end})))
    prompts = ["<|im_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    assert banned.issuperset(tokenizer.convert_tokens_to_ids(prompts))
    assert banned.issuperset(range(len(tokenizer), 151_936)) and end not in banned
    answers = tokenizer.encode(
        "<think>There.</think><answer><|box_start|>(12,345),(67,89)<|box_end|></answer>"
    )
    assert banned.isdisjoint(answers)
    assert ("<think>" in tokenizer.get_vocab()) == (name == "qwen3_vl")  # one token there, letters elsewhere
