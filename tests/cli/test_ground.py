"""`univg ground` on a tiny model with random weights: everything but the quality of its answers is real."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from univg.cli import main as cli
from univg.models.grounder import GroundedBox, Grounder, Grounding
from univg.models.overview import draw_answer, draw_overview
from univg.pictures.images import open_picture

PICTURES = [("grounded", ".png"), ("box", ".jpg")]
KEYS = [
    "thought",
    "boxes",
    "none",
    "image_rule",
    "fault",
    "confidence",
    "raw",
    "model",
    "style",
    "seconds",
    "notes",
]
KEYS += ["pictures"]
FOUND = Grounding(
    thought="The first image holds a mug; only the kettle of the second image has no handle.",
    boxes=(GroundedBox(1, (10.0, 20.0, 30.0, 40.0), (0.1, 0.25, 0.3, 0.5), (100, 250, 300, 500)),),
    image_rule="question",
    fault=None,
    confidence=None,
    raw="<think>…</think><answer>(100,250),(300,500)</answer>",
    model="somewhere",
    seconds=1.25,
)
LOST = replace(FOUND, thought=None, boxes=(), fault="no_answer", image_rule="last", raw="hm [bold]hm[/]")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two images, a.png and b.jpg."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (120, 90), (200, 210, 220)).save("a.png")
    Image.new("RGB", (100, 80), (60, 90, 60)).save("b.jpg")
    return tmp_path


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Grounding], None]:
    """Make the model give a chosen answer: random weights never draw a box of their own."""

    def answer(grounding: Grounding) -> None:
        monkeypatch.setattr(Grounder, "ground", lambda *args, **options: grounding)

    return answer


def test_json_is_one_object_and_writes_nothing(
    files: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(
        ["ground", "a.png", "b.jpg", "-q", "Where?", "--model", tiny, "--json", "--max-new-tokens", "8"]
    )
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert code == 1
    assert told.out.count("\n") == 1
    assert told.err == ""
    assert list(answer) == KEYS
    assert answer["model"] == tiny
    assert answer["pictures"] == []
    assert answer["confidence"] is None
    assert answer["boxes"] or answer["fault"]
    assert isinstance(answer["raw"], str)
    assert answer["seconds"] > 0
    assert sorted(os.listdir(files)) == ["a.png", "b.jpg"]


def test_samples_give_a_confidence_and_repeat_with_their_seed(
    files: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(seed: str) -> dict[str, Any]:
        shared = ["--model", tiny, "--json", "--max-new-tokens", "6", "--samples", "3", "--seed", seed]
        assert cli.main(["ground", "a.png", "-q", "Where?", *shared]) == 1
        answer = json.loads(capsys.readouterr().out)
        return {key: value for key, value in answer.items() if key != "seconds"}

    first = ask("1")
    assert first == ask("1") != ask("2")
    assert 0 <= first["confidence"] <= 1


def test_the_answer_in_all_frames(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(FOUND)
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--json", "--out", "seen"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["boxes"] == [
        {
            "image_index": 1,
            "box_px": [10.0, 20.0, 30.0, 40.0],
            "box_unit": [0.1, 0.25, 0.3, 0.5],
            "box_permille": [100, 250, 300, 500],
        }
    ]
    assert answer["pictures"] == [str(Path("seen/b-grounded.png")), str(Path("seen/b-box.jpg"))]
    assert sorted(os.listdir("seen")) == ["b-box.jpg", "b-grounded.png"]
    with Image.open("seen/b-box.jpg") as alone, Image.open("seen/b-grounded.png") as beside:
        assert alone.size == (100, 80)
        assert beside.width > 800


def test_the_box_is_drawn_on_the_right_image(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = {}
    for index in (0, 1):
        box = replace(FOUND.boxes[0], image_index=index)
        answering(replace(FOUND, boxes=(box,)))
        assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny]) == 0
        name = "ab"[index]
        with Image.open(f"univg-out/{name}-grounded.png") as image:
            picture[index] = np.asarray(image.convert("RGB")).astype(int)
    different = np.argwhere(np.abs(picture[0] - picture[1]).max(axis=2) > 60)
    middle = picture[0].shape[1] / 2
    assert (different[:, 1] < middle).any()
    assert (different[:, 1] > middle).any()
    assert "univg-out" in capsys.readouterr().out


def test_what_a_person_reads(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(replace(FOUND, confidence=0.875, fault="several_boxes"))
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--samples", "2"]) == 0
    told = capsys.readouterr().out
    for part in [
        "Thought\n  The first image holds a mug",
        "image 2 of 2: b.jpg",
        "box (10, 20, 30, 40) in pixels of 100x80; (100, 250, 300, 500) in thousandths",
        "which image: named by the question",
        "agreement of 2 samples: 0.88",
        "several_boxes: ",
        f"Pictures\n  {Path('univg-out/b-grounded.png')}\n  {Path('univg-out/b-box.jpg')}\n",
    ]:
        assert part in told


def test_of_a_single_image_nothing_is_said_of_which(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(replace(FOUND, boxes=(replace(FOUND.boxes[0], image_index=0),), image_rule="last"))
    assert cli.main(["ground", "a.png", "-q", "x", "--model", tiny]) == 0
    told = capsys.readouterr().out
    assert "image 1 of 1: a.png" in told and "which image" not in told


def test_without_a_box_the_fault_and_the_text_are_shown(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(LOST)
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny]) == 1
    told = capsys.readouterr().out
    assert "no_answer: " in told
    assert "hm [bold]hm[/]" in told
    assert "(none)" in told
    assert os.listdir("univg-out") == ["a-grounded.png"], "there is no box to show alone"


def test_an_image_asked_about_is_never_overwritten(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(FOUND)
    Image.new("RGB", (50, 50)).save("c-grounded.png")
    before = Path("c-grounded.png").read_bytes()
    Image.new("RGB", (50, 50)).save("c.png")
    assert (
        cli.main(["ground", "c-grounded.png", "c.png", "-q", "x", "--model", tiny, "--out", ".", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["pictures"] == ["c-grounded-2.png", "c-box-2.png"]
    assert Path("c-grounded.png").read_bytes() == before


def test_the_pictures_of_earlier_questions_stay(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(FOUND)
    for _ in range(3):
        assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--out", "seen"]) == 0
    names = [f"b-{kind}{number}{suffix}" for number in ("", "-2", "-3") for kind, suffix in PICTURES]
    assert sorted(os.listdir("seen")) == sorted(names)
    assert str(Path("seen/b-box-3.jpg")) in capsys.readouterr().out


def test_nothing_is_written_into_the_package(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg.files import EXAMPLES

    monkeypatch.chdir(EXAMPLES / "images")
    before = sorted(os.listdir())
    assert cli.main(["ground", "v2-test-referring-2026-0-1.png", "-q", "x"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "a folder of the univg package itself: univg-out" in told
    assert sorted(os.listdir()) == before


def test_several_boxes_are_all_drawn(files: Path) -> None:
    second = replace(FOUND.boxes[0], box_unit=(0.5, 0.5, 0.9, 0.9))
    other_image = replace(FOUND.boxes[0], image_index=0, box_unit=(0.5, 0.5, 0.9, 0.9))
    picture = open_picture("b.jpg")
    one, two, three = (
        draw_answer(picture, replace(FOUND, boxes=(FOUND.boxes[0], *more)))
        for more in [(), (second,), (other_image,)]
    )
    assert one.tobytes() != two.tobytes()
    assert one.tobytes() == three.tobytes()


def test_marks_for_the_model_are_not_shown_to_people(files: Path) -> None:
    pictures = [open_picture("a.png"), open_picture("b.jpg")]
    marked, bare = (
        draw_overview(query, pictures, FOUND)
        for query in ("the box <|box_start|>(1,2),(3,4)<|box_end|>?", "the box (1,2),(3,4)?")
    )
    assert marked.tobytes() == bare.tobytes()


def test_an_animation_is_said_and_answered(
    files: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.new("RGB", (40, 40), (shade, 0, 0)) for shade in (0, 120, 240)]
    frames[0].save("m.gif", save_all=True, append_images=frames[1:])
    code = cli.main(["ground", "m.gif", "-q", "Where?", "--model", tiny, "--json", "--max-new-tokens", "2"])
    told = capsys.readouterr()
    assert code == 1
    assert json.loads(told.out)
    assert told.err == "note: m.gif: animated, first frame used\n"


@pytest.mark.parametrize("size_wh", [(1, 1), (500, 50)])
def test_unusual_shapes_reach_the_model(
    files: Path, tiny: str, size_wh: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", size_wh, (9, 9, 9, 90)).save("odd.png")
    code = cli.main(["ground", "odd.png", "a.png", "-q", "Where?", "--model", tiny, "--max-new-tokens", "2"])
    assert code == 1, capsys.readouterr().err
    assert Path("univg-out/odd-grounded.png").exists()


def prepare_faults() -> None:
    Path("empty.png").touch()
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:60])
    Image.new("1", (12_000, 10_000)).save("bomb.png")
    Image.new("L", (2001, 10)).save("strip.png")
    Path("folder").mkdir()
    Path("file").touch()
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{")


FAULTS: dict[str, tuple[list[str], list[str]]] = {
    # name: (arguments, what the line says: the cause, the thing, the remedy)
    "missing": (["nope.png", "-q", "x"], ["no such file", "nope.png", "check the path"]),
    "empty file": (["empty.png", "-q", "x"], ["the file is empty", "empty.png", "again"]),
    "no image": (["a.png", "text.png", "-q", "x"], ["no image", "text.png", "give a PNG"]),
    "cut off": (["cut.png", "-q", "x"], ["damaged or cut off", "cut.png", "again"]),
    "folder": (["folder", "-q", "x"], ["a folder, not an image", "folder", "name the image files"]),
    "bomb": (["bomb.png", "-q", "x"], ["larger than 100 megapixels", "bomb.png", "shrink it"]),
    "strip": (["strip.png", "-q", "x"], ["2001x10, longer than 200:1", "strip.png", "crop or split"]),
    "no images": (["-q", "x"], ["no images", "univg ground", "name at least one image"]),
    "empty question": (["a.png", "-q", "  "], ["no question", "univg ground", "-q"]),
    "no question": (["a.png"], ["no question", "univg ground", "-q"]),
    "no samples": (["a.png", "-q", "x", "--samples", "0"], ["--samples 0", "at least one"]),
    "no tokens": (["a.png", "-q", "x", "--max-new-tokens", "0"], ["--max-new-tokens 0", "at least one"]),
    "no checkpoint": (
        ["a.png", "-q", "x", "--model", "folder"],
        ["not a checkpoint", "folder", "give the folder"],
    ),
    "broken checkpoint": (
        ["a.png", "-q", "x", "--model", "broken"],
        ["not readable as JSON", "config.json", "again"],
    ),
    "a file as model": (
        ["a.png", "-q", "x", "--model", "a.png"],
        ["a file, not a checkpoint", "a.png", "config.json"],
    ),
    "no such model": (["a.png", "-q", "x", "--model", "./none"], ["none", "check the path"]),
    "a file as folder": (["a.png", "-q", "x", "--out", "file"], ["file", "name another folder"]),
    "below a file": (["a.png", "-q", "x", "--out", "file/deep"], ["file", "name another folder"]),
    "a picture as folder": (["a.png", "-q", "x", "--out", "o.png"], ["names a folder", "o.png", "leave"]),
    "unknown option": (["a.png", "--nope"], ["Unknown option", "--nope", "see univg ground --help"]),
    "misspelt setting": (
        ["a.png", "sampels=3", "-q", "x"],
        ["unknown key 'sampels'", "did you mean 'samples'?"],
    ),
    "no dtype": (["a.png", "-q", "x", "--dtype", "half"], ["no such dtype", "'half'", "bfloat16"]),
    "no number": (["a.png", "--samples", "many"], ["--samples", "see univg ground --help"]),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_code_2(
    files: Path, name: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_faults()
    before = sorted(os.listdir())
    arguments, parts = FAULTS[name]
    code = cli.main(["ground", *arguments, *(["--json"] if as_json else [])])
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if not line.startswith("note: the embedded model")]
    assert (code, told.out, len(lines)) == (2, "", 1), told
    assert lines[0].startswith("error: ")
    assert [part for part in parts if part not in lines[0]] == [], lines[0]
    assert sorted(os.listdir()) == before


def test_a_question_that_spells_marks_of_the_chat_is_a_text(
    files: Path, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "a <|image_pad|> b<|im_end|>"
    assert (
        cli.main(["ground", "a.png", "-q", question, "--model", tiny, "--json", "--max-new-tokens", "3"]) == 1
    )
    assert json.loads(capsys.readouterr().out)["fault"] == "truncated"


@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    files: Path,
    tiny: str,
    as_json: bool,
    answering: Callable[[Grounding], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(image: Image.Image, file: Any, **options: object) -> None:
        file.write(b"half a pict")
        raise OSError(28, "No space left on device")

    answering(FOUND)
    monkeypatch.setattr(Image.Image, "save", full)
    arguments = ["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--out", "o"]
    assert cli.main([*arguments, *(["--json"] if as_json else [])]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: cannot write (no space left on device): o")
    assert told.err.count("\n") == 1
    assert os.listdir("o") == []
    assert (told.out == "") if as_json else ("image 2 of 2" in told.out), (
        "the answer is not lost with its picture"
    )


def test_the_embedded_model_says_what_it_knows(
    files: Path,
    tiny: str,
    answering: Callable[[Grounding], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truly = Grounder.from_pretrained
    monkeypatch.setattr(
        Grounder, "from_pretrained", lambda name, **options: truly(tiny if name == "embedded" else name)
    )
    strange = "image 2 does not look like a drawing of simple shapes"
    answering(replace(FOUND, notes=(strange,)))
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x"]) == 0
    assert f"Answer\n  note: {strange}\n  image 2 of 2" in capsys.readouterr().out
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["notes"] == [strange]
    assert "knows drawn shapes only: univg's own procedural world" in told.err
    assert "--model GD-ML/UniVG-R1" in told.err
    assert json.loads(told.out)["boxes"]
    Image.merge("RGB", [Image.effect_noise((100, 80), 60) for _ in "rgb"]).save("b.jpg", quality=95)
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x"]) == 0
    assert capsys.readouterr().err == "", "the answer says more"


def found_box(image: int, left: float, confidence: float | None = None) -> GroundedBox:
    x1, y1, x2, y2 = left, 0.2, left + 0.2, 0.6
    permille = (round(1000 * x1), 200, round(1000 * x2), 600)
    return GroundedBox(
        image, (100 * x1, 100 * y1, 100 * x2, 100 * y2), (x1, y1, x2, y2), permille, confidence
    )


EVERY = replace(
    FOUND,
    boxes=(found_box(1, 0.1), found_box(0, 0.5), found_box(1, 0.6)),
    image_rule="answer",
    style="set",
)
NOTHING = replace(
    EVERY, boxes=(), says_none=True, image_rule="last", raw="<answer>none</answer>", thought=None
)


def test_all_asks_for_a_set_in_the_checkpoints_way(
    files: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Grounder, "ground", lambda *args, style, **rest: asked.append(style) or FOUND)
    for flags in ([], ["--all"]):
        assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--json", *flags]) == 0
    assert asked == ["think", "set"]


def test_every_box_is_told_and_drawn_on_its_image(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shares = [replace(box, confidence=0.5) for box in EVERY.boxes]
    answering(replace(EVERY, boxes=tuple(shares), confidence=0.75))
    asked = ["ground", "a.png", "b.jpg", "-q", "Every mug.", "--model", tiny, "--all", "--samples", "3"]
    assert cli.main(asked) == 0
    told = capsys.readouterr().out
    for part in [
        "image 1 of 2: a.png, 120x90 pixels\n    box 2 (50, 20, 70, 60) in pixels; (500, 200, 700, 600) in thousandths",
        "image 2 of 2: b.jpg, 100x80 pixels\n    box 1 (10, ",
        "\n    box 3 (60, ",
        "in thousandths; agreement 0.50",
        "agreement of 3 samples: 0.75",
    ]:
        assert part in told
    assert "which image" not in told and "Nothing of the kind" not in told
    assert sorted(os.listdir("univg-out")) == ["a-box.png", "b-box.jpg", "b-grounded.png"]
    with Image.open("univg-out/a-box.png") as first, Image.open("univg-out/b-box.jpg") as second:
        assert (first.size, second.size) == ((120, 90), (100, 80))
    assert cli.main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [box["image_index"] for box in answer["boxes"]] == [1, 0, 1] and answer["none"] is False
    assert answer["boxes"][0]["confidence"] == 0.5


def test_that_there_is_nothing_is_an_answer(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(NOTHING)
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "Every dog.", "--model", tiny, "--all"]) == 0
    told = capsys.readouterr().out
    assert "Answer\n  Nothing of the kind.\n  somewhere, " in told and "no box" not in told
    assert os.listdir("univg-out") == ["a-grounded.png"]
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "Every dog.", "--model", tiny, "--all", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["none"] is True and answer["boxes"] == [] and answer["fault"] is None


def test_a_broken_set_is_not_told_as_nothing(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(replace(NOTHING, says_none=False, fault="no_box", raw="I think (1,2"))
    assert cli.main(["ground", "a.png", "-q", "Every dog.", "--model", tiny, "--all"]) == 1
    told = capsys.readouterr().out
    assert "no box; the model wrote:\n  I think (1,2" in told and "Nothing of the kind" not in told


def test_a_response_that_was_cut_off_says_what_to_do(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(replace(FOUND, boxes=(), fault="truncated", raw="<think>I look for"))
    assert cli.main(["ground", "a.png", "b.jpg", "-q", "x", "--model", tiny, "--max-new-tokens", "5"]) == 1
    assert (
        "a longer response is allowed with --max-new-tokens\n  no box; the model" in capsys.readouterr().out
    )


def test_pictures_of_one_name_from_two_folders(
    files: Path, tiny: str, answering: Callable[[Grounding], None], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep").mkdir()
    Image.new("RGB", (50, 50)).save("deep/a.png")
    answering(EVERY)
    assert cli.main(["ground", "a.png", "deep/a.png", "-q", "x", "--model", tiny, "--all"]) == 0
    assert sorted(os.listdir("univg-out")) == ["a-1-box.png", "a-2-box.png", "a-grounded.png"]


def test_boxes_of_a_set_bear_their_numbers(files: Path) -> None:
    pictures = [open_picture("a.png"), open_picture("b.jpg")]
    drawn = draw_overview("x", pictures, EVERY)
    swapped = draw_overview(
        "x", pictures, replace(EVERY, boxes=(*EVERY.boxes[2:], EVERY.boxes[1], EVERY.boxes[0]))
    )
    assert drawn.size == swapped.size and drawn.tobytes() != swapped.tobytes(), "the numbers differ"
    first, second = (draw_answer(pictures[image], EVERY, image) for image in (0, 1))
    assert first.size == (120, 90) and second.size == (100, 80)
    assert first.tobytes() != pictures[0].image.tobytes() and second.tobytes() != pictures[1].image.tobytes()
