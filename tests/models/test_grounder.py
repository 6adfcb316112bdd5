from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from univg.errors import UnivgError
from univg.models.conventions import write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.generation import generate as generation
from univg.models.generation.generate import Chat, Generation
from univg.models.grounder import Grounder
from univg.models.loading import Loaded, load
from univg.models.tiny import PATCH_SIZE, PIXEL_BUDGET, build_tiny
from univg.pictures.images import ImageFault

Picture = Callable[[int, int], Image.Image]
Script = Callable[..., list[Chat]]


def answer(box: str, thought: str = "I look.") -> str:
    return f"<think>{thought}</think><answer>{box}</answer>"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """`script(text, …)` lets the model write these when asked next; it returns the chats it will be asked."""
    asked: list[Chat] = []

    def write(*texts: str, truncated: bool = False) -> list[Chat]:
        def generate(loaded: Loaded, chats: Iterable[Chat], **settings: Any) -> list[list[Generation]]:
            asked.extend(chats)
            assert settings["n"] == len(texts)
            return [[Generation(text, len(text), truncated) for text in texts]]

        monkeypatch.setattr(generation, "generate", generate)
        return asked

    return write


def test_a_box_in_every_frame_on_the_image_the_thought_names(
    tiny: Loaded, picture: Picture, script: Script
) -> None:
    text = answer("(100,200),(300,400)", "It must be in the first image.")
    script(text)
    grounding = Grounder(tiny).ground([picture(200, 50), picture(80, 80)], "Where is the odd one?")
    [box] = grounding.boxes
    assert box.image_index == 0
    assert box.box_px == pytest.approx((20, 10, 60, 20))
    assert box.box_unit == (0.1, 0.2, 0.3, 0.4)
    assert box.box_permille == (100, 200, 300, 400)
    assert (grounding.thought, grounding.image_rule) == ("It must be in the first image.", "thought")
    assert (grounding.fault, grounding.confidence) == (None, None)
    assert (grounding.raw, grounding.model) == (text, "tiny")
    assert grounding.seconds > 0
    again = json.loads(json.dumps(grounding.to_json()))
    assert again["boxes"][0]["box_permille"] == [100, 200, 300, 400]


def test_paths_are_opened_upright(tiny: Loaded, picture: Picture, script: Script, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture(60, 40).save(tmp_path / "side.jpg", exif=exif)
    asked = script(answer("(0,0),(500,1000)"))
    grounding = Grounder(tiny).ground(tmp_path / "side.jpg", "Where?")
    assert asked[0].images[0].size == (40, 60)
    assert grounding.boxes[0].box_px == pytest.approx((0, 0, 20, 60))


def test_notes_tell_what_opening_took(tiny: Loaded, picture: Picture, script: Script, tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    picture(40, 40).save(path, save_all=True, append_images=[picture(40, 40)])
    script("")
    grounding = Grounder(tiny).ground([str(path)], "Where?")
    assert len(grounding.notes) == 1
    assert grounding.notes[0].startswith(f"{path}: animated")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "1"])
def test_pil_images_of_any_mode(tiny: Loaded, script: Script, mode: str) -> None:
    asked = script("")
    image = Image.new("RGBA", (30, 40), (10, 20, 30, 0)).convert(mode)
    Grounder(tiny).ground(image, "Where?")
    assert asked[0].images[0].mode == "RGB"
    if mode in ("RGBA", "LA"):
        assert asked[0].images[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("text", "fault", "boxes"),
    [
        ("", "empty", 0),
        ("It is there.", "no_answer", 0),
        (answer("nowhere"), "no_box", 0),
        (answer("(5,5),(5,9)"), "degenerate_box", 0),
        (answer("(300,400),(100,200)"), "inverted_box", 1),
        (answer("(300,400),(1100,1200)"), "out_of_range", 1),
        (answer("(1,2),(30,40) (5,6),(70,80)"), "several_boxes", 2),
    ],
)
def test_faults_are_named(
    tiny: Loaded, picture: Picture, script: Script, text: str, fault: str, boxes: int
) -> None:
    script(text)
    grounding = Grounder(tiny).ground([picture(40, 40), picture(40, 40)], "Where?")
    assert (grounding.fault, len(grounding.boxes)) == (fault, boxes)
    assert grounding.image_rule == "last"
    assert grounding.raw == text


def test_a_response_cut_off_without_a_box_is_truncated(
    tiny: Loaded, picture: Picture, script: Script
) -> None:
    grounder = Grounder(tiny)
    script("It goes on and on", truncated=True)
    assert grounder.ground(picture(40, 40), "Where?").fault == "truncated"
    script(answer("(1,2),(30,40)"), truncated=True)
    assert grounder.ground(picture(40, 40), "Where?").fault is None


def test_the_medoid_of_several_samples(tiny: Loaded, picture: Picture, script: Script) -> None:
    images = [picture(100, 100), picture(100, 100)]
    left, wide = "(0,0),(400,1000)", "(0,0),(500,1000)"
    script(
        answer("(450,0),(1000,1000)", "Other."),
        answer(left, "Left."),
        answer(wide, "Wide."),
        answer(wide, "On the first image."),
        "nothing",
    )
    grounding = Grounder(tiny).ground(images, "Where?", samples=5)
    # On the last image "Wide." shares 0.8 with "Left." and 0.05 with "Other."; with the other two, nothing.
    assert grounding.thought == "Wide."
    assert grounding.boxes[0].image_index == 1
    assert grounding.confidence == pytest.approx((0.8 + 0.05) / 4)
    assert grounding.fault is None


def test_a_faulty_response_does_not_stand_for_sound_ones(
    tiny: Loaded, picture: Picture, script: Script
) -> None:
    """Even where others agree with it more; without a sound one, the faulty ones count."""
    cut = "<think>Cut off.</think><answer>(0,0),(100,100)"
    script(cut, cut, answer("(0,0),(100,60)", "Sound."), answer("(500,500),(900,900)", "Apart."))
    grounding = Grounder(tiny).ground(picture(40, 40), "Where?", samples=4)
    assert (grounding.thought, grounding.fault) == ("Sound.", None)
    assert grounding.confidence == pytest.approx((0.6 + 0.6) / 3)
    script(cut, cut, "nothing")
    grounding = Grounder(tiny).ground(picture(40, 40), "Where?", samples=3)
    assert (grounding.thought, grounding.fault) == ("Cut off.", "truncated")
    assert grounding.confidence == pytest.approx(0.5)


def test_pixels_are_told_to_hundredths(tiny: Loaded, picture: Picture, script: Script) -> None:
    script(answer("(333,1),(667,999)"))
    [box] = Grounder(tiny).ground(picture(97, 61), "Where?").boxes
    assert box.box_px == (32.3, 0.06, 64.7, 60.94)


@pytest.mark.parametrize(
    ("texts", "confidence"),
    [
        ([answer("(0,0),(9,9)")] * 3, 1.0),
        ([answer("(0,0),(9,9)"), "", ""], 0.0),
        ([answer("(0,0),(9,9)"), answer("(0,0),(9,9)"), ""], 0.5),
        ([answer("(0,0),(9,9)"), answer("(500,500),(900,900)")], 0.0),
        (["", "nothing"], 0.0),
    ],
)
def test_confidence_is_agreement(
    tiny: Loaded, picture: Picture, script: Script, texts: list[str], confidence: float
) -> None:
    script(*texts)
    grounding = Grounder(tiny).ground(picture(40, 40), "Where?", samples=len(texts))
    assert grounding.confidence == pytest.approx(confidence)
    assert grounding.raw == texts[0]
    assert bool(grounding.boxes) == any("answer" in text for text in texts)


def test_pixels_are_those_of_the_image_the_thought_names(
    tiny: Loaded, picture: Picture, script: Script
) -> None:
    grounder = Grounder(replace(tiny, family=MODEL_FAMILIES["qwen2_5_vl"]))
    images = [picture(400, 100), picture(100, 100)]
    seen = [grounder.loaded.resized(image.size) for image in images]
    assert seen[0] != seen[1] != (1000, 1000)
    for index, thought in ((0, "It is in the first image."), (1, "I look.")):
        width, height = seen[index]
        script(answer(f"({width // 4},{height // 4}),({width // 2},{height // 2})", thought))
        [box] = grounder.ground(images, "Where?").boxes
        assert box.image_index == index
        assert box.box_unit == pytest.approx((0.25, 0.25, 0.5, 0.5), abs=1 / min(width, height))
        wide, high = images[index].size
        x1, y1, x2, y2 = box.box_unit
        assert box.box_px == pytest.approx((x1 * wide, y1 * high, x2 * wide, y2 * high))


def test_the_resized_size_is_what_the_model_sees(tiny: Loaded, picture: Picture) -> None:
    patch = tiny.processor.image_processor.patch_size
    for size in ((400, 100), (100, 100), (7, 9), (33, 1000)):
        [[_, rows, columns]] = tiny.processor.image_processor([picture(*size)])["image_grid_thw"]
        assert tiny.resized(size) == (columns * patch, rows * patch)


def test_style_is_the_checkpoints_unless_asked_otherwise(
    tiny: Loaded, picture: Picture, script: Script
) -> None:
    asked = script("(1,2),(30,40)")
    grounder = Grounder(replace(tiny, prompt_style="direct"))
    assert grounder.ground(picture(40, 40), "Where?").fault is None
    assert grounder.ground(picture(40, 40), "Where?", style="think").fault == "no_answer"
    texts = [chat.messages[0]["content"][-1]["text"] for chat in asked]
    assert "<|box_start|>" in texts[0]
    assert "<think>" in texts[1]


def test_the_model_really_runs(tiny: Loaded, picture: Picture) -> None:
    grounder = Grounder(tiny)
    images = [picture(50, 90), picture(120, 40)]
    greedy = grounder.ground(images, "Where?", max_new_tokens=6)
    assert (greedy.fault, greedy.boxes, greedy.confidence) == ("truncated", (), None)
    drawn = grounder.ground(images, "Where?", samples=3, max_new_tokens=6, seed=1)
    assert drawn.confidence == 0.0
    assert replace(
        grounder.ground(images, "Where?", samples=3, max_new_tokens=6, seed=1), seconds=0
    ) == replace(drawn, seconds=0)


@pytest.mark.parametrize("query", ["", "  \n\t"])
def test_an_empty_question_is_refused(tiny: Loaded, picture: Picture, query: str) -> None:
    with pytest.raises(UnivgError, match="the question is empty"):
        Grounder(tiny).ground(picture(40, 40), query)


def test_no_images_and_no_samples_are_refused(tiny: Loaded, picture: Picture) -> None:
    with pytest.raises(UnivgError, match="no images"):
        Grounder(tiny).ground([], "Where?")
    with pytest.raises(UnivgError, match="samples=0"):
        Grounder(tiny).ground(picture(40, 40), "Where?", samples=0)


def test_images_the_model_cannot_take(tiny: Loaded, picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="longer than 200:1"):
        Grounder(tiny).ground([picture(40, 40), picture(402, 2)], "Where?")
    with pytest.raises(ImageFault, match="no such file"):
        Grounder(tiny).ground(tmp_path / "none.png", "Where?")


TEXT = {
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [2, 3, 3]},
}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": PATCH_SIZE,
}


def tiny_qwen2_5(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = VISION | {"window_size": 4 * PATCH_SIZE, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, **token_ids(tokenizer))
    )


def tiny_qwen3(tokenizer: Any) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = VISION | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(text_config=TEXT, vision_config=vision, **token_ids(tokenizer))
    )


def token_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


@pytest.mark.parametrize(
    ("build", "model_type", "frame"),
    [(tiny_qwen2_5, "qwen2_5_vl", "pixel"), (tiny_qwen3, "qwen3_vl", "permille")],
)
def test_other_families_load_and_run(
    build: Callable[[Any], Any], model_type: str, frame: str, picture: Picture, tmp_path: Path
) -> None:
    """From a folder to a grounding, with random weights; batches equal one by one here too."""
    _, processor = build_tiny(seed=0)
    torch.manual_seed(0)
    build(processor.tokenizer).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    write_conventions(tmp_path, "direct", PIXEL_BUDGET)
    loaded = load(tmp_path, device="cpu")
    assert (loaded.family.model_type, loaded.family.frame) == (model_type, frame)
    images = [picture(120, 60), picture(64, 64), picture(40, 200)]
    chats = [Chat.ask(images[:k], "Where? " * k, "direct") for k in (1, 3, 2)]
    together = generation.generate(loaded, chats, max_new_tokens=6)
    assert together == [generation.generate(loaded, [chat], max_new_tokens=6)[0] for chat in chats]
    grounding = Grounder(loaded).ground(images, "Where?", samples=2, max_new_tokens=6)
    assert (grounding.model, grounding.fault) == (str(tmp_path), "truncated")


def every(*boxes: str) -> str:
    return answer("; ".join(boxes) or "none")


def test_a_set_holds_all_boxes_on_their_images(tiny: Loaded, picture: Picture, script: Script) -> None:
    asked = script(every("Image-2: (0,0),(500,500)", "Image-1: (100,200),(300,400)"))
    grounder = Grounder(tiny)
    found = grounder.ground([picture(200, 50), picture(80, 80)], "Every cup.", style=grounder.set_style)
    assert (
        grounder.set_style == "set"
        and "every object that fits" in asked[0].messages[0]["content"][-1]["text"]
    )
    assert [(box.image_index, box.box_px) for box in found.boxes] == [
        (1, (0, 0, 40, 40)),
        (0, (20, 10, 60, 20)),
    ]
    assert (found.fault, found.says_none, found.is_set, found.image_rule) == (None, False, True, "answer")
    assert [box.confidence for box in found.boxes] == [None, None]


def test_nothing_of_the_kind(tiny: Loaded, picture: Picture, script: Script) -> None:
    script(every())
    found = Grounder(tiny).ground([picture(40, 40)], "Every dog.", style="set")
    assert found.says_none and found.fault is None and found.boxes == ()
    assert found.to_json()["says_none"] is True
    assert not Grounder(tiny).ground([picture(40, 40)], "Where?", style="think").is_set


def test_samples_of_a_set_agree_box_by_box(tiny: Loaded, picture: Picture, script: Script) -> None:
    one, other = "Image-1: (0,0),(500,500)", "Image-2: (0,0),(90,90)"
    script(every(one), every(one, other), every(other, one), every())
    found = Grounder(tiny).ground([picture(40, 40)] * 2, "Every cup.", samples=4, style="set")
    assert [box.confidence for box in found.boxes] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert found.confidence == pytest.approx((2 / 3 + 1) / 3)


def test_a_style_that_there_is_not_is_named(tiny: Loaded, picture: Picture) -> None:
    with pytest.raises(UnivgError, match=r"no prompt style 'sets': .*'set'"):
        Grounder(tiny).ground([picture(40, 40)], "Every cup.", style="sets")  # type: ignore[arg-type]


def test_what_an_answer_says_against_itself_is_a_note(tiny: Loaded, picture: Picture, script: Script) -> None:
    script(answer("(100,200),(300,400)", "The third image shows it."))
    found = Grounder(tiny).ground([picture(40, 40)] * 2, "Where is it?")
    assert found.notes == ("the thought speaks of image 3, and there are 2",)
