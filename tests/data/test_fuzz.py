"""Damaged files of every format: samples, a named fault or a one-line error; never a traceback, never a box moved.

Each format has one valid file here. It is damaged in two ways: in its structure (a field dropped, emptied, of another
kind, written twice), where every box that is still read must lie where it lay, or something must be told; and byte by
byte, where only the manner of failing is looked at.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from univg.data.formats.scale import box_fault
from univg.data.readers import READERS, RecordFault, read
from univg.errors import UnivgError

DEFAULT, NIGHTLY = 40, 2000
SIZE = (200, 100)
FRAMES = [f"clip/frame_{i}.jpg" for i in range(6)]
RLE = {"size": [100, 200], "counts": [2010, *[40, 60] * 79, 40, 10050]}
QUAD = "<|box_start|>(100,100),(500,500)<|box_end|>"
THOUGHT = "<think>There.</think><answer>(100,100),(500,500)</answer>"


def turns(
    question: str, answer: str, keys: tuple[str, str, str, str] = ("from", "value", "human", "gpt")
) -> Any:
    who, what, asks, answers = keys
    return [{who: asks, what: question}, {who: answers, what: answer}]


CHAT = ("role", "content", "user", "assistant")
UNIVG = {"images": ["a.jpg", "b.jpg"], "query": "Where?", "task": "diff", "boxes": [[0.1, 0.1, 0.5, 0.5]]}
COCO = {
    "images": [
        {"id": k, "file_name": f"{name}.jpg", "width": 200, "height": 100} for k, name in enumerate("abc")
    ],
    "annotations": [
        {"id": k, "image_id": k % 3, "category_id": k % 2, "bbox": [10 + k, 20, 30 + k, 40], "iscrowd": 0}
        for k in range(5)
    ],
    "categories": [{"id": 0, "name": "cup"}, {"id": 1, "name": "dog"}],
}
JSON: dict[str, Any] = {
    "univg": [UNIVG, {**UNIVG, "images": ["c.jpg"], "boxes": [[0.2, 0.2, 0.6, 0.7]], "target_image": 0}],
    "mig_bench": [
        {
            "task": "diff",
            "images": ["a.jpg", "b.jpg"],
            "question": "Where?",
            "need_format": True,
            "answer": [0.1 * k, 0.1, 0.5, 0.5],
            "additional_info": "",
        }
        for k in range(3)
    ],
    "mgrounding": [
        {
            "id": k,
            "images": ["a.jpg", "b.jpg"],
            "type": "diff_train",
            "conversations": turns("<image><image>Where?", f"In the second image. {QUAD}"),
        }
        for k in range(2)
    ],
    "mgrounding_text": [
        {
            "id": k,
            "images": ["a.jpg", "b.jpg"],
            "type": "gg_reg",
            "conversations": turns(f"<image><image>What is at {QUAD}?", "A cup."),
        }
        for k in range(2)
    ],
    "cotsft": [{"images": ["a.jpg", "b.jpg"], "conversations": turns("<image><image>Where?", THOUGHT)}] * 2,
    "cotsft_messages": [{"images": ["a.jpg"], "messages": turns("<image>Where?", THOUGHT, CHAT)}] * 2,
    "rl": [
        {"images": ["a.jpg"], "question": "<image>Where?", "answer": [100, 100 + k, 500, 500]}
        for k in range(2)
    ],
    "vlm_r1": [
        {"image": f"{name}.jpg", "problem": "The dog.", "solution": [20, 10, 110, 50]} for name in "ab"
    ],
    "vlm_r1_lines": [
        {"id": k, "image": "a.jpg", "conversations": turns("<image>The dog.", "[20, 10, 110, 50]")}
        for k in range(2)
    ],
    "refcoco": [
        {"question_id": str(k), "image": "a.jpg", "answer": ["the dog", "dog"], "bbox": [20, 10, 90, 40]}
        for k in range(2)
    ],
    "lisa": [{"image_path": "a.jpg", "instruction": ["Where?"], "boxes": [[20, 10, 110, 50], [1, 2, 30, 40]]}]
    * 2,
    "llmseg": [{"image_path": "a.jpg", "question": "Where?", "bbox": [[[20, 10, 110, 50]]]}] * 2,
    "llmseg_raw": {
        "a.jpg": {"from_dataset": "x", "qa_pairs": [{"question": "Where?", "answer": "", "rle_seg": RLE}]}
    },
    "reasonvos": [
        {
            "image_list": FRAMES[:3],
            "question": "Where?",
            "bbox_list": ["[0,0,9,9]", "[0,0,9,9]", "[20, 10, 110, 50]"],
        }
    ]
    * 2,
    "revos": [
        {
            "video_id": "clip",
            "frames": [0, 2, 5],
            "question": "Where?",
            "bbox_list": [[], [], [20, 10, 110, 50]],
        }
    ]
    * 2,
    "coco": COCO,
    "trl": [
        {"prompt": turns("Where?", "")[:1], "images": ["a.jpg"], "solution": "(100,100),(500,500)"},
    ]
    * 2,
    "verl": [
        {
            "prompt": turns("<image>Where?", "", CHAT)[:1],
            "images": [{"image": "a.jpg"}],
            "reward_model": {"ground_truth": "(100,100),(500,500)"},
            "extra_info": {"index": "1"},
        }
    ]
    * 2,
    "easyr1": [{"problem": "<image>Where?", "answer": "(100,100),(500,500)", "images": ["a.jpg"]}] * 2,
}
BBOX_2D = '[{"bbox_2d": [40, 30, 150, 80], "label": "the dog"}]'
JSON |= {
    "answers": [
        {
            "images": ["a.jpg"],
            "query": "Where?",
            "task": "diff",
            "key": str(k),
            "boxes_unit": [[0.1, 0.1, 0.5, 0.5]],
            "text": "(100,100),(500,500)",
            "image_index": 0,
        }
        for k in range(2)
    ],
    "ms_swift": [
        {
            "messages": turns("<image>Find <ref-object>", "<bbox>", CHAT),
            "images": [f"{name}.jpg"],
            "objects": {"ref": ["the dog"], "bbox": [[20, 10, 110, 50]]},
        }
        for name in "ab"
    ],
    "llava": [
        {"id": k, "image": "a.jpg", "conversations": turns("<image>The dog?", "[0.1, 0.1, 0.5, 0.5]")}
        for k in range(2)
    ],
    "qwen_pixels": [
        {"image": f"{name}.jpg", "conversations": turns("<image>The dog?", BBOX_2D)} for name in "ab"
    ],
    "qwen": [{"image": f"{name}.jpg", "conversations": turns("<image>The dog?", QUAD)} for name in "ab"],
}
PLACE = {"x": 10.0, "y": 10.0, "width": 45.0, "height": 40.0, "rotation": 0, "rectanglelabels": ["cup"]}
REGION = {
    "id": "r",
    "type": "rectanglelabels",
    "to_name": "image",
    "original_width": 200,
    "original_height": 100,
}
JSON["label_studio"] = [
    {
        "id": k,
        "data": {"image": f"/data/upload/4/8f2a1b3{k}-{name}.jpg"},
        "annotations": [{"was_cancelled": False, "result": [{**REGION, "value": {**PLACE, "x": 10.0 + k}}]}],
    }
    for k, name in enumerate("abc")
]
JSON["qwen_permille"] = JSON["qwen_pixels"]
JSON["coco_detection"] = JSON["coco"]
PROPOSAL = {
    "x": 10,
    "y": 10,
    "width": 45,
    "height": 40,
    "original_width": 200,
    "original_height": 100,
}
JSON |= {
    "mc_bench": {
        "descriptions": [
            {
                "id": k,
                "images_id": [2 * k, 2 * k + 1],
                "text": f"Cup {k}",
                "positive_sample": True,
                "text_style": "Referring",
            }
            for k in range(2)
        ],
        "images": [
            {
                "id": k,
                "text_id": k // 2,
                "inter_img_id": k % 2,
                "file_name": f"{'ab'[k % 2]}.jpg",
                "width": 200,
                "height": 100,
            }
            for k in range(4)
        ],
        "annotations": [
            {"id": k, "image_id": k, "text_id": k // 2, "category_id": 1, "bbox": [20, 10, 90, 40]}
            for k in range(4)
        ],
    },
    "ref_l4": [
        {
            "id": k,
            "caption": "The dog.",
            "bbox": [20, 10, 90, 40],
            "file_name": "a.jpg",
            "width": 200,
            "height": 100,
            "ori_category_id": "o365_1",
        }
        for k in range(2)
    ],
    "refcoco_m": [
        {
            "image": "a.jpg",
            "image_id": k,
            "file_name": "a.jpg",
            "samples": [{"id": 1, "sentences": ["dog", "the dog"], "bbox": [20, 10, 90, 40]}],
        }
        for k in range(2)
    ],
    "groundingme": [
        {
            "id": k,
            "image": "a.jpg",
            "description": "The dog.",
            "bbox": [20, 10, 110, 50],
            "subtask_l1": "Spatial",
            "subtask_l2": "",
            "width": 200,
            "height": 100,
        }
        for k in range(2)
    ],
    "openref": [
        {
            "image": "a.jpg",
            "relation_type": "multi",
            "positive": "cups",
            "negative": "dogs",
            "bbox_num": 2,
            "proposal": [PROPOSAL, {**PROPOSAL, "x": 40}],
        }
    ]
    * 2,
}
JSON["trl"] = [{**row, "prompt": turns("Where?", "", CHAT)[:1]} for row in JSON["trl"]]

VOC = """<annotation><filename>{0}.jpg</filename><size><width>200</width><height>100</height></size>
<object><name>cup</name><difficult>0</difficult>
<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>110</xmax><ymax>50</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>120</xmax><ymax>70</ymax></bndbox></object>
</annotation>"""


@dataclass(frozen=True)
class Valid:
    """A valid file or folder: what to give to `read`, and the files that are damaged."""

    path: Path
    images: Path
    damaged: tuple[Path, ...]


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def make_reasonseg_raw(root: Path) -> tuple[Path, list[Path]]:
    shape = {"label": "target", "points": [[20, 10], [110, 10], [110, 50]]}
    row = {"text": ["Where is it?"], "is_sentence": True, "shapes": [shape]}
    files = [put(root / "images" / f"{name}.json", json.dumps(row)) for name in "ab"]
    return root / "images", files


def make_reasonvos_raw(root: Path) -> tuple[Path, list[Path]]:
    mask = Image.new("L", SIZE)
    mask.paste(255, (20, 10, 110, 50))
    for i in range(6):
        (root / "Annotations/x_clip_1").mkdir(parents=True, exist_ok=True)
        mask.save(root / f"Annotations/x_clip_1/frame_{i}.png")
    said = [{"obj_id": 1, "exp_id": 0, "exp_text": "Where?", "is_sent": True}]
    video = {"source": "x", "frames": [f"frame_{i}" for i in range(6)], "expressions": said}
    path = put(root / "meta_expressions.json", json.dumps({"videos": {"clip": video}}))
    return path, [path]


def make_revos_raw(root: Path) -> tuple[Path, list[Path]]:
    said = {"0": {"exp": "Where?", "obj_id": [1], "anno_id": [11]}}
    video = {"frames": [f"frame_{i}" for i in range(6)], "expressions": said}
    masks = put(root / "mask_dict.json", json.dumps({"11": [RLE] * 6}))
    path = put(root / "meta_expressions_valid_.json", json.dumps({"videos": {"clip": video}}))
    return path, [path, masks]


def make_grefcoco(root: Path) -> tuple[Path, list[Path]]:
    refs = [
        {
            "ref_id": k,
            "image_id": 1,
            "ann_id": [7, 8],
            "split": "val",
            "no_target": False,
            "sentences": [{"sent_id": k, "sent": "cups", "raw": "Cups."}],
        }
        for k in range(2)
    ]
    boxes = [{"id": k, "image_id": 1, "bbox": [20 + k, 10, 90, 40], "iscrowd": 0} for k in (7, 8)]
    image = {"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}
    instances = put(root / "instances.json", json.dumps({"images": [image], "annotations": boxes}))
    path = put(root / "grefs(unc).json", json.dumps(refs))
    return path, [path, instances]


def make_voc(root: Path) -> tuple[Path, list[Path]]:
    files = [put(root / "Annotations" / f"{name}.xml", VOC.format(name)) for name in "ab"]
    return root, files


def make_labelme(root: Path) -> tuple[Path, list[Path]]:
    shapes = [
        {"label": "cup", "points": [[110, 50], [20, 10]], "shape_type": "rectangle", "flags": {}},
        {
            "label": "dog",
            "points": [[30, 20], [120, 40], [60, 70]],
            "shape_type": "polygon",
            "group_id": None,
        },
    ]
    row = {"shapes": shapes, "imageData": None, "imageWidth": 200, "imageHeight": 100}
    files = [
        put(root / "json" / f"{name}.json", json.dumps({**row, "imagePath": f"..\\images\\{name}.jpg"}))
        for name in "ab"
    ]
    return root / "json", files


def make_cvat(root: Path) -> tuple[Path, list[Path]]:
    shapes = (
        '<box label="cup" occluded="0" xtl="20.00" ytl="10.00" xbr="110.00" ybr="50.00" z_order="0"></box>'
        '<polygon label="dog" points="30.00,20.00;120.00,40.00;60.00,70.00"></polygon>'
    )
    images = [
        f'<image id="{name}" name="{name}.jpg" width="200" height="100">{shapes}</image>' for name in "ab"
    ]
    path = put(
        root / "annotations.xml", f"<annotations><version>1.1</version>{''.join(images)}</annotations>"
    )
    return path, [path]


def make_yolo(root: Path) -> tuple[Path, list[Path]]:
    folder = root / "images"  # the folder of the set, and of its pictures
    files = [put(folder / "data.yaml", "train: images/train\nnames:\n  0: cup\n  1: dog\n")]
    for name in "ab":
        (folder / "images/train").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{name}.jpg", folder / f"images/train/{name}.jpg")
        lines = "0 0.325 0.3 0.45 0.4\n1 0.5 0.5 0.25 0.5\n1 0.25 0.625 0.125 0.25\n"
        files.append(put(folder / f"labels/train/{name}.txt", lines))
    return folder, files


def make_csv(root: Path) -> tuple[Path, list[Path]]:
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    rows += [f"{name}.jpg,200,100,cup,{20 + k},10,{110 + k},50" for k in range(3) for name in "ab"]
    path = put(root / "labels.csv", "\n".join(rows) + "\n")
    return path, [path]


def make_open_images(root: Path) -> tuple[Path, list[Path]]:
    flags = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    rows = [f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{flags}"]
    rows += [f"{name},xclick,/m/01,1,0.1,0.55{k},0.1,0.5,0,0,0,0,0" for k in range(3) for name in "ab"]
    path = put(root / "train-annotations-bbox.csv", "\n".join(rows) + "\n")
    put(root / "class-descriptions-boxable.csv", "/m/01,Cup\n/m/02,Dog\n")
    return path, [path]


FOLDERS: dict[str, Callable[[Path], tuple[Path, list[Path]]]] = {
    "reasonseg_raw": make_reasonseg_raw,
    "reasonvos_raw": make_reasonvos_raw,
    "revos_raw": make_revos_raw,
    "grefcoco": make_grefcoco,
    "voc": make_voc,
    "labelme": make_labelme,
    "cvat": make_cvat,
    "yolo": make_yolo,
    "csv": make_csv,
    "open_images": make_open_images,
}


def make_valid(name: str, root: Path) -> Valid:
    """Write the valid file of a format under `root`, with pictures in `root`/images."""
    images = root / "images"
    for picture in ("a.jpg", "b.jpg", "c.jpg", *FRAMES, *(f"JPEGImages/{frame}" for frame in FRAMES)):
        (images / picture).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(images / picture)
    if name in JSON:
        path = put(root / "data.json", json.dumps(JSON[name]))
        return Valid(path, images, (path,))
    path, damaged = FOLDERS[name](root)
    return Valid(path, images, tuple(damaged))


def test_there_is_a_valid_file_of_every_format() -> None:
    assert {*JSON, *FOLDERS} == set(READERS)


# --- what is read ---


@dataclass(frozen=True)
class Outcome:
    """What came of reading: where boxes lie, and what was told; or the one line of an error."""

    placed: frozenset[tuple[Any, ...]]
    told: tuple[str, ...]
    error: str = ""


def read_all(name: str, valid: Valid) -> Outcome:
    faults: list[RecordFault] = []
    notes: list[str] = []
    placed = set()
    error = ""
    try:
        for sample in read(valid.path, name, valid.images, faults.append, notes.append):
            words = sample.query.replace("every", "the")
            for box in sample.boxes or (None,):
                on = sample.images if sample.target_image is None else [sample.images[sample.target_image]]
                placed.add((frozenset(on), words, box and tuple(round(value, 6) for value in box)))
                if box and (found := box_fault(box)) is not None:  # as `univg data validate` reports
                    faults.append(RecordFault(sample.source, *found, usable=True))
    except UnivgError as caught:
        error = str(caught)
        assert error and "\n" not in error
    told = [str(fault) for fault in faults]
    assert not any("\n" in line for line in told)
    return Outcome(frozenset(placed), (*told, *notes), error)


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_valid(name: str, tmp_path: Path) -> None:
    outcome = read_all(name, make_valid(name, tmp_path))
    assert outcome.placed and not outcome.error
    assert not [
        line for line in outcome.told if ": " in line and line.split(": ")[1] in ("bad_field", "no_box")
    ]


# --- damage ---


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from walk(one, (*path, key))


def damage_json(text: str, dice: random.Random) -> str:
    value = json.loads(text)
    # A list of boxes with one more or one fewer is as good a list of boxes.
    place = dice.choice([path for path in walk(value) if path and path[-2:-1] != ("boxes",)])
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key = place[-1]
    kind = dice.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif kind == 2 and isinstance(holder[key], (int, float)):
        holder[key] = str(holder[key])
    else:
        strange = [None, "", [], {}, True, 1e9, float("nan"), {"x": [0]}]
        if not isinstance(
            holder[key], (str, list, dict)
        ):  # a text, a list of one, an object with one are alike
            strange += ["nothing", ["x"]]
        others = [
            one for one in strange if type(one) is not type(holder[key])
        ]  # the same kind says something else
        holder[key] = dice.choice(others)
    return json.dumps(value)


def damage_xml(text: str, dice: random.Random) -> str:
    root = ElementTree.fromstring(text)
    parent = dice.choice([one for one in root.iter() if len(one)])
    child = dice.choice(list(parent))
    kind = dice.randrange(4)
    if kind == 0:
        parent.remove(child)
    elif kind == 1:
        parent.append(copy.deepcopy(child))
    elif child.attrib and kind == 2:
        del child.attrib[dice.choice(sorted(child.attrib))]
    else:
        numeric = (child.text or "").strip().replace(".", "").isdigit()
        child.text = dice.choice(["", "nothing", "nan", "1e9", "-3"]) if numeric else ""
    return ElementTree.tostring(root, "unicode")


def damage_lines(text: str, dice: random.Random) -> str:
    lines = text.splitlines()
    place = dice.randrange(len(lines))
    kind = dice.randrange(5)
    separator = "," if "," in lines[place] else " "
    cells = lines[place].split(separator)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    elif kind == 2:
        lines[place] = separator.join(cells[:-1])
    elif kind == 3:
        at = dice.randrange(len(cells))
        numeric = cells[at].replace(".", "").isdigit()  # another text says something else
        cells[at] = dice.choice(["", "nothing", "nan", "1e9"]) if numeric else ""
        lines[place] = separator.join(cells)
    else:
        lines.insert(place, dice.choice(["", "#", "nothing", separator.join(["1"] * 12)]))
    return "\n".join(lines) + "\n"


DAMAGE = {".json": damage_json, ".jsonl": damage_lines, ".xml": damage_xml}


def damage_bytes(raw: bytes, dice: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) or 1)
        kind = dice.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([dice.randrange(256)])
        elif kind == 1:
            del data[at : at + dice.randint(1, 30)]
        elif kind == 2:
            data[at:at] = dice.choice(
                [b"\0", b'"', b"{", b"[" * 200, b"\xff", b"\xef\xbb\xbf", b",", b"<a>", b"1e999"]
            )
        else:
            del data[at:]
    return bytes(data)


def lies_as_before(placed: tuple[Any, ...], sound: Outcome) -> bool:
    """Tell whether a box lies where it lay: on one of the same images, for the same words."""
    on, words, box = placed
    return box is None or any(
        on <= where and words == said and box == lay for where, said, lay in sound.placed
    )


def fuzz(name: str, tmp_path: Path, rounds: int) -> None:
    valid = make_valid(name, tmp_path)
    sound = read_all(name, valid)
    # The seed is the test's own, so what fails at night fails again by day.
    dice = random.Random(f"{name} {os.environ.get('FUZZ_SEED', '0')}")
    for _ in range(rounds):
        victim = dice.choice(valid.damaged)
        raw = victim.read_bytes()
        structural = dice.random() < 0.7
        if structural:
            damaged = DAMAGE.get(victim.suffix, damage_lines)(raw.decode(), dice).encode()
        else:
            damaged = damage_bytes(raw, dice)
        victim.write_bytes(damaged)
        try:
            outcome = read_all(name if dice.random() < 0.8 else None, valid)  # type: ignore[arg-type]
            moved = [one for one in outcome.placed if not lies_as_before(one, sound)]
            if structural and moved:
                assert outcome.error or set(outcome.told) - set(sound.told), f"{moved} in silence"
        except Exception as error:
            kept = tmp_path.parent / f"{name}-damaged{victim.suffix}"
            shutil.copy(victim, kept)
            raise AssertionError(
                f"{name}: {type(error).__name__}: {error}; the damaged file is {kept}"
            ) from error
        victim.write_bytes(raw)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_at_length(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, NIGHTLY)
