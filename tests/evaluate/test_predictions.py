"""Answers made elsewhere: scales, faults of the file, and the reference code's numbers beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from univg.data.formats.faults import RecordFault
from univg.errors import UnivgError
from univg.evaluate.hints import describe_style, explain_legacy, pair_boxes, suggest_scale
from univg.evaluate.predictions import find_scale, read_predictions, score_predictions, write_scores


def written(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


GOOD = "<think>The mug.</think><answer>(100,200),(300,400)</answer>"


def test_rows_keep_their_order_and_names(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.jsonl",
        {"id": 7, "task": "diff", "text": GOOD, "answer": [100, 200, 300, 400]},
        {"id": "b", "text": "no box", "answer": [0, 0, 10, 10], "other": 1},
        {"text": None, "answer": [0, 0, 10, 10]},
    )
    read = read_predictions(path)
    rows = list(score_predictions(read, find_scale(one.answer for one in read)))
    assert [(row.get("id"), row["iou"], row["fault"]) for row in rows] == [
        (7, pytest.approx(1.0), None),
        ("b", 0.0, "no_answer"),
        (None, 0.0, "empty"),
    ]
    assert rows[0]["boxes_unit"] == [[0.1, 0.2, 0.3, 0.4]] and rows[1]["boxes_unit"] == []
    assert rows[0]["task"] == "diff" and "task" not in rows[1] and read[1].task == "all"


def test_the_scale_is_the_files(tmp_path: Path) -> None:
    unit = written(
        tmp_path / "u.jsonl",
        {"text": GOOD, "answer": [0.1, 0.2, 0.3, 0.4]},
        {"text": "", "answer": [0, 0, 1, 1]},
    )
    read = read_predictions(unit)
    assert find_scale(one.answer for one in read) == "unit"
    assert next(score_predictions(read, "unit"))["iou"] == pytest.approx(1.0)
    one_large = [*(one.answer for one in read), (0.0, 0.0, 2.0, 1.0)]
    assert find_scale(one_large) == "permille"


def test_the_reference_reward_is_given_answers_of_its_scale(tmp_path: Path) -> None:
    """Its MIG-Bench scorer compares with the answer as it stands, and finds nothing in 0-1 files."""
    text = "<think>a</think><answer>(100,200),(300,400)</answer>"
    path = written(tmp_path / "p.jsonl", {"text": text, "answer": [0.1, 0.2, 0.3, 0.3]})
    [row] = score_predictions(read_predictions(path), "unit", legacy=True)
    assert row["legacy_reward_iou"] == pytest.approx(0.5) == row["iou"]
    assert row["legacy_mig_iou"] < 1e-4


LEGACY_CASES = [
    # the first box of the whole text wins, even inside <think>
    (
        "<think>(0,0),(100,100)</think><answer>(0,0),(200,100)</answer>",
        [0, 0, 100, 100],
        [0, 0, 100, 100],
        1.0,
        0.5,
        1.0,
    ),
    # decimals become zeros
    ("<answer>[0.1, 0.2, 0.3, 0.4]</answer>", [0, 0, 100, 100], [0.0] * 4, 0.0, 0.0, 0.0),
    # no space after a parenthesis: no box for the scorer
    ("<answer>( 0,0),(100,100)</answer>", [0, 0, 100, 100], [0.0] * 4, 0.0, 0.0, 0.0),
    # the answer counts as it stands: 0-1 against 0-1000 is next to nothing
    ("<answer>(0,0),(200,100)</answer>", [0.0, 0.0, 0.1, 0.1], [0, 0, 200, 100], 5e-07, 0.0, 0.0),
    # the reward passes over an overlap one unit wide
    ("<think>a</think>\n<answer>(0,0),(1,100)</answer>", [0, 0, 100, 100], [0, 0, 1, 100], 0.01, 0.0, 1.0),
]


@pytest.mark.parametrize(("text", "answer", "box", "mig", "reward", "formatted"), LEGACY_CASES)
def test_the_reference_codes_numbers(
    text: str,
    answer: list[float],
    box: list[float],
    mig: float,
    reward: float,
    formatted: float,
    tmp_path: Path,
) -> None:
    read = read_predictions(written(tmp_path / "p.jsonl", {"text": text, "answer": answer}))
    [row] = score_predictions(read, "permille", legacy=True)
    assert row["legacy_mig_box"] == box
    assert row["legacy_mig_iou"] == pytest.approx(mig)
    assert (row["legacy_reward_iou"], row["legacy_reward_format"]) == (reward, formatted)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ("{", "not complete JSON|in the middle of this line"),
        ("[1]", "not a list"),
        ('{"answer": [0, 0, 1, 1]}', "no response"),
        ('{"text": 3, "answer": [0, 0, 1, 1]}', "no text"),
        ('{"text": "a"}', "answer is None"),
        ('{"text": "a", "answer": [0, 0, 1]}', "answer is"),
        ('{"text": "a", "answer": "0 0 1 1"}', "no truth: answer is"),
        ('{"text": "a", "answer": [0, 0, 1, NaN]}', "answer is"),
        ('{"text": "a", "answer": [0, 0, 1, true]}', "answer is"),
        (f'{{"text": "a", "answer": [0, 0, 1, 1{"0" * 400}]}}', "answer is"),
        ('{"text": "a", "answer": [0, 0, 1, 1], "task": 3}', "task is 3"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(record: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a", "answer": [0, 0, 1, 1]}\n\n' + record + "\n")
    with pytest.raises(UnivgError, match=rf"{line}.*p\.jsonl, line 3"):
        read_predictions(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'[{"text": "a", "answer": [0, 0, 1, 1]}]', id="a list of answers"),
        pytest.param(
            b'\xef\xbb\xbf{"text": "a", "answer": [0, 0, 1, 1]},\r\n', id="a byte-order mark and a comma"
        ),
        pytest.param('{"text": "a", "answer": [0, 0, 1, 1]}\n'.encode("utf-16"), id="answers in UTF-16"),
    ],
)
def test_answers_are_read_from_any_container(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(content)
    assert [(one.text, one.answer) for one in read_predictions(tmp_path / "p.json")] == [("a", (0, 0, 1, 1))]


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnivgError, match="no such file or folder"):
        read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UnivgError, match="no predictions"):
        read_predictions(tmp_path / "empty.jsonl")


def test_scores_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    write_scores(path, [{"iou": 1.0}])

    def breaking() -> Any:
        yield {"iou": 0.5}
        raise KeyError

    with pytest.raises(KeyError):
        write_scores(path, breaking())
    assert path.read_text() == '{"iou": 1.0}\n' and len(list(tmp_path.iterdir())) == 1


def test_bad_lines_and_second_answers_cost_no_other(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.jsonl",
        {"id": 1, "text": GOOD, "answer": [100, 200, 300, 400]},
        [1],
        {"id": 1, "text": "", "answer": [100, 200, 300, 400]},
        {"id": 1, "task": "diff", "text": "", "answer": [100, 200, 300, 400]},
    )
    faults: list[RecordFault] = []
    read = read_predictions(path, faults.append)
    assert [(one.names["id"], one.task) for one in read] == [(1, "all"), (1, "diff")]
    assert [(fault.kind, fault.record[-6:]) for fault in faults] == [
        ("bad_field", "line 2"),
        ("repeated_answer", "line 3"),
    ]


def test_answers_of_models_that_were_asked_otherwise_are_hinted_at() -> None:
    texts = ["[100, 200, 300, 400]", "The box is (100,200),(300,400).", "nothing of the kind"]
    rows = [{"fault": "no_answer", "boxes_unit": []}] * 3
    hint = describe_style(texts, rows, "think")
    assert "3 of 3 responses have none: --style direct reads a box in 67 %, think in 0 %" in hint
    assert describe_style(texts, rows, "direct") == "Style direct: the box may stand anywhere."
    one = [{"fault": None, "boxes_unit": [[0, 0, 1, 1]]}] * 40 + [{"fault": "no_answer", "boxes_unit": []}]
    assert "--style" not in describe_style(
        [GOOD] * 40 + ["[1, 2, 3, 4]"], one, "think"
    )  # one in forty: a slip


@pytest.mark.parametrize("size", [(640, 480), (448, 1344)])
def test_pixels_on_one_side_are_told(size: tuple[int, int]) -> None:
    wide, high = size
    truths = [(n / 20, n / 30, n / 20 + 0.2, n / 30 + 0.3) for n in range(10)]
    rows = [
        {"boxes_unit": [[x1 * 1000 / wide, y1 * 1000 / high, x2 * 1000 / wide, y2 * 1000 / high]], "iou": 0.0}
        for x1, y1, x2, y2 in truths
    ]
    assert f"by about {wide / 1000:.2f} in x and {high / 1000:.2f} in y" in suggest_scale(rows, truths)
    sets = [
        {
            "complete": True,
            "box_images": [1, 1],
            "truth_images": [1, 1],
            "boxes_unit": [row["boxes_unit"][0] for row in rows[at : at + 2]][::-1],
            "truths_unit": truths[at : at + 2],
        }
        for at in range(0, 10, 2)
    ]
    pairs = pair_boxes(sets)
    assert f"by about {wide / 1000:.2f} in x" in suggest_scale(
        [row for row, _ in pairs], [box for _, box in pairs]
    )
    elsewhere = [{"boxes_unit": [[y1, x1, y2, x2]], "iou": 0.0} for x1, y1, x2, y2 in truths]
    assert suggest_scale(elsewhere, [*truths[5:], *truths[:5]]) == ""


def test_why_the_reference_finds_nothing_is_told() -> None:
    row = {"hit_50": True, "legacy_mig_iou": 0.0, "legacy_reward_iou": 0.0}
    texts = [
        "<answer>[0.1, 0.2, 0.3, 0.4]</answer>",
        "(1,2),(3,4) no: <answer>(5,6),(7,8)</answer>",
        "<b>1</b>",
    ]
    told = explain_legacy(texts, [row] * 3, as_it_stands=False)
    assert "1 are written in decimals" in told[0] and "1 hold another box" in told[0]
    assert "1 are in none of the forms" in told[0] and "3 hits earn no IoU reward" in told[1]
    assert "against 0–1 answers it gives next to 0" in explain_legacy(texts, [row] * 3, as_it_stands=True)[0]
    assert explain_legacy(texts[:1], [row | {"legacy_mig_iou": 1.0, "legacy_reward_iou": 1.0}], False) == []
