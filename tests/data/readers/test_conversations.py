"""Conversations as people bring them: ms-swift, LLaVA, Qwen, chat messages; their scales, and the images of boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from univg.data.exports import SUFFIXES, Export, export
from univg.data.formats.answers import _read_text, read_written
from univg.data.formats.scale import lesson_fault
from univg.data.readers import ImageRoot, RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.reading import Asked
from univg.grounding.reading import read as understand
from univg.grounding.samples import GroundingSample

SIZES = {"a.jpg": (640, 480), "b.jpg": (500, 1000), "screen.png": (1920, 1080), "wide.png": (4000, 3000)}
BOX = "<|box_start|>(100,200),(300,400)<|box_end|>"
UNIT = (0.1, 0.2, 0.3, 0.4)
Put = Callable[..., Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of known sizes."""
    root = tmp_path_factory.mktemp("images")
    for name, size in SIZES.items():
        Image.new("RGB", size, "white").save(root / name)
    return root


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write rows as JSON, or as JSON Lines if the name says so."""

    def write(rows: list[Any], name: str = "data.json") -> Path:
        text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def every(
    path: Path, images: Path | None = None, reader: str | None = None
) -> tuple[list[GroundingSample], list[RecordFault], list[str]]:
    faults: list[RecordFault] = []
    notes: list[str] = []
    return list(read(path, reader, images, faults.append, notes.append)), faults, notes


def talk(question: Any, answer: Any, images: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """A record of chat messages, a tag for each image unless the question is made of parts."""
    names = [] if images is None else images
    if isinstance(question, str):
        question = "<image>" * len(names) + question
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **({} if images is None else {"images": names}), **fields}


def llava(*turns: str, image: str = "a.jpg") -> dict[str, Any]:
    """A record of `image` and `conversations`, question and answer in turn."""
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
    said[0]["value"] = "<image>\n" + said[0]["value"]
    return {"id": "r", "image": image, "conversations": said}


def swift(answer: str, boxes: list[Any], refs: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """A record of ms-swift 3 on one image, or on those in `images`."""
    names = fields.pop("images", ["a.jpg"])
    objects = {"ref": refs or [], "bbox": boxes, **fields.pop("more", {})}
    return talk(fields.pop("question", "Find it."), answer, names, objects=objects)


def old_swift(**fields: Any) -> dict[str, Any]:
    """A record of ms-swift before version 3."""
    entry = {"caption": "guy in red", "bbox": [64, 48, 320, 240], "bbox_type": "real", "image": 0}
    row = {"query": "Find <ref-object>", "response": "<bbox>", "images": ["a.jpg"], "objects": [entry]}
    return {**row, **fields}


def close(boxes: Any) -> Any:
    return [pytest.approx(box, abs=1e-9) for box in boxes]


HALF = (0.1, 0.1, 0.5, 0.5)
TWO = ["a.jpg", "b.jpg"]
PARTS = [
    {"type": "image", "image": "file:///data/my%20set/a.jpg"},
    {"type": "image", "image": "file:///data/my%20set/b.jpg"},
    {"type": "text", "text": "Find the red box of the first image in the second."},
]

READ: list[Any] = [
    pytest.param(
        [swift("<bbox>", [[64, 48, 320, 240]], ["sheep"], question="Locate the <ref-object>.")],
        "ms_swift",
        [("Locate the sheep.", 0, [HALF])],
        id="ms-swift: boxes of `objects` in pixels",
    ),
    pytest.param(
        [swift("<bbox><bbox>", [[64, 48, 320, 240], [0, 0, 640, 480]], ["sheep"])],
        "ms_swift",
        [("Find it.", 0, [HALF, (0, 0, 1, 1)])],
        id="ms-swift: several boxes of one thing",
    ),
    pytest.param(
        [
            swift(
                "<ref-object><bbox> and <ref-object><bbox>", [[64, 48, 320, 240], [0, 0, 64, 48]], ["a", "b"]
            )
        ],
        "ms_swift",
        [("Find it. Locate a.", 0, [HALF]), ("Find it. Locate b.", 0, [(0, 0, 0.1, 0.1)])],
        id="ms-swift: several things boxed in one answer",
    ),
    pytest.param(
        [
            swift(
                '[{"bbox_2d": <bbox>, "label": "<ref-object>"}, {"bbox_2d": <bbox>, "label": "<ref-object>"}]',
                [[64, 48, 320, 240], [0, 0, 64, 48]],
                ["a", "b"],
            )
        ],
        "ms_swift",
        [("Find it. Locate a.", 0, [HALF]), ("Find it. Locate b.", 0, [(0, 0, 0.1, 0.1)])],
        id="ms-swift: names behind their boxes",
    ),
    pytest.param(
        [swift("<bbox>", [HALF], more={"bbox_type": "norm1", "image_id": [1]}, images=TWO)],
        "ms_swift",
        [("Find it.", 1, [HALF])],
        id="ms-swift: norm1, and image_id from 0",
    ),
    pytest.param(
        [
            swift(
                "<bbox><bbox>",
                [[64, 48, 320, 240], [50, 100, 250, 500]],
                more={"image_id": [0, 1]},
                images=TWO,
            )
        ],
        "ms_swift",
        [("Find it. Locate it in image 1.", 0, [HALF]), ("Find it. Locate it in image 2.", 1, [HALF])],
        id="ms-swift: boxes on several images",
    ),
    pytest.param(
        [swift("It is like <bbox>, too.", [[0, 0, 64, 48], [64, 48, 320, 240]], question="As <bbox>?")],
        "ms_swift",
        [("As <|box_start|>(0,0),(100,100)<|box_end|>?", 0, [HALF])],
        id="ms-swift: a box in the question",
    ),
    pytest.param(
        [old_swift()], "ms_swift", [("Find guy in red", 0, [HALF])], id="ms-swift 2: query and response"
    ),
    pytest.param(
        [old_swift(objects=json.dumps(old_swift()["objects"]), history=[["Hello", "Hello, too"]])],
        "ms_swift",
        [("Find guy in red", 0, [HALF])],
        id="ms-swift 2: objects as JSON text, and a history",
    ),
    pytest.param(
        [old_swift(objects=[{"caption": "x", "bbox": [[64, 48, 320, 240], [0, 0, 640, 480]]}])],
        "ms_swift",
        [("Find x", 0, [HALF, (0, 0, 1, 1)])],
        id="ms-swift 2: several boxes under one caption",
    ),
    pytest.param(
        [
            llava(
                "Describe [0.32, 0.8, 0.59, 1.0].",
                "A shelf.",
                "Where is the floor?",
                "[0.21, 0.92, 0.36, 1.0]",
            )
        ],
        "llava",
        [("Where is the floor?", 0, [(0.21, 0.92, 0.36, 1.0)])],
        id="LLaVA: 0-1 in brackets",
    ),
    pytest.param(
        [llava("Find the cat.", BOX)],
        "qwen",
        [("Find the cat.", 0, [UNIT])],
        id="Qwen: image and conversations",
    ),
    pytest.param(
        [llava("Where?", '{"bbox_2d": [700, 200, 900, 400], "label": "cat"}')] * 2,
        "qwen",
        [("Where?", 0, [(0.7, 0.2, 0.9, 0.4)])] * 2,
        id="Qwen: bbox_2d in 0-1000, as boxes pass their images in pixels",
    ),
    pytest.param(
        [llava("Where?", '```json\n[{"bbox_2d": [192, 108, 1440, 540]}]\n```', image="screen.png")],
        "qwen",
        [("Where?", 0, [(0.1, 0.1, 0.75, 0.5)])],
        id="Qwen: bbox_2d in pixels, as boxes pass 1000",
    ),
    pytest.param(
        [talk(PARTS, [{"type": "text", "text": BOX}])],
        "qwen",
        [("Find the red box of the first image in the second.", 1, [UNIT])],
        id="chat messages: images in parts",
    ),
    pytest.param(
        [
            talk(
                [{"type": "image_url", "image_url": {"url": "a.jpg"}}, {"type": "text", "text": "Find it."}],
                BOX,
                ["a.jpg"],
            )
        ],
        "cotsft_messages",
        [("Find it.", 0, [UNIT])],
        id="chat messages: image_url beside a list of images",
    ),
    pytest.param(
        [
            talk(
                "Which cats?",
                '[{"image_idx": 1, "bbox": [0.1, 0.2, 0.3, 0.4]}, {"image_idx": 0, "bbox": [0.1, 0.1, 0.5, 0.5]}]',
                TWO,
            )
        ],
        "cotsft_messages",
        [("Which cats? Locate it in image 2.", 1, [UNIT]), ("Which cats? Locate it in image 1.", 0, [HALF])],
        id="an image number beside each box",
    ),
    pytest.param(
        [talk("Which cats?", f"Image 2: {BOX}, (500,500),(600,600)\nImage 1: (1,1),(20,20)", TWO)],
        "cotsft_messages",
        [
            ("Which cats? Locate it in image 2.", 1, [UNIT, (0.5, 0.5, 0.6, 0.6)]),
            ("Which cats? Locate it in image 1.", 0, [(0.001, 0.001, 0.02, 0.02)]),
        ],
        id="an image named before its boxes",
    ),
    pytest.param(
        [talk("Which cats?", f"{BOX} in the second image and (1,1),(20,20) in the first image", TWO)],
        "cotsft_messages",
        [
            ("Which cats? Locate it in image 2.", 1, [UNIT]),
            ("Which cats? Locate it in image 1.", 0, [(0.001, 0.001, 0.02, 0.02)]),
        ],
        id="an image named behind its box",
    ),
    pytest.param(
        [talk("In the second image, find all cats.", f"{BOX}{BOX}", TWO)],
        "cotsft_messages",
        [("In the second image, find all cats.", 1, [UNIT, UNIT])],
        id="several boxes in the image that the question names",
    ),
    pytest.param(
        [{"question": "<image>Where?", "answer": [192, 108, 1440, 540], "images": ["screen.png"]}],
        "rl",
        [("Where?", 0, [(0.1, 0.1, 0.75, 0.5)])],
        id="stage 2 in pixels",
    ),
]


@pytest.mark.parametrize(("rows", "name", "wanted"), READ)
def test_what_is_read(rows: list[Any], name: str, wanted: Any, put: Put, images: Path) -> None:
    path = put(rows)
    assert detect(path) == name
    samples, faults, _ = every(path, images)
    assert faults == []
    assert [(s.query, s.target_image, list(s.boxes)) for s in samples] == [
        (query, target, close(boxes)) for query, target, boxes in wanted
    ]
    assert len({s.source for s in samples}) == len(samples) or len(rows) > 1


GOOD_SWIFT = swift("<bbox>", [[64, 48, 320, 240]])

REFUSED: list[Any] = [
    pytest.param(swift("<bbox>", [[1, 2, 3, 4]] * 2), "box_tags", id="ms-swift: more boxes than tags"),
    pytest.param(
        swift("<ref-object><bbox>", [[1, 2, 3, 4]]), "box_tags", id="ms-swift: a name without a ref"
    ),
    pytest.param(swift("click(<bbox>)", [[615, 226]]), "no_box", id="ms-swift: a point"),
    pytest.param(swift("<bbox>", [[1, 2, 3, 4, 5, 6, 7, 8]]), "bad_box", id="ms-swift: four points"),
    pytest.param(
        swift("<bbox>", [[330, 760, 850, 1590]]), "wrong_scale", id="ms-swift: a box of another image"
    ),
    pytest.param(
        swift("<bbox>", [[1, 2, 30, 40]], more={"image_id": [2]}, images=TWO),
        "which_image",
        id="image_id from 1",
    ),
    pytest.param(
        swift("<bbox>", [[1, 2, 30, 40]], images=TWO, question="Find it in the second image."),
        "which_image",
        id="ms-swift: no image_id, and the question names another image",
    ),
    pytest.param(
        swift("In the first image: <bbox>", [[1, 2, 30, 40]], more={"image_id": [1]}, images=TWO),
        "which_image",
        id="ms-swift: image_id and words that differ",
    ),
    pytest.param(
        swift("<bbox>", [[1, 2, 3, 4]], more={"bbox_type": "percent"}),
        "bad_field",
        id="ms-swift: an unknown bbox_type",
    ),
    pytest.param(
        swift("<bbox>", [[1, 2, 30, 40]], more={"width": [500], "height": [480]}),
        "size_mismatch",
        id="ms-swift: a stated size that is not the image's",
    ),
    pytest.param({**GOOD_SWIFT, "objects": "[{"}, "bad_field", id="ms-swift: objects that are no JSON"),
    pytest.param({**GOOD_SWIFT, "images": ["c.jpg"]}, "missing_image", id="an image that is not there"),
]


@pytest.mark.parametrize(("row", "kind"), REFUSED)
def test_what_is_refused_of_ms_swift(row: Any, kind: str, put: Put, images: Path) -> None:
    samples, faults, _ = every(put([GOOD_SWIFT, row]), images, "ms_swift")
    assert [fault.kind for fault in faults] == [kind]
    assert len(samples) == 1 and samples[0].boxes == (pytest.approx(HALF),)


GOOD = talk("Find it.", BOX, ["a.jpg"])
AMBIGUOUS: list[Any] = [
    pytest.param(
        talk("Which cats?", f"{BOX}{BOX}", TWO), "which_image", id="several boxes, and no image named"
    ),
    pytest.param(
        talk("Which?", f"Image 1: {BOX}, {BOX} in image 2", TWO),
        "which_image",
        id="words before and behind that name different images",
    ),
    pytest.param(
        talk(
            "Which?", '[{"image_id": 1, "bbox_2d": [0.1, 0.2, 0.3, 0.4]}]', ["a.jpg", "b.jpg", "screen.png"]
        ),
        "which_image",
        id="an image_id that may count from 0 or 1",
    ),
    pytest.param(
        talk("Which?", '[{"image": "c.jpg", "bbox_2d": [0.1, 0.2, 0.3, 0.4]}]', TWO),
        "which_image",
        id="a strange image",
    ),
    pytest.param(
        talk("Which?", '[{"image_idx": 0, "bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1, 2, 3, 4]}]', TWO),
        "which_image",
        id="an image number beside some of the boxes",
    ),
    pytest.param(
        talk("Which?", f"Image 2: {BOX}", ["a.jpg"]), "which_image", id="a box of an image that is not there"
    ),
    pytest.param(
        talk("Which?", "(1746,1012),(1767,1028)", ["a.jpg"]), "wrong_scale", id="a stray box in pixels"
    ),
    pytest.param(talk("Which?", "[0.1, 0.2, 0.3, 0.4]", ["a.jpg"]), "wrong_scale", id="a stray box in 0-1"),
    pytest.param(talk("Which?", "the cat", ["a.jpg"]), "no_box", id="an answer without a box"),
    pytest.param(talk("Which?", '{"bbox_2d": [1, 2, 3]}', ["a.jpg"]), "bad_box", id="three numbers"),
    pytest.param(talk(PARTS, BOX, ["b.jpg", "a.jpg"]), "other_name", id="parts and list in different orders"),
    pytest.param(talk([{"type": "video", "video": "v.mp4"}], BOX, ["a.jpg"]), "bad_field", id="a video"),
    pytest.param(
        talk([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}], BOX),
        "bad_field",
        id="a picture inside the file",
    ),
]


@pytest.mark.parametrize(("row", "kind"), AMBIGUOUS)
def test_what_is_refused_of_messages(row: Any, kind: str, put: Put, images: Path) -> None:
    samples, faults, _ = every(put([GOOD] * 11 + [row]), images, "cotsft")
    assert [fault.kind for fault in faults] == [kind]
    assert [sample.boxes for sample in samples] == [(UNIT,)] * 11


# --- the scale is the file's ---


def screens(*boxes: str, image: str = "screen.png") -> list[dict[str, Any]]:
    return [talk("Find the button.", box, [image]) for box in boxes]


def spread(width: int, height: int) -> list[str]:
    """24 boxes over a frame, up to its edges."""
    edges = [(width - 90 * (i % 6), height - 130 * (i // 6) - i) for i in range(24)]
    return [f"({x // 3},{y // 3}),({x},{y})" for x, y in edges]


PIXELS = ("(483,954),(519,987)", "(1746,1012),(1767,1028)", "(900,100),(1300,400)", "(100,600),(400,1000)")


@pytest.mark.parametrize(
    ("rows", "with_images", "wanted", "told"),
    [
        pytest.param(
            screens(*PIXELS),
            True,
            [(483 / 1920, 954 / 1080, 519 / 1920, 987 / 1080), *[None] * 3],
            "boxes are written in pixels",
            id="pixels where 0-1000 is expected",
        ),
        pytest.param(
            screens(*PIXELS),
            False,
            [],
            "boxes are written in pixels",
            id="pixels, and the images are not named",
        ),
        pytest.param(
            screens(*["(10,20),(300,400)"] * 11, "(1746,10),(1767,1028)"),
            False,
            [(0.01, 0.02, 0.3, 0.4)] * 11,
            "may be in pixels too",
            id="one box beyond 1000, and the images are not named",
        ),
        pytest.param(
            screens(*spread(630, 470), image="a.jpg"),
            True,
            [(210 / 640, 156 / 480, 630 / 640, 470 / 480), *[None] * 23],
            "in pixels",
            id="pixels of small images, none beyond 1000",
        ),
        pytest.param(
            screens(*spread(930, 970), image="a.jpg"),
            True,
            [(0.31, 0.323, 0.93, 0.97), *[None] * 23],
            "",
            id="0-1000 on small images",
        ),
        pytest.param(
            screens(*spread(1003, 970), image="wide.png"),
            True,
            [(0.334, 0.323, 1.003, 0.97), *[None] * 23],
            "",
            id="0-1000 on large images, a little over the edge",
        ),
        pytest.param(
            screens(*spread(1140, 870), image="wide.png"),
            True,
            [],
            "Qwen2.5-VL writes those of the resized image",
            id="pixels of a resized image",
        ),
        pytest.param(
            screens(*["[0.1, 0.2, 0.3, 0.4]"] * 2),
            True,
            [UNIT] * 2,
            "boxes are written 0-1",
            id="0-1 in the whole file",
        ),
        pytest.param(
            screens(*["(10,20),(30,40)"] * 10),
            True,
            [UNIT] * 10,
            "in percent",
            id="percent where 0-1000 is expected",
        ),
        pytest.param(
            screens('{"bbox_2d": [10, 20, 300, 400]}'),
            True,
            [],
            "pixels or 0-1000 alike",
            id="bbox_2d that may be pixels or 0-1000",
        ),
    ],
)
def test_the_file_tells_the_scale(
    rows: list[Any], with_images: bool, wanted: list[Any], told: str, put: Put, images: Path
) -> None:
    samples, faults, notes = every(put(rows), images if with_images else None, "cotsft")
    assert len(samples) == len(wanted) and len(samples) + len(faults) == len(rows)
    for sample, box in zip(samples, wanted, strict=True):
        assert box is None or sample.boxes == (pytest.approx(box),)
    assert any(told in note for note in notes) if told else notes == []
    assert {fault.kind for fault in faults} <= {"wrong_scale", "missing_image"}


def test_what_is_ambiguous_can_be_told_by_the_format(put: Put, images: Path) -> None:
    path = put(screens('{"bbox_2d": [192, 108, 384, 540]}'))
    (pixels,), _, _ = every(path, images, "qwen_pixels")
    (permille,), _, _ = every(path, None, "qwen_permille")
    assert pixels.boxes == (pytest.approx((0.1, 0.1, 0.2, 0.5)),)
    assert permille.boxes == (pytest.approx((0.192, 0.108, 0.384, 0.54)),)


def test_a_key_counts_images_alike_in_the_whole_file(put: Put, images: Path) -> None:
    def row(number: int, key: str) -> dict[str, Any]:
        return talk("Which?", json.dumps([{key: number, "bbox_2d": [0.1, 0.2, 0.3, 0.4]}]), TWO)

    for key, numbers, targets in [
        ("image", (1, 2), [0, 1]),
        ("image", (1, 0), [1, 0]),
        ("image", (1,), [0]),
        ("image_idx", (1,), [1]),
        ("image_idx", (1, 2), [0, 1]),
        ("image_id", (1, 2), [0, 1]),
        ("image", ("b.jpg", "Image 1"), [1, 0]),
    ]:
        samples, faults, _ = every(put([row(number, key) for number in numbers]), images)
        assert ([s.target_image for s in samples], faults) == (targets, [])
    _, faults, _ = every(put([row(0, "image"), row(2, "image")]), images)
    assert [fault.kind for fault in faults] == ["which_image"] * 2


def test_text_answers_beside_boxes_are_counted(put: Put, images: Path) -> None:
    region = llava("Describe the region [0.3, 0.8, 0.5, 1.0].", "A white shelf.")
    both = llava("What is it?", "A room.", "Where is the floor?", "[0.2, 0.9, 0.3, 1.0]")
    samples, faults, notes = every(put([both, region]), images, "llava")
    assert (len(samples), faults) == (1, [])
    assert "2 question(s) are answered with text, not with a box: left out" in notes


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "user", "content": "Where?"}], "solution": "(100,100),(500,500)"},
        {"problem": "Where?", "answer": "(100,100),(500,500)"},
    ],
)
def test_rows_without_an_image_are_faults(row: Any, put: Put) -> None:
    samples, (fault,), _ = every(put([{**row, "images": ["a.jpg"]}, {**row, "images": []}]))
    assert len(samples) == 1 and fault.kind == "no_images"


def test_boxes_of_which_nothing_says_the_image_are_counted(put: Put, images: Path) -> None:
    chat = [
        {"role": "user", "content": "<image><image>Find <ref-object> in them."},
        {"role": "assistant", "content": "<bbox>"},
    ]
    objects = {"ref": ["the dog"], "bbox": [[20, 10, 110, 50]]}
    row = {"messages": chat, "images": ["a.jpg", "b.jpg"], "objects": objects}
    said = {**row, "objects": {**objects, "image_id": [1]}}
    samples, _, notes = every(put([row, said]), images=images)
    assert [sample.target_image for sample in samples] == [0, 1]
    assert [
        note for note in notes if note.startswith("1 box(es) do not say on which of several images they lie")
    ]


def test_system_prompts_are_counted(put: Put, images: Path) -> None:
    turn = {"role": "system", "content": "You are helpful."}
    answer = {"role": "assistant", "content": "<|box_start|>(100,100),(500,500)<|box_end|>"}
    chat = [turn, {"role": "user", "content": "<image>The dog?"}, answer]
    rows = [{"messages": chat, "images": ["a.jpg"]}, {"messages": chat[1:], "images": ["a.jpg"]}]
    samples, _, notes = every(put(rows), images=images)
    assert len(samples) == 2 and "1 question(s) follow a system prompt, which is left out" in notes


def test_a_question_sees_the_images_shown_by_then(put: Put, images: Path) -> None:
    row = talk("Find the cat.", BOX, ["a.jpg"])
    row["images"] = TWO
    row["messages"] += [
        {"role": "user", "content": "<image>And here?"},
        {"role": "assistant", "content": BOX},
    ]
    samples, _, _ = every(put([row]), images)
    assert [(s.images, s.target_image) for s in samples] == [(("a.jpg",), 0), (("a.jpg", "b.jpg"), 1)]


THREE = [*TWO, "screen.png"]
FIRST, OTHER = "<|box_start|>(1,1),(20,20)<|box_end|>", "<|box_start|>(2,2),(30,30)<|box_end|>"


@pytest.mark.parametrize(
    ("answer", "kind", "targets", "fault"),
    [
        (f"Image 1: {FIRST} {OTHER} Image 3: {BOX}", "x", [0, 2], None),
        (f"{FIRST} in the first image, {OTHER} in the third image", "x", [0, 2], None),
        (f"{FIRST}{OTHER}", "ot_train", [1, 2], None),
        (f"{FIRST}{OTHER}{BOX}{BOX}", "x", [], "which_image"),
        (f"Image 1: {FIRST} {OTHER} in image 2", "x", [], "which_image"),
    ],
)
def test_mgrounding_puts_each_box_on_its_image(
    answer: str, kind: str, targets: list[int], fault: str | None, put: Put
) -> None:
    turns = [{"from": "human", "value": "<image>" * 3 + "Where?"}, {"from": "gpt", "value": answer}]
    row = {"id": "t", "type": kind, "images": THREE, "conversations": turns}
    samples, faults, notes = every(put([row]))
    assert [s.target_image for s in samples] == targets
    assert [found.kind for found in faults] == ([fault] if fault else [])
    assert bool(notes) == bool(targets)
    if not fault:
        assert sum(len(s.boxes) for s in samples) == answer.count("box_start")


def in_easyr1_bytes(picture: Any) -> Any:
    return {"problem": "<image>Where?", "answer": "(100,200),(300,400)", "images": [picture]}


def in_chat_bytes(picture: Any) -> Any:
    return talk("Where?", BOX, ["x"]) | {"images": [picture]}


def in_vlm_r1_bytes(picture: Any) -> Any:
    return {"image": picture, "problem": "Where?", "solution": [64, 48, 320, 240]}


SMALL = [(k / 500, k / 400, k / 500 + 0.05, k / 400 + 0.05) for k in range(30)]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("to", ["sharegpt", "trl", "verl", "easyr1", "ms_swift"])
def test_small_boxes_that_we_wrote_are_of_no_other_scale(to: str, named: bool, tmp_path: Path) -> None:
    """Thirty boxes in a corner look like percent, or pixels of a small picture: our own column says what they are."""
    Image.new("RGB", (320, 240)).save(tmp_path / "s.jpg")
    samples = [
        GroundingSample(["s.jpg"], "Where?", "t", [box], 0, "It is there.", source=f"s#{box}")
        for box in SMALL
    ]
    out = tmp_path / f"out{SUFFIXES[to]}"
    export(samples, to, out, Export(images=ImageRoot(tmp_path)))
    back, faults, _ = every(out, tmp_path if named or to == "ms_swift" else None)
    assert [sample.boxes[0] for sample in back] == close([sample.boxes[0] for sample in samples])
    assert not faults


def test_plain_boxes_are_read_as_the_lexer_reads_them() -> None:
    for answer in ("(1,2),(30,40)", " (1, 2), (30, 40)\n", "<|box_start|>(1,2),(30,40)<|box_end|>"):
        assert read_written(answer) == list(_read_text(answer))


CORNERS = "<ref>the cat</ref><box>(100,200),(300,400)</box>"
TURNS = [
    {"from": "user", "value": "Picture 1: <img>a.jpg</img>\nFind it."},
    {"from": "assistant", "value": CORNERS},
]
TOLD = [{"role": "user", "content": "Find it."}], [{"role": "assistant", "content": BOX}]


@pytest.mark.parametrize(
    ("row", "reader"),
    [
        pytest.param({"conversations": TURNS}, "qwen", id="Qwen-VL: the picture's path in the turn"),
        pytest.param(
            {"query": "<img>a.jpg</img>Find it.", "response": BOX}, "ms_swift", id="ms-swift 2: the same"
        ),
        pytest.param(
            {"query": "<image>Find it.", "response": BOX, "images": ["a.jpg"]}, "ms_swift", id="no objects"
        ),
        pytest.param(
            {"instruction": "<image>Find it.", "input": "", "output": BOX, "images": ["a.jpg"]},
            "cotsft",
            id="Alpaca",
        ),
        pytest.param(
            {"prompt": TOLD[0], "completion": TOLD[1], "images": ["a.jpg"]},
            "cotsft_messages",
            id="TRL: prompt and completion",
        ),
        pytest.param(
            {
                "messages": json.dumps([{"role": "User", "content": "<image>Find it."}, *TOLD[1]]),
                "images": ["a.jpg"],
            },
            "cotsft_messages",
            id="messages as JSON text",
        ),
    ],
)
def test_turns_under_other_names(row: Any, reader: str, put: Put, images: Path) -> None:
    path = put([row])
    assert detect(path) == reader
    samples, faults, _ = every(path, images)
    assert [(s.images, s.target_image, s.boxes) for s in samples] == [(("a.jpg",), 0, (UNIT,))]
    assert not faults and samples[0].query in ("Find it.", "Picture 1: Find it.")


@pytest.mark.parametrize(("step", "told"), [(1, True), (30, False)])
def test_mig_bench_that_may_be_in_pixels_is_asked_about(
    step: int, told: bool, put: Put, images: Path
) -> None:
    """Which image's pixels nobody says, so they are not converted: 0-1000 would reach further than 640x480."""
    rows = [
        {
            "task": "diff",
            "images": ["a.jpg", "a.jpg"],
            "question": f"{k}?",
            "answer": [k, 100, 400 + k * step, 470],
        }
        for k in range(20)
    ]
    _, _, notes = every(put([row | {"need_format": True} for row in rows]), images, "mig_bench")
    assert any("pixels?" in note for note in notes) is told


def test_wrong_answers_are_not_taught(put: Put) -> None:
    samples, faults, _ = every(put([talk("Find it.", BOX, ["a.jpg"], label=k) for k in (True, False)]))
    assert len(samples) == 1 and "marked as a wrong one" in faults[0].cause


@pytest.mark.parametrize("name", ["turn", "function_call"])
def test_a_turn_of_somebody_else_is_named(name: str, put: Put) -> None:
    _, faults, _ = every(
        put(
            [
                {**llava("x", "y"), "images": ["a.jpg"]},
                {"images": ["a.jpg"], "conversations": [{"from": name, "value": "x"}]},
            ]
        ),
        None,
        "cotsft",
    )
    assert f"said by '{name}'" in faults[-1].cause


@pytest.mark.parametrize(
    ("thought", "target"),
    [
        ("The first image has no cat. The second does.", 1),
        ("The second image shows no cat, but the first does.", 0),
        ("Image 2 does not show it, image 3 lacks it, image 1 shows a cat.", 0),
        ("图1中没有猫，图2中有猫。", 1),
        ("The first image shows no trees but a cat at the left.", 0),
        ("In the first image, which is not blurred, the cat sits.", 0),
    ],
)
def test_an_image_without_the_thing_is_not_the_target(thought: str, target: int, put: Put) -> None:
    answer = f"<think>{thought}</think><answer>(100,200),(300,900)</answer>"
    (sample,), _, _ = every(put([talk("Find the cat.", answer, TWO)]))
    assert sample.target_image == target


def test_boxes_beside_those_in_json_are_no_less_said(put: Put, images: Path) -> None:
    """The words may repeat what the JSON says; another box there would vanish."""
    said = '{"bbox_2d": [100, 200, 300, 400]}'
    rows = [talk("Where?", f"It is at (100,200),(300,400): {said}", ["a.jpg"])]
    rows += [talk("Where?", f"One is at (1,2),(3,4), the other ```json {said}```", ["a.jpg"])]
    rows += [talk("Where?", f"[[1, 2, 3, 4], {said}]", ["a.jpg"])]
    samples, faults, _ = every(put(rows), images, "qwen_permille")
    assert [sample.boxes for sample in samples] == [(UNIT,)]
    assert [(fault.kind, "(1, 2, 3, 4)" in fault.cause) for fault in faults] == [
        ("several_answers", True)
    ] * 2


@pytest.mark.parametrize("key", ["box_2d", "boxes_2d", "box2d"])
def test_what_puts_y_first_for_models_does_so_in_data(key: str) -> None:
    (one,) = read_written(json.dumps({key: [[10, 20, 30, 40]]}))
    model = understand(json.dumps({key: [[10, 20, 30, 40]]}), Asked(1, "Where?", "direct")).box
    assert one.box == (20, 10, 40, 30) and close(model) == [0.02, 0.01, 0.04, 0.03]


def test_a_turn_that_is_none_is_told(put: Put) -> None:
    row = {"images": ["a.jpg"], "conversation": [{"human": "Where?", "assistant": BOX}, "and there"]}
    samples, (fault,), _ = every(put([row]), None, "qwen")
    assert not samples and "'conversation' is an object, not text" in fault.cause


def test_an_address_in_a_turn_that_is_two_files_is_neither(put: Put, tmp_path: Path) -> None:
    for name in ("c d.jpg", "c%20d.jpg"):
        Image.new("RGB", (640, 480)).save(tmp_path / name)
    parts = [{"type": "image", "image": f"file://{tmp_path}/c%20d.jpg"}, {"type": "text", "text": "Where?"}]
    samples, (fault,), _ = every(put([talk(parts, "(10,20),(300,400)")]), tmp_path, "qwen_pixels")
    assert not samples and "is two files" in fault.cause


@pytest.mark.parametrize(
    "row", [{"instruction": "it", "boxes": [[1, 2, 3, 4]]}, {"question": "it", "bbox": [1, 2, 3, 4]}]
)
def test_of_two_images_of_one_box_neither_is_taken(row: Any, put: Put, images: Path) -> None:
    samples, (fault,), _ = every(put([{"image_path": ["a.jpg", "b.jpg"], **row}]), images)
    assert not samples and "names 2 images" in fault.cause


def test_two_answers_are_one_too_many(put: Put) -> None:
    _, (fault,), _ = every(
        put([talk("Find it.", f"<answer>{BOX}</answer> <answer>(1,2),(30,40)</answer>", ["a.jpg"])])
    )
    assert fault.kind == "several_answers"


def test_objects_may_come_late_in_a_mixed_file(put: Put, images: Path) -> None:
    rows = [talk("Hello.", "Hello.", ["a.jpg"]), swift("<bbox>", [[64, 48, 320, 240]])]
    assert detect(put(rows)) == "ms_swift"
    assert [sample.boxes for sample in every(put(rows), images)[0]] == [(HALF,)]


def test_without_a_number_a_box_of_a_later_image_is_no_guess(put: Put, images: Path) -> None:
    row = swift("<bbox>", [[64, 48, 320, 240], [50, 100, 250, 500]], images=TWO)
    row["messages"] += [
        {"role": "user", "content": "<image>And here?"},
        {"role": "assistant", "content": "<bbox>"},
    ]
    row["messages"][0]["content"] = "<image>Find it."
    samples, faults, _ = every(put([row]), images)
    assert [sample.target_image for sample in samples] == [0]
    assert [fault.kind for fault in faults] == ["which_image"] and "image_id" in faults[0].fix


@pytest.mark.parametrize(
    ("question", "answer", "target"),
    [
        ("The cat in the first image", "[64, 48, 320, 240]", 0),
        ("The cat", "[50, 100, 250, 500]", 1),
        ("The cat", "Image 1: [64, 48, 320, 240]", 0),
        ("The cat", "Image 3: [64, 48, 320, 240]", None),
    ],
)
def test_vlm_r1_boxes_lie_where_answer_or_question_say(
    question: str, answer: str, target: int | None, put: Put, images: Path
) -> None:
    turns = [{"from": "human", "value": "<image><image>" + question}, {"from": "gpt", "value": answer}]
    samples, faults, _ = every(
        put([{"id": 1, "image": TWO, "conversations": turns}], "a.jsonl"), images, "vlm_r1_lines"
    )
    if target is None:
        assert not samples and [fault.kind for fault in faults] == ["which_image"]
    else:
        assert [(sample.target_image, sample.boxes) for sample in samples] == [
            (target, (pytest.approx(HALF),))
        ]


@pytest.mark.parametrize(
    ("solution", "kind"),
    [
        ([64, 48, 320, 240], None),
        ('```json\n[{"bbox_2d": [64, 48, 320, 240], "label": "cat"}]\n```', None),
        ('{"box_2d": [48, 64, 240, 320]}', None),
        ({"x": 64, "y": 48, "w": 256, "h": 192}, None),
        ("<answer>[64, 48, 320, 240]</answer>", None),
        ("Image 2: (64,48),(320,240)", "which_image"),
    ],
)
def test_vlm_r1_solutions_as_models_answer(solution: Any, kind: str | None, put: Put, images: Path) -> None:
    samples, faults, _ = every(put([{"image": "a.jpg", "problem": "Find it.", "solution": solution}]), images)
    assert [fault.kind for fault in faults] == ([kind] if kind else [])
    assert [sample.boxes for sample in samples] == ([] if kind else [(pytest.approx(HALF),)])


@pytest.mark.parametrize("cell", ['["a.jpg"]', "['a.jpg']", "a.jpg"])
def test_lists_in_the_cells_of_a_table(cell: str, tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["images", "question", "answer"], [cell, "Where?", "[100, 200, 300, 400]"]]
        )
    assert [(s.images, s.boxes) for s in every(tmp_path / "a.csv")[0]] == [(("a.jpg",), (UNIT,))]


@pytest.mark.parametrize("make", [in_easyr1_bytes, in_chat_bytes, in_vlm_r1_bytes])
def test_pictures_in_rows_are_written_to_files(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    Image.new("RGB", (640, 480), "red").save(tmp_path / "here.png")
    picture = {"bytes": (tmp_path / "here.png").read_bytes(), "path": None}
    pq.write_table(pa.Table.from_pylist([make(picture)]), tmp_path / "rows.parquet")
    (tmp_path / "images").mkdir()
    samples, faults, notes = every(tmp_path / "rows.parquet", tmp_path / "images")
    assert not faults and (tmp_path / "images" / samples[0].images[0]).read_bytes() == picture["bytes"]
    assert any("were written to" in note for note in notes)
    _, faults, _ = every(tmp_path / "rows.parquet")
    assert [(fault.kind, fault.cause) for fault in faults] == [
        ("missing_image", "the image is embedded in the row")
    ]


def in_easyr1(answer: str, images: list[str] = TWO) -> Any:
    return {"problem": "<image>" * len(images) + "Where?", "answer": answer, "images": images}


def in_trl(answer: str, images: list[str] = TWO) -> Any:
    return {"prompt": [{"role": "user", "content": "Where?"}], "images": images, "solution": answer}


def in_verl(answer: str, images: list[str] = TWO) -> Any:
    prompt = [{"role": "user", "content": "<image>" * len(images) + "Where?"}]
    shown = [{"image": name} for name in images]
    return {"data_source": "x", "prompt": prompt, "images": shown, "reward_model": {"ground_truth": answer}}


def in_mgrounding(answer: str, images: list[str] = TWO) -> Any:
    turns = [{"from": "human", "value": "<image>" * len(images) + "Where?"}, {"from": "gpt", "value": answer}]
    return {"type": "x", "images": images, "conversations": turns}


IN_ROWS = [in_easyr1, in_trl, in_verl, in_mgrounding]


@pytest.mark.parametrize("make", IN_ROWS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("(1,2),(30,40) (5,6),(70,80) (5,6),(70,90) (5,6),(70,99)", "which_image"),
        ("(10,20),(1500,40)", "wrong_scale"),
        ("[0.1, 0.2, 0.3, 0.4]", "wrong_scale"),
        ("Image 3: (100,200),(300,400)", "which_image"),
        ("It is in the third image. (100,200),(300,400)", "which_image"),
        ("图3：(100,200),(300,400)", "which_image"),
    ],
)
def test_rows_of_other_frameworks_are_no_guess(make: Any, answer: str, kind: str, put: Put) -> None:
    good = [make("Image 2: (100,200),(300,900)")] * 11
    samples, faults, _ = every(put([*good, make(answer)]))
    assert [fault.kind for fault in faults] == [kind]
    assert [(sample.target_image, *sample.boxes) for sample in samples] == [(1, (0.1, 0.2, 0.3, 0.9))] * 11


@pytest.mark.parametrize("make", IN_ROWS)
def test_pixels_and_percent_in_rows_of_other_frameworks(make: Any, put: Put, images: Path) -> None:
    pixels = [make(f"({16 * i},{12 * i}),({16 * i + 160},{12 * i + 120})", ["a.jpg"]) for i in range(30)]
    samples, faults, notes = every(put(pixels), images)
    assert not faults and notes[0].startswith("boxes are written in pixels")
    assert samples[4].boxes == (pytest.approx((0.1, 0.1, 0.35, 0.35)),)
    samples, faults, notes = every(
        put([make(f"({i},10),({i + 60},40)", ["a.jpg"]) for i in range(30)]), images
    )
    assert not faults and notes[0].startswith("boxes are written in percent")
    assert samples[0].boxes == (pytest.approx((0, 0.1, 0.6, 0.4)),)


def test_detection_leaves_vlm_r1_alone(put: Put) -> None:
    assert detect(put([llava("Where?", "[10, 20, 30, 40]")])) == "vlm_r1_lines"
    with pytest.raises(UnivgError, match="no known format"):
        detect(put([{"texts": 1}]))


# --- there and back ---

UNITS = st.integers(0, 990)
BOXES = st.tuples(UNITS, UNITS, UNITS, UNITS).map(
    lambda e: (
        min(e[0], e[2]) / 1000,
        min(e[1], e[3]) / 1000,
        (max(e[0], e[2]) + 10) / 1000,
        (max(e[1], e[3]) + 10) / 1000,
    )
)
NAMES = st.text("abc dé猫", min_size=1, max_size=8).map(str.strip).filter(bool)


THINGS = st.dictionaries(
    NAMES, st.lists(st.tuples(BOXES, st.integers(0, 1)), min_size=1, max_size=3), min_size=1, max_size=3
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(things=THINGS, form=st.sampled_from(["real", "norm1", "old real", "old norm_1"]), behind=st.booleans())
def test_any_ms_swift_answer_is_read_back(
    things: dict[str, list[tuple[Any, int]]], form: str, behind: bool, put: Put, images: Path
) -> None:
    """What is written in either form comes back: every box, on its image, under its name."""
    flat = [(name, box, image) for name, boxes in things.items() for box, image in boxes]
    kind = form.rpartition(" ")[2]
    numbers = [
        [value * (SIZES[TWO[image]][i % 2] if kind == "real" else 1) for i, value in enumerate(box)]
        for _, box, image in flat
    ]
    pair = "<bbox>: <ref-object>" if behind else "<ref-object><bbox>"
    answer, refs = ", ".join([pair] * len(flat)), [name for name, _, _ in flat]
    row: dict[str, Any]
    if form.startswith("old"):
        entries = zip(refs, numbers, [image for _, _, image in flat], strict=True)
        objects = [
            {"caption": ref, "bbox": box, "bbox_type": kind, "image": image} for ref, box, image in entries
        ]
        row = {"query": "List them.", "response": answer, "images": TWO, "objects": objects}
    else:
        more = {"bbox_type": kind, "image_id": [image for _, _, image in flat]}
        row = swift(answer, numbers, refs, images=TWO, more=more)
    samples, faults, _ = every(put([row]), images, "ms_swift")
    assert faults == []
    found = [(s.extra["label"], s.target_image, box) for s in samples for box in s.boxes]
    assert len(found) == len(flat)
    for name, box, image in flat:
        found.remove(next(one for one in found if one == (name, image, pytest.approx(box))))


@pytest.mark.parametrize("to", ["sharegpt", "llamafactory", "trl", "ms_swift"])
def test_what_convert_writes_is_read_back(to: str, tmp_path: Path, images: Path) -> None:
    sample = GroundingSample(tuple(TWO), "Where?", "diff", (UNIT,), 0, "Left.", source="x#1", extra={"k": 1})
    path = tmp_path / "out.json"
    assert export([sample], to, path, Export(images=ImageRoot(images))) == 1
    assert every(path, images) == ([sample], [], [])


def test_ms_swift_without_our_column_keeps_its_boxes(tmp_path: Path, images: Path) -> None:
    sample = GroundingSample(tuple(TWO), "Where?", "diff", (UNIT, HALF), 1, "Left.")
    export([sample], "ms_swift", tmp_path / "out.jsonl", Export(images=ImageRoot(images)))
    row = json.loads((tmp_path / "out.jsonl").read_text())
    (tmp_path / "out.jsonl").write_text(json.dumps({k: v for k, v in row.items() if k != "univg"}))
    ((found,), faults, _) = every(tmp_path / "out.jsonl", images)
    assert faults == [] and list(found.boxes) == [
        pytest.approx(UNIT, abs=1e-5),
        pytest.approx(HALF, abs=1e-5),
    ]
    assert (found.query, found.target_image, found.thought) == ("Where?", 1, "Left.")


@pytest.mark.parametrize(
    "box",
    [
        (1.2, 1.2, 1.4, 1.5),
        (0.5, -0.4, 0.6, 0.0),
        (0.5, 0.5, 0.1, 0.1),
        (0.3, 0.3, 0.3, 0.6),
        (100, 200, 300, 400),
    ],
)
def test_a_box_that_is_written_as_nothing_is_no_lesson(box: Any, tmp_path: Path) -> None:
    assert lesson_fault(box) is not None
    faults: list[RecordFault] = []
    sample = GroundingSample(("a.jpg",), "Where?", "diff", (box,), 0, "Left.")
    assert export([sample], "sharegpt", tmp_path / "out.json", Export(on_fault=faults.append)) == 0
    assert len(faults) == 1
