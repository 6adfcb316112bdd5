"""Published metrics of benchmarks of sets, on rows whose worth is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from univg.evaluate.average_precision import Found, Truth, find_precisions
from univg.evaluate.published_metrics import PUBLISHED, list_published
from univg.grounding.sets import match_sets

LEFT, RIGHT, TOP = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.2)
NEAR = (0.0, 0.0, 0.4, 0.6)  # IoU 0.6 with LEFT


def row(true: list[Any], given: list[Any], says_none: bool = False, **more: Any) -> dict[str, Any]:
    """Make a row of (image, box) pairs, with the columns that published metrics read."""
    silent = not given and not says_none
    return {
        "task": "x",
        "query": "cup",
        "complete": True,
        "truths_unit": [list(box) for _, box in true],
        "truth_images": [image for image, _ in true],
        "boxes_unit": [list(box) for _, box in given],
        "box_images": [image for image, _ in given],
        "image_index": 0,
        "iou": 0.0 if silent else match_sets(given, true).soft_f1,
        **more,
    }


def test_grefcoco() -> None:
    rows = [
        row([(0, LEFT), (0, RIGHT)], [(0, RIGHT), (0, NEAR)]),  # all of both
        row([(0, LEFT), (0, RIGHT)], [(0, RIGHT)]),  # one is missed
        row([(0, LEFT)], [(0, LEFT), (0, LEFT)]),  # one too many
        row([(0, LEFT)], [], says_none=True),  # a false refusal
        row([], [], says_none=True),
        row([], []),  # talks of something else
        row([], [(0, TOP)]),
    ]
    scores = PUBLISHED["grefcoco"](rows)
    assert scores["Pr@(F1=1, IoU>=0.5)"] == pytest.approx(2 / 7)
    assert scores["N-acc"] == pytest.approx(1 / 3)
    assert scores["T-acc"] == pytest.approx(3 / 4)
    (line,) = list_published("grefcoco", rows)
    assert line == "As published, in percent: Pr@(F1=1, IoU>=0.5) 28.57, N-acc 33.33, T-acc 75.00."
    assert list_published("world", rows) == [] == list_published("grefcoco", [])


def test_mc_bench() -> None:
    first = row([(0, LEFT), (1, RIGHT)], [(0, LEFT), (1, RIGHT)], protocol={"groups": [1, 1]})
    assert PUBLISHED["mc_bench"]([first]) == {"AP50": pytest.approx(1), "Acc": 1}
    # an answer names no groups: what is of group 2 is missed, and a box on it is a mistake of group 1
    grouped = row([(0, LEFT), (1, RIGHT)], [(0, LEFT), (1, RIGHT)], protocol={"groups": [1, 2]})
    assert PUBLISHED["mc_bench"]([grouped])["AP50"] == pytest.approx(0.5)
    other = row([(0, LEFT)], [(1, LEFT)], protocol={"groups": [1]})
    assert PUBLISHED["mc_bench"]([other]) == {"AP50": 0, "Acc": 0}
    empty = row([], [], says_none=True, protocol={"groups": []})
    assert PUBLISHED["mc_bench"]([first, empty, other])["Acc"] == pytest.approx(2 / 3)


def test_groundingme() -> None:
    rows = [
        row([(0, LEFT)], [(0, NEAR)], task="Spatial"),
        row([(0, LEFT)], [(0, RIGHT), (0, LEFT)], task="Spatial"),  # the first counts
        row([], [], says_none=True, task="Rejection"),
        row([], [], task="Rejection"),
    ]
    scores = PUBLISHED["groundingme"](rows)
    assert (scores["ACC@0.5"], scores["ACC@0.75"]) == (0.5, 0.25)
    assert (scores["Spatial ACC@0.5"], scores["Rejection ACC@0.5"]) == (0.5, 0.5)


def test_openref() -> None:
    rows = [
        row([(0, LEFT), (0, RIGHT)], [(0, LEFT)]),
        row([(0, LEFT)], [(0, LEFT), (0, TOP)]),
        row([], [], says_none=True),
        row([], [(0, LEFT)]),
    ]
    scores = PUBLISHED["openref"](rows)
    assert scores["Precision"] == pytest.approx(2 / 3) == scores["Recall"] == scores["F1"]
    assert scores["NSR"] == 0.5


def test_openref_without_targets() -> None:
    assert PUBLISHED["openref"]([row([], [], says_none=True)]) == {"NSR": 1}


def test_ref_l4() -> None:
    rows = [{"iou": 0.8, "protocol": {"side_px": 100}}, {"iou": 0.5, "protocol": {"side_px": 300}}]
    scores = PUBLISHED["ref_l4"](rows)
    assert (scores["Acc@0.5"], scores["Acc@0.75"], scores["Acc@0.9"]) == (0.5, 0.5, 0)  # above, not at
    assert scores["mAcc"] == pytest.approx(0.3)
    assert (scores["small Acc@0.5"], scores["large Acc@0.5"]) == (1, 0) and "medium Acc@0.5" not in scores


def test_coco_detection() -> None:
    cup = {"category": "cup", "crowds": []}
    dog = {"category": "dog", "crowds": [list(TOP)]}
    rows = [
        row([(0, LEFT), (0, RIGHT)], [(0, LEFT), (0, RIGHT)], protocol=cup),
        row([(0, LEFT)], [(0, LEFT), (0, (0.0, 0.0, 0.9, 0.2))], protocol=dog),  # the second is on a crowd
    ]
    assert PUBLISHED["coco_detection"](rows) == {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    spam = row([], [(0, TOP)], protocol=cup)  # nothing is there
    assert PUBLISHED["coco_detection"]([spam, *rows])["AP50"] < 1
    assert PUBLISHED["coco_detection"]([row([], [], says_none=True, protocol=cup)]) == {}


def test_boxes_of_another_image_do_not_count() -> None:
    truths = [Truth("a", 1, LEFT), Truth("b", 1, RIGHT)]
    found = [Found("a", 1, RIGHT, 0.9), Found("b", 1, RIGHT, 0.8)]
    assert find_precisions(found, truths)[1].at_50 == pytest.approx(0.5 * 51 / 101)
    assert find_precisions(found, []) == {}


def test_rows_hold_what_the_metrics_read(tmp_path: Path) -> None:
    """From a published file to its published numbers, by the rows that an evaluation writes."""
    pytest.importorskip("univg.evaluate.sets", reason="rows of sets")
    from univg.data.readers import read
    from univg.evaluate.rows import make_row
    from univg.models.answering import Answer

    boxes = [{"id": k, "image_id": 1, "bbox": [20 * k, 10, 20, 40]} for k in (1, 2)]
    image = {"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}
    (tmp_path / "instances.json").write_text(json.dumps({"images": [image], "annotations": boxes}))
    refs = [
        {
            "ref_id": k,
            "image_id": 1,
            "ann_id": ids,
            "split": "val",
            "sentences": [{"sent_id": k, "sent": "cups"}],
        }
        for k, ids in enumerate([[1, 2], [-1], [-1]])
    ]
    path = tmp_path / "grefs(unc).json"
    path.write_text(json.dumps(refs))
    texts = ["Image-1: (100,100),(200,500); Image-1: (200,100),(300,500)", "none", "(0,0),(9,9)"]
    rows = []
    for sample, text in zip(read(path), texts, strict=True):
        answer = Answer(sample.key, (text,), (False,), (9,), 9, 9, False, ((200, 100),), 0.1)
        rows.append(make_row(sample, answer, "direct", "permille"))
    assert PUBLISHED["grefcoco"](rows) == {
        "Pr@(F1=1, IoU>=0.5)": pytest.approx(2 / 3),
        "N-acc": 0.5,
        "T-acc": 1,
    }
