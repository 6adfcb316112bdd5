"""Every reader on a small file in the published shape, and on records that cannot be used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.data.formats.scale import box_fault
from univg.data.readers import FAULTS, RecordFault, detect, read
from univg.data.readers.mig_bench import PAPER_COLUMNS
from univg.errors import UnivgError
from univg.grounding.prompts import ZERO_SHOT_IMAGE, ZERO_SHOT_VIDEO
from univg.grounding.samples import GroundingSample, write_jsonl

SHARED = Path(__file__).parents[4] / "shared" / "data"
MIG = SHARED / "mig_bench_original.json"
needs_mig = pytest.mark.skipif(not MIG.exists(), reason="the public MIG-Bench annotations are not here")

MIG_COUNTS = {
    "diff": 528,
    "view_diff": 94,
    "common_object": 816,
    "object_tracking": 550,
    "multi_view": 288,
    "region": 1203,
    "refer_grounding": 99,
    "group_grounding": 499,
    "reasoning": 101,
    "correspondence": 117,
}


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Any, str], Path]:
    """Write a value as JSON (a list of rows as JSON Lines if the name says so) and give the path."""

    def write(value: Any, name: str = "data.json") -> Path:
        path = tmp_path / name
        lines = name.endswith(".jsonl")
        path.write_text("\n".join(map(json.dumps, value)) if lines else json.dumps(value), encoding="utf-8")
        return path

    return write


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images of 200x100 pixels: a.jpg, b.jpg, and frames of a video."""
    root = tmp_path / "images"
    for name in ("a.jpg", "b.jpg", *(f"clip/frame_{i}.jpg" for i in range(12))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), "white").save(root / name)
    return root


def every(path: Path, **options: Any) -> tuple[list[GroundingSample], list[RecordFault], list[str]]:
    faults: list[RecordFault] = []
    notes: list[str] = []
    samples = list(read(path, on_fault=faults.append, on_note=notes.append, **options))
    return samples, faults, notes


# --- MIG-Bench ---


def mig(answer: Any = (0.1, 0.2, 0.3, 0.4), **fields: Any) -> dict[str, Any]:
    record = {
        "task": "diff",
        "images": ["./MIG-Bench/images/static_diff/1.png", "./MIG-Bench/images/static_diff/2.png"],
        "question": "Give me the coordinates of their difference. ",
        "answer": answer if isinstance(answer, str) or answer is None else list(answer),
        "additional_info": "",
        "need_format": True,
    }
    return {**record, **fields}


@needs_mig
def test_the_public_mig_bench_file() -> None:
    samples, faults, notes = every(MIG)
    assert faults == []
    assert notes == ["boxes are written 0-1 (no number of 4295 passes 1.05)"]
    assert Counter(sample.task for sample in samples) == MIG_COUNTS
    assert set(PAPER_COLUMNS) == set(MIG_COUNTS)
    assert len({name for sample in samples for name in sample.images}) == 5887
    bad = {sample.source: found[0] for sample in samples if (found := box_fault(sample.boxes[0]))}
    inverted = {f"mig_bench#common_object/{i}": "inverted_box" for i in (7, 105, 126, 163, 512)}
    outside = {f"mig_bench#common_object/{i}": "out_of_range" for i in (34, 703)}
    assert bad == inverted | outside


@needs_mig
def test_mig_bench_targets_agree_with_the_gold_sentences() -> None:
    """Group grounding alone states its image; where a question names one, it is the target too."""
    samples, _, _ = every(MIG)
    unknown = Counter(sample.task for sample in samples if sample.target_image is None)
    assert unknown == {"diff": 528}
    grouped = [sample for sample in samples if sample.task == "group_grounding"]
    names = ("first", "second", "third", "fourth", "fifth", "sixth")
    for sample in grouped:
        assert names[sample.target_image or 0] in sample.extra["additional_info"]


@pytest.mark.parametrize(("factor", "scale"), [(1, "0-1 "), (1000, "0-1000 ")])
def test_mig_bench_in_both_scales(factor: int, scale: str, put: Callable[..., Path]) -> None:
    path = put([mig([v * factor for v in (0.1, 0.2, 0.3, 0.4)]), mig([v * factor for v in (0, 0, 0.5, 1)])])
    samples, faults, notes = every(path)
    assert [sample.boxes for sample in samples] == [((0.1, 0.2, 0.3, 0.4),), ((0.0, 0.0, 0.5, 1.0),)]
    assert faults == [] and scale in notes[0]


def test_a_box_in_the_other_scale_is_found(put: Callable[..., Path]) -> None:
    samples, _, notes = every(put([mig((100, 200, 300, 400)), mig((0.1, 0.2, 0.3, 0.4))]))
    assert "1 hold no number above 1.05" in notes[0]
    assert [found and found[0] for found in map(box_fault, (s.boxes[0] for s in samples))] == [
        None,
        "wrong_scale",
    ]


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (mig(None), "missing_field"),
        (mig(()), "no_box"),
        (mig((1, 2, 3)), "bad_box"),
        (mig("1e999, 0, 1, 1"), "bad_box"),
        (mig(question="  "), "empty_question"),
        (mig(question=7), "bad_field"),
        (mig(images=[]), "no_images"),
        (mig(images=[1]), "bad_field"),
        ({k: v for k, v in mig().items() if k != "images"}, "missing_field"),
        ({k: v for k, v in mig().items() if k != "task"}, "missing_field"),
        (["no object"], "bad_field"),
        (None, "bad_field"),
    ],
)
def test_unusable_records_are_reported_with_id_cause_and_fix(
    record: Any, kind: str, put: Callable[..., Path]
) -> None:
    path = put([mig(), record, mig()])
    samples, faults, _ = every(path, reader="mig_bench")
    assert len(samples) == 2 and samples[0].source == "mig_bench#diff/0"
    (fault,) = faults
    assert fault.kind == kind and not fault.usable
    assert fault.record in ("mig_bench#diff/1", "mig_bench#1")
    assert fault.cause and fault.fix and "\n" not in str(fault)
    with pytest.raises(UnivgError, match=kind):
        list(read(path, "mig_bench"))


# --- MGrounding-630k ---

GROUP = {
    "id": "5229016_8929009",
    "images": [f"./MGrounding-630k/Group_Grounding/SA-1B/sa_{i}.jpg" for i in range(4)],
    "conversations": [
        {
            "from": "human",
            "value": "<image>\n" * 4 + "Give the box of <|object_ref_start|>a statue<|object_ref_end|>.",
        },
        {"from": "gpt", "value": "It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>"},
        {"from": "human", "value": "Recognize <|object_ref_start|>a woman<|object_ref_end|>."},
        {"from": "gpt", "value": "It's in the first image. <|box_start|>(408,656),(578,997)<|box_end|>"},
    ],
    "type": "gg_train",
}
REGION_TEXT = {
    "id": "r1",
    "images": ["./MGrounding-630k/Group_Grounding/SA-1B/sa_1.jpg"],
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is at <|box_start|>(1,2),(30,40)<|box_end|>?"},
        {"from": "gpt", "value": "a red kite"},
    ],
    "type": "_gg_reg",
}


def talk(question: str, answer: str, n: int = 1, kind: str = "free_form_grounding") -> dict[str, Any]:
    return {
        "id": "t",
        "images": [f"./MGrounding-630k/{i}.jpg" for i in range(n)],
        "conversations": [
            {"from": "human", "value": "<image>\n" * n + question},
            {"from": "gpt", "value": answer},
        ],
        "type": kind,
    }


def test_mgrounding_turns_become_samples(put: Callable[..., Path]) -> None:
    samples, faults, notes = every(put([GROUP, REGION_TEXT]))
    assert faults == []
    assert [(s.source, s.task, s.target_image, s.boxes) for s in samples] == [
        ("mgrounding#5229016_8929009@turn 0", "group_grounding", 2, ((0.316, 0.058, 0.764, 0.999),)),
        ("mgrounding#5229016_8929009@turn 1", "group_grounding", 0, ((0.408, 0.656, 0.578, 0.997),)),
    ]
    assert samples[0].query == "Give the box of <|object_ref_start|>a statue<|object_ref_end|>."
    assert samples[0].images[0] == "MGrounding-630k/Group_Grounding/SA-1B/sa_0.jpg"
    assert len(notes) == 1 and notes[0].startswith("1 question(s) show a box and are answered with text")


def test_mgrounding_text_is_kept_apart(put: Callable[..., Path]) -> None:
    samples, faults, notes = every(put([GROUP, REGION_TEXT]), reader="mgrounding_text")
    assert faults == [] and notes[0].startswith("2 question(s)")
    assert [(s.boxes, s.extra["answer"], s.task) for s in samples] == [((), "a red kite", "group_captioning")]


def test_a_bad_turn_costs_no_other(put: Callable[..., Path]) -> None:
    turns = GROUP["conversations"]
    blank = {"from": "human", "value": " "}
    nowhere = {"from": "gpt", "value": "nowhere"}
    row = {**GROUP, "conversations": [*turns[:2], blank, turns[3], turns[2], nowhere, *turns[2:]]}
    samples, faults, _ = every(put([row]))
    assert [s.source[-6:] for s in samples] == ["turn 0", "turn 3"]
    assert [(fault.record[-6:], fault.kind) for fault in faults] == [
        ("turn 1", "empty_question"),
        ("turn 2", "no_box"),
    ]


@pytest.mark.parametrize(
    ("kind", "name", "task"),
    [
        ("common_train", "x.json", "common_object"),
        ("_gg_reg_x", "x.json", "group_captioning"),
        ("", "ot_train_130k.json", "object_tracking"),
        ("", "free_form_grounding_130k.json", "free_form"),
        ("some_new_kind", "ot_train_130k.json", "object_tracking"),
        ("some_new_kind", "x.json", "some_new_kind"),
    ],
)
def test_mgrounding_task_names(kind: str, name: str, task: str, put: Callable[..., Path]) -> None:
    samples, _, _ = every(put([talk("Where?", "(1,2),(30,40)", kind=kind)], name), reader="mgrounding")
    assert [sample.task for sample in samples] == [task]


def test_boxes_in_several_frames_become_one_sample_each(put: Callable[..., Path]) -> None:
    answers = [
        "Image-2: <|box_start|>(1,1),(20,20)<|box_end|> Image-3: <|box_start|>(2,2),(30,30)<|box_end|>",
        "<|box_start|>(1,1),(20,20)<|box_end|><|box_start|>(2,2),(30,30)<|box_end|>",
    ]
    for answer in answers:
        samples, faults, _ = every(put([talk("Follow the dog.", answer, 3, "ot_train")]))
        assert faults == []
        assert [(s.target_image, s.boxes[0][2], s.query) for s in samples] == [
            (1, 0.02, "Follow the dog. Locate it in image 2."),
            (2, 0.03, "Follow the dog. Locate it in image 3."),
        ]
    both = "In the second image: <|box_start|>(1,1),(20,20)<|box_end|> <|box_start|>(2,2),(30,30)<|box_end|>"
    (sample,), _, _ = every(put([talk("Find the dogs.", both, 5)]))
    assert sample.target_image == 1 and len(sample.boxes) == 2


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (talk("Where?", "nowhere"), "no_box"),
        ({**talk("Where?", "(1,2),(3,4)", 2), "images": ["a.jpg"]}, "image_tags"),
        ({**talk("Where?", "(1,2),(3,4)"), "conversations": []}, "empty_question"),
        ({**talk("Where?", "(1,2),(3,4)"), "conversations": [{"from": "gpt", "value": "x"}]}, "bad_field"),
        (
            {**talk("Where?", "(1,2),(3,4)"), "conversations": [{"from": "alien", "value": "x"}] * 2},
            "bad_field",
        ),
        (talk("", "(1,2),(3,4)"), "empty_question"),
    ],
)
def test_mgrounding_faults(record: Any, kind: str, put: Callable[..., Path]) -> None:
    samples, faults, _ = every(put([GROUP, record]))
    assert len(samples) == 2
    assert [(fault.kind, fault.record) for fault in faults] == [(kind, "mgrounding#t")]


# --- UniVG-R1 ---


def test_cotsft_in_both_spellings(put: Callable[..., Path]) -> None:
    from univg.grounding.prompts import SIMPLE_PREFIX, THINK_SUFFIX

    answer = "<think>At the left.</think><answer>(100,200),(300,400)</answer>"
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "<image><image>Where in the second image?" + THINK_SUFFIX},
            {"from": "gpt", "value": answer},
        ],
        "images": ["a.jpg", "b.jpg"],
    }
    simple = {
        "messages": [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": "<image>" + SIMPLE_PREFIX + "The dog."},
            {"role": "assistant", "content": "(100,200),(300,400)"},
        ],
        "images": ["a.jpg"],
    }
    assert detect(put([sharegpt])) == "cotsft"
    assert detect(put([simple])) == "cotsft_messages"
    samples, faults, _ = every(put([sharegpt, simple]), reader="cotsft")
    assert faults == []
    assert [(s.query, s.thought, s.thinking, s.target_image) for s in samples] == [
        ("Where in the second image?", "At the left.", True, 1),
        ("The dog.", None, False, 0),
    ]
    assert all(sample.boxes == ((0.1, 0.2, 0.3, 0.4),) for sample in samples)


def test_rl_is_read_as_the_reference_trainer_does(put: Callable[..., Path]) -> None:
    row = {"question": "<image><image>\nWhere is it? ", "answer": [100, 200, 300, 400], "images": ["a", "b"]}
    (sample,), faults, notes = every(put([row]))
    assert (sample.query, sample.boxes, sample.source) == ("Where is it?", ((0.1, 0.2, 0.3, 0.4),), "rl#0")
    assert faults == [] and "0-1000" in notes[0]


# --- sets in pixels ---

PIXELS = (20, 10, 100, 50)
UNIT = (0.1, 0.1, 0.5, 0.5)
INSTRUCTION = "the thing that keeps rain off"

PIXEL_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("vlm_r1", {"image": "a.jpg", "problem": "<image>The dog.", "solution": list(PIXELS)}, "The dog."),
    (
        "refcoco",
        {"question_id": 7, "image": "a.jpg", "answer": ["The dog."], "bbox": [20, 10, 80, 40]},
        "The dog.",
    ),
    (
        "lisa",
        {"image_path": "./a.jpg", "instruction": [INSTRUCTION], "boxes": [list(PIXELS), [0, 0, 1, 1]]},
        ZERO_SHOT_IMAGE.format(instruction=INSTRUCTION),
    ),
    (
        "lisa",
        {"image_path": "a.jpg", "instruction": INSTRUCTION, "boxes": [list(PIXELS)]},
        ZERO_SHOT_IMAGE.format(instruction=INSTRUCTION),
    ),
    (
        "llmseg",
        {"image_path": "a.jpg", "question": INSTRUCTION, "bbox": [[list(PIXELS)], [[1, 2, 3, 4]]]},
        ZERO_SHOT_IMAGE.format(instruction=INSTRUCTION),
    ),
    (
        "reasonvos",
        {
            "image_list": ["clip/frame_0.jpg", "clip/frame_5.jpg", "clip/frame_10.jpg"],
            "question": INSTRUCTION,
            "bbox_list": ["[0,0,1,1]", "[0,0,1,1]", "[20, 10, 100, 50]"],
        },
        ZERO_SHOT_VIDEO.format(instruction=INSTRUCTION),
    ),
    (
        "revos",
        {
            "video_id": "clip",
            "frames": [0, 5, 10],
            "question": INSTRUCTION,
            "bbox_list": [[], [], list(PIXELS)],
        },
        ZERO_SHOT_VIDEO.format(instruction=INSTRUCTION),
    ),
]


@pytest.mark.parametrize(("name", "row", "query"), PIXEL_ROWS)
def test_pixels_become_unit_boxes(
    name: str, row: dict[str, Any], query: str, put: Callable[..., Path], images: Path
) -> None:
    path = put([row])
    assert detect(path) == name
    (sample,), faults, _ = every(path, images=images)
    assert (sample.query, sample.boxes, faults) == (query, (UNIT,), [])
    if name in ("reasonvos", "revos"):
        assert sample.target_image == 2 and sample.images[2].endswith("frame_10.jpg")


@pytest.mark.parametrize(("name", "row", "query"), PIXEL_ROWS)
def test_pixels_without_images_are_faults_not_guesses(
    name: str, row: dict[str, Any], query: str, put: Callable[..., Path], tmp_path: Path
) -> None:
    samples, faults, _ = every(put([row]))
    assert (samples, [fault.kind for fault in faults]) == ([], ["missing_image"])
    assert "--images" in faults[0].fix
    (tmp_path / "empty").mkdir()
    samples, faults, _ = every(put([row]), images=tmp_path / "empty")
    assert (samples, [fault.kind for fault in faults]) == ([], ["missing_image"])


def test_revos_frames_are_sorted_by_number(put: Callable[..., Path], images: Path) -> None:
    (sample,), _, _ = every(put([PIXEL_ROWS[-1][1]]), images=images)
    assert sample.images == ("clip/frame_0.jpg", "clip/frame_5.jpg", "clip/frame_10.jpg")


def test_vlm_r1_lines_take_a_path_or_a_list(put: Callable[..., Path], images: Path) -> None:
    def row(image: Any, n: int) -> dict[str, Any]:
        turns = [
            {"from": "human", "value": "<image>" * n + "The dog."},
            {"from": "gpt", "value": "[20, 10, 100, 50]"},
        ]
        return {"id": n, "image": image, "conversations": turns}

    path = put([row("a.jpg", 1), row(["b.jpg", "a.jpg"], 2)], "x.jsonl")
    assert detect(path) == "vlm_r1_lines"
    samples, faults, _ = every(path, images=images)
    assert faults == []
    assert [(s.boxes[0], s.thinking, s.source) for s in samples] == [
        (UNIT, False, "refcoco#1"),
        (UNIT, True, "refcoco#2"),
    ]


def test_rows_out_of_parquet_and_datasets_folders(tmp_path: Path, images: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    raw = (images / "a.jpg").read_bytes()
    rows = [
        {"question_id": str(i), "image": {"bytes": raw, "path": None}, "file_name": f"../x/{i}.jpg"}
        | {"answer": ["The dog.", "The animal."], "bbox": [20.0, 10.0, 80.0, 40.0]}
        for i in range(3)
    ]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "val.parquet")
    folder = tmp_path / "set"
    folder.mkdir()
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as w,
    ):
        w.write_table(table)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )
    for path in (tmp_path / "val.parquet", folder):
        assert detect(path) == "refcoco"
        root = tmp_path / f"root-{path.name}"
        root.mkdir()
        samples, faults, notes = every(path, images=root)
        assert faults == [] and len(samples) == 6 and len(notes) == 1
        assert samples[0].boxes == (UNIT,) and samples[1].source == "refcoco#0@1"
        assert (root / samples[0].images[0]).read_bytes() == raw
    samples, faults, _ = every(folder)
    assert samples == [] and {fault.kind for fault in faults} == {"missing_image"}


def test_a_real_datasets_folder(tmp_path: Path, images: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets comes with the train extra")
    rows = {
        "question_id": ["1"],
        "image": ["a.jpg"],
        "answer": [["The dog."]],
        "bbox": [[20.0, 10.0, 80.0, 40.0]],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    (sample,), faults, _ = every(tmp_path / "set", images=images)
    assert (sample.boxes, faults) == ((UNIT,), [])


# --- raw sources ---


def test_reasonseg_raw_polygons(tmp_path: Path, images: Path) -> None:
    record = {
        "text": [INSTRUCTION, "umbrella \u2019 shade"],
        "is_sentence": True,
        "shapes": [
            {"label": "target", "points": [[20, 10], [100, 30], [60, 50]]},
            {"label": "ignore", "points": [[0, 0], [5, 5], [5, 0]]},
        ],
    }
    (images / "a.json").write_text(json.dumps(record, ensure_ascii=False), encoding="cp1252")
    (images / "b.json").write_text("{broken")
    (images / "clip" / "none.json").write_text(json.dumps({**record, "shapes": []}))
    assert detect(images) == "reasonseg_raw"
    samples, faults, _ = every(images, images=images)
    assert [sample.boxes for sample in samples] == [(UNIT,), (UNIT,)]
    assert samples[1].extra["instruction"] == "umbrella \u2019 shade"
    assert [sample.source for sample in samples] == ["reasonseg#a@0", "reasonseg#a@1"]
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("reasonseg#b", "not_json"),
        ("reasonseg#none", "no_box"),
    ]


def test_llmseg_raw_masks(put: Callable[..., Path]) -> None:
    def pair(rle: Any, question: Any = INSTRUCTION) -> dict[str, Any]:
        return {"question": question, "answer": "it", "rle_seg": rle}

    rle = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
    pairs = [pair(rle), pair([rle]), pair({"size": [4, 5], "counts": [20]}), pair("nonsense"), pair(rle, " ")]
    path = put({"x/1.jpg": {"from_dataset": "coco", "qa_pairs": pairs}, "2.jpg": {"qa_pairs": 3}})
    assert detect(path) == "llmseg_raw"
    samples, faults, _ = every(path)
    assert [sample.boxes for sample in samples] == [((0.2, 0.25, 0.6, 0.75),)] * 2
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("llmseg#x/1.jpg@2", "no_box"),
        ("llmseg#x/1.jpg@3", "bad_field"),
        ("llmseg#x/1.jpg@4", "empty_question"),
        ("llmseg#2.jpg", "bad_field"),
    ]


def test_reasonvos_raw_masks(tmp_path: Path) -> None:
    names = [f"{i:05d}" for i in range(12)]
    masks = tmp_path / "Annotations" / "MOSE_v1_3"
    masks.mkdir(parents=True)
    mask = Image.new("P", (200, 100))
    mask.paste(3, (20, 10, 100, 50))
    mask.save(masks / "00004.png")  # the third of six frames of twelve
    expression = {"obj_id": 3, "exp_id": 0, "exp_text": INSTRUCTION, "is_sent": 1}
    expressions = [expression, {**expression, "obj_id": 9}, {**expression, "exp_text": ""}]
    meta = {"videos": {"v1": {"source": "MOSE", "frames": names, "expressions": expressions}}}
    (tmp_path / "meta_expressions.json").write_text(json.dumps(meta))
    assert detect(tmp_path / "meta_expressions.json") == "reasonvos_raw"
    (sample,), faults, _ = every(tmp_path / "meta_expressions.json")
    assert (sample.boxes, sample.target_image, len(sample.images)) == ((UNIT,), 2, 6)
    assert sample.images[2] == "JPEGImages/v1/00004.jpg" and sample.source == "reasonvos#v1@0"
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("reasonvos#v1@1", "no_box"),
        ("reasonvos#v1@2", "empty_question"),
    ]


def test_revos_raw_masks(tmp_path: Path) -> None:
    frames = [f"{i:05d}" for i in range(3)]
    seen = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
    expressions = {
        "0": {"exp": INSTRUCTION, "obj_id": [1], "anno_id": [11]},
        "1": {"exp": INSTRUCTION, "obj_id": [1, 2], "anno_id": [11, 12]},
        "2": {"exp": INSTRUCTION, "obj_id": [2], "anno_id": [12]},
    }
    meta = {"videos": {"v1": {"frames": frames, "expressions": expressions}}}
    path = tmp_path / "meta_expressions_valid_.json"
    path.write_text(json.dumps(meta))
    assert detect(path) == "revos_raw"
    with pytest.raises(UnivgError, match=r"put ReVOS's mask_dict\.json there"):
        list(read(path))
    (tmp_path / "mask_dict.json").write_text(json.dumps({"11": [None, None, seen], "12": [seen, None, None]}))
    samples, faults, _ = every(path)
    assert [(s.source, s.boxes) for s in samples] == [
        ("revos#v1@0", ((0.2, 0.25, 0.6, 0.75),)),
        ("revos#v1@1", ((0.2, 0.25, 0.6, 0.75),)),
    ]
    assert [(fault.record, fault.kind) for fault in faults] == [("revos#v1@2", "not_visible")]


# --- files as such ---


def test_own_samples_are_read_and_bad_lines_told(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    write_jsonl(path, [GroundingSample(("a.jpg",), "Where?", "diff", boxes=[(0, 0, 1, 1)], source="x#1")])
    with path.open("a") as file:
        file.write('{"images": [], "query": "a", "task": "b"}\n{"images": ["a"], "qu')
    samples, faults, _ = every(path)
    assert [sample.source for sample in samples] == ["x#1"]
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("univg#line 2", "no_images"),
        ("univg#line 3", "not_json"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty file"),
        ("hello", "neither JSON nor JSON Lines"),
        ('[{"fruit": "apple"}]', "no known format"),
        ("[1, 2]", "no record with fields"),
        ('[{"fruit": ', "the file ends in the middle of a record"),
        ('{"fruit": "apple"}', "name one with --format"),
    ],
)
def test_files_of_no_format(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UnivgError, match=told) as caught:
        list(read(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_record_that_lacks_a_field_hides_no_format(put: Callable[..., Path]) -> None:
    own = {"images": ["a.jpg"], "query": "Where?", "boxes": [[0, 0, 0.5, 1]]}
    with pytest.raises(UnivgError, match=r"no known format \(univg also needs 'task'\)"):
        detect(put([own]))
    path = put([own, {**own, "task": "diff"}])
    samples, (fault,), _ = every(path)
    assert (
        len(samples) == 1 and (fault.record, fault.kind) == ("univg#0", "bad_field") and "task" in fault.cause
    )


def test_paths_that_are_not_there(tmp_path: Path, put: Callable[..., Path]) -> None:
    for path, options, told in [
        (tmp_path / "none.json", {}, "no such file"),
        (put([mig()]), {"images": tmp_path / "none"}, "no such folder"),
        (put([mig()]), {"reader": "nope"}, "no such format: nope: choose from univg, mig_bench"),
    ]:
        with pytest.raises(UnivgError, match=told):
            list(read(path, **options))


def test_a_cut_file_gives_what_came_before_the_cut(put: Callable[..., Path]) -> None:
    path = put([mig(), mig()])
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UnivgError, match="the file ends in the middle"):
        list(read(path))


def test_every_fault_has_a_meaning_and_a_fix() -> None:
    assert all(meaning and fix for meaning, fix in FAULTS.values())
