"""Answers that are sets: their rows, tables, plots and pages, and scores of answers made elsewhere."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from univg.cli import main as cli
from univg.data.dataset import Item
from univg.evaluate import runner
from univg.evaluate.average_precision import AveragePrecision, Found, Truth, find_precisions
from univg.evaluate.benchmarks import open_file
from univg.evaluate.config import EvaluateConfig
from univg.evaluate.engines import Batch
from univg.evaluate.hints import describe_style
from univg.evaluate.report import build_sections, render_html_page, write_report
from univg.evaluate.rows import add_legacy, make_row
from univg.evaluate.runner import evaluate
from univg.evaluate.runs import read_runs
from univg.grounding.boxes import iou
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle
from univg.grounding.samples import GroundingSample
from univg.models.answering import Answer, Decoding
from univg.report.calibration import calibrate

Files = tuple[Path, Path]
LEFT, RIGHT, LOW = "(100,100),(400,500)", "(600,100),(900,500)", "(200,600),(500,900)"
ALL = f"Image-1: {LEFT}; Image-1: {RIGHT}; Image-2: {LOW}"
GOOD = {
    "things#0": ALL,
    "things#1": f"Image-2: {LOW}",
    "things#2": "none",
    "things#3": f"Image-1: {LEFT}; Image-1: {RIGHT}",
    "things#4": LEFT,
}
POOR = GOOD | {
    "things#0": f"Image-1: {LEFT}; Image-2: {RIGHT}",
    "things#1": "none",
    "things#2": f"Image-2: {LOW}",
}


@dataclass
class Speaking:
    """An engine that says of each sample what it is told to, in a thought and an answer."""

    texts: Mapping[str, str | Sequence[str]]
    name: str = "speaking"
    style: PromptStyle = "think"
    frame: Frame = "permille"
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> dict[str, Any]:
        return {"engine": "speaking", "model": str(self.texts), "pixels": {}}

    def answer(self, cases: Sequence[Item], decoding: Decoding) -> Iterator[Batch]:
        yield [speak(case.key, self.texts[case.sample.source]) for case in cases]


def speak(key: str, said: str | Sequence[str]) -> Answer:
    answers = [said] if isinstance(said, str) else said
    texts = tuple(f"<think>So it is.</think><answer>{one}</answer>" if one else "" for one in answers)
    n = len(texts)
    return Answer(key, texts, (False,) * n, (7,) * n, 9, 7 * n, False, (), 0.1)


def run(
    files: Files, out: Path, texts: Mapping[str, str | Sequence[str]], name: str = "m", samples: int = 1
) -> Path:
    decoding = Decoding(samples, 0.0 if samples == 1 else 1.0)
    outcome = evaluate(open_file("univg", *files), Speaking(texts, name), out, decoding)
    assert not outcome.faults and len(outcome.rows) == 5
    return out


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    [found] = read_runs([folder])
    return {row["source"]: dict(row) for row in found.rows.values()}


def test_a_row_of_a_set_says_all_boxes_and_images(sets_of_things: Files, tmp_path: Path) -> None:
    rows = rows_of(run(sets_of_things, tmp_path / "run", POOR))
    row = rows["things#0"]
    assert row["style"] == "set" and row["complete"]
    assert (row["truth_images"], row["box_images"]) == ([0, 0, 1], [0, 1])
    assert len(row["truths_unit"]) == 3 and row["truth_unit"] == row["truths_unit"][0]
    assert row["iou"] == pytest.approx(2 / 5) and row["hit_50"] is False
    assert (row["precision_50"], row["recall_50"], row["f1_50"]) == (0.5, pytest.approx(1 / 3), 0.4)
    assert (row["images_right"], row["image_f1"], row["refused"]) == (True, 1.0, False)
    assert (row["count_error"], row["count_right"], row["mean_f1"]) == (-1, False, pytest.approx(0.4))
    refused, spoken = rows["things#1"], rows["things#2"]
    assert (refused["refused"], refused["iou"], refused["images_right"]) == (True, 0.0, False)
    assert spoken["truth_unit"] is None and (spoken["iou"], spoken["refused"], spoken["count_error"]) == (
        0.0,
        False,
        1,
    )
    assert rows["things#3"]["images_right"] is None, "of one image there is none to name"
    assert (
        set(rows["things#4"]).isdisjoint(row.keys() - rows["things#4"].keys())
        and "complete" not in rows["things#4"]
    )
    right = rows_of(run(sets_of_things, tmp_path / "right", GOOD))
    assert [right[f"things#{number}"]["iou"] for number in range(5)] == [1.0] * 5
    assert right["things#2"]["count_right"] and right["things#2"]["images_right"]


def test_a_broken_answer_is_worth_nothing_where_nothing_is_there() -> None:
    empty = GroundingSample(["a", "b"], "Every star.", "absent", complete=True)
    for text in ("", "It is (1,2", "I cannot help with that."):
        row = make_row(
            empty, Answer("k", (text,), (False,), (3,), 9, 3, False, (), 0.1), "direct", "permille"
        )
        assert not row["refused"] and not row["count_right"] and row["images_right"] is False
        worth = ("iou", "precision_50", "recall_50", "f1_50", "mean_f1", "image_f1")
        assert [row[name] for name in worth] == [0.0] * 6, text


def test_the_reference_knows_no_sets(sets_of_things: Files, tmp_path: Path) -> None:
    rows = rows_of(run(sets_of_things, tmp_path / "run", GOOD))
    assert add_legacy(rows["things#0"], "univg") == rows["things#0"]
    assert add_legacy(rows["things#4"], "univg")["legacy_iou"] == pytest.approx(1, abs=1e-5)
    [section] = build_sections(read_runs([tmp_path / "run"]), legacy=True)
    [legacy] = [table for table in section.tables if "reference" in table.title]
    assert [line[:2] for line in legacy.rows] == [("referring", "1")]


def table_of(section: Any, words: str) -> dict[str, dict[str, str]]:
    [table] = [table for table in section.tables if words in table.title]
    return {line[0]: dict(zip(table.headings, line, strict=True)) for line in table.rows}


def test_tables_of_sets_stand_beside_the_usual_one(sets_of_things: Files, tmp_path: Path) -> None:
    run(sets_of_things, tmp_path / "run", POOR)
    [section] = build_sections(read_runs([tmp_path / "run"]))
    assert [table.title for table in section.tables] == [
        "m",
        "m: answers that are sets",
        "m: nothing there, and how many",
    ]
    assert [line[:2] for line in section.tables[0].rows] == [("referring", "1")]
    lines = table_of(section, "answers that are sets")
    assert list(lines) == ["absent", "find_all", "macro", "micro"]
    # soft-F1 of find_all: (2/5 + 0 + 1) / 3; macro (0.4667 + 0) / 2; micro (2/5 + 0 + 1 + 0) / 4
    assert [lines[name]["soft-F1"].split()[0] for name in lines] == ["0.0", "46.7", "23.3", "35.0"]
    assert lines["find_all"]["images right"].startswith("50.0 (") and lines["find_all"]["P@0.5"].startswith(
        "50.0 ("
    )
    assert "AP" not in lines["micro"] and "--samples" in section.tables[1].notes[-1]
    refusals = table_of(section, "nothing there")
    assert refusals["micro"] == {
        "task": "micro",
        "n empty": "1",
        "refused": "0.0 (0.0–0.0)",
        "n others": "3",
        "falsely refused": "33.3 (0.0–100.0)",
        "count off by": "0.75 (0.25–1.00)",
        "count exact": "25.0 (0.0–75.0)",
    }
    assert refusals["find_all"]["refused"] == "–" and refusals["absent"]["falsely refused"] == "–"


def test_without_sets_there_are_no_tables_of_them(sets_of_things: Files, tmp_path: Path) -> None:
    run(sets_of_things, tmp_path / "run", GOOD)
    [found] = read_runs([tmp_path / "run"])
    from dataclasses import replace

    for kept, titles in (
        (False, ["m"]),
        (True, ["m: answers that are sets", "m: nothing there, and how many"]),
    ):
        part = {key: row for key, row in found.rows.items() if bool(row.get("complete")) == kept}
        [section] = build_sections([replace(found, rows=part, expected=len(part))])
        assert [table.title for table in section.tables] == titles
        assert [plot.name for plot in section.plots] == ["soft-f1" if kept else "iou"]
        assert ("soft-F1 is 2" in render_html_page([section])) == kept


def test_two_runs_are_compared_by_sets_and_by_one_box(sets_of_things: Files, tmp_path: Path) -> None:
    folders = [
        run(sets_of_things, tmp_path / "a", POOR, "poor"),
        run(sets_of_things, tmp_path / "b", GOOD, "good"),
    ]
    [section] = build_sections(read_runs(folders))
    lines = table_of(section, "good minus poor: answers")
    assert lines["micro"]["soft-F1"].startswith("+65.0 (") and lines["micro"]["count exact"].startswith(
        "+75.0"
    )
    assert lines["micro"]["hits of good only"] == "3"
    [one] = [table for table in section.tables if table.title == "good minus poor"]
    assert one.rows[0][:2] == ("referring", "1") and one.rows[0][3].startswith("+0.0")


SEVERAL = GOOD | {
    "things#0": [ALL, ALL, f"Image-1: {LEFT}; Image-3: {LEFT}", "none"],
    "things#1": [f"Image-2: {LOW}; Image-1: {LEFT}", f"Image-2: {LOW}", f"Image-2: {LOW}", "none"],
    "things#2": ["none", "none", f"Image-1: {LEFT}", ""],
    "things#3": [f"Image-1: {LEFT}; Image-1: (0,900),(90,999)"] * 2 + [f"Image-1: {LEFT}"] * 2,
    "things#4": [LEFT, LEFT, LEFT, RIGHT],
}


def test_several_responses_give_each_box_a_confidence(sets_of_things: Files, tmp_path: Path) -> None:
    rows = rows_of(run(sets_of_things, tmp_path / "run", SEVERAL, samples=4))
    third, half = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert rows["things#0"]["box_confidences"] == [half, third, third]
    assert len(rows["things#1"]["boxes_unit"]) == 1 and rows["things#1"]["box_confidences"] == [half]
    assert rows["things#2"]["refused"] and rows["things#2"]["box_confidences"] == []
    assert rows["things#2"]["confidence"] == third
    assert "box_confidences" not in rows["things#4"] and rows["things#4"]["confidence"] == half
    [section] = build_sections(read_runs([tmp_path / "run"]))
    lines = table_of(section, "answers that are sets")
    assert lines["absent"]["AP"] == "–", "nothing is true there"
    assert 0 < float(lines["find_all"]["AP@0.5"]) < 100
    calibrated = table_of(section, "Agreement as confidence")
    assert calibrated["m, one box"]["boxes"] == "1" and calibrated["m, one box"]["ECE"] == "33.3"
    assert int(calibrated["m, boxes of sets"]["boxes"]) == sum(
        len(row.get("box_confidences", ())) for row in rows.values()
    )
    paths = write_report([section], tmp_path / "out")
    assert [path.name for path in paths] == [
        *("report.md", "report.html", "iou-univg.png", "soft-f1-univg.png", "calibration-univg.png")
    ]


def test_average_precision_is_cocos() -> None:
    """Against a plain computation of precision over recall at 101 points, for random boxes."""
    rng = random.Random(4)
    for _ in range(20):
        true = [
            (image, (x / 10, 0.0, x / 10 + 0.1, 1.0)) for image in range(3) for x in rng.sample(range(10), 3)
        ]
        found = []
        for image in range(3):
            for x in rng.sample(range(10), 4):
                shift = rng.choice((0.0, 0.02, 0.05))
                found.append((image, (x / 10 + shift, 0.0, x / 10 + 0.1 + shift, 1.0), rng.random()))
        assert judge_boxes(found, true).at_50 == pytest.approx(plain_precision(found, true))
    assert find_precisions([Found(0, "", (0, 0, 1, 1), 1.0)], []) == {}
    assert judge_boxes([], true) == (0.0, 0.0)
    exact = [(image, box, 0.5) for image, box in true]
    assert judge_boxes(exact, true) == pytest.approx((1.0, 1.0))
    assert judge_boxes([(9, box, 0.5) for _, box in true], true) == (0.0, 0.0), "on another image"
    assert judge_boxes([("a", (0, 0, 0.5, 1), 1.0)], [("a", (0, 0, 1, 1))]).at_50 == pytest.approx(1)
    empty_first = [(9, (0.0, 0.0, 1.0, 1.0), 0.5), *exact]
    assert judge_boxes(empty_first, true).at_50 == pytest.approx(plain_precision(empty_first, true))


def judge_boxes(found: list[Any], true: list[Any]) -> AveragePrecision:
    """Judge boxes of one category."""
    judged = find_precisions(
        [Found(image, "", box, confidence) for image, box, confidence in found],
        [Truth(image, "", box) for image, box in true],
    )
    return judged[""]


def plain_precision(found: list[Any], true: list[Any]) -> float:
    taken: set[int] = set()
    hits, curve = 0, []
    for n, (image, box, _) in enumerate(sorted(found, key=lambda one: -one[2]), 1):
        options = [
            (iou(box, truth), k) for k, (there, truth) in enumerate(true) if there == image and k not in taken
        ]
        best, k = max(options, default=(0.0, -1))
        if best >= 0.5:
            taken.add(k)
            hits += 1
        curve.append((hits / len(true), hits / n))
    points = [max((p for r, p in curve if r >= at / 100 - 1e-12), default=0.0) for at in range(101)]
    return sum(points) / 101


def test_calibration() -> None:
    honest = calibrate([0.25] * 4 + [0.75] * 4, [True, False, False, False, True, True, True, False])
    assert honest.error == 0 and honest.n == 8 and honest.confidence == honest.hits == 0.5
    assert calibrate([1.0, 1.0], [False, False]).error == 1
    assert [one.n for one in calibrate([0.0, 0.3, 0.1 + 0.2, 1.0], [True] * 4).bins] == [1, 2, 1]
    with pytest.raises(ValueError, match="no answers"):
        calibrate([], [])


def test_the_page_shows_all_boxes_and_says_none(sets_of_things: Files, tmp_path: Path) -> None:
    run(sets_of_things, tmp_path / "run", POOR)
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert page.count('class="box truth"') == 3 + 1 + 0 + 2 + 1
    assert page.count('class="box answer"') == 2 + 0 + 1 + 2 + 1
    assert (
        page.count("Nothing of the kind is there.") == 1
        and page.count("The answer: nothing of the kind.") == 1
    )
    assert "soft-F1 0.400" in page and "IoU 1.000" in page
    [card] = [card for card in page.split("<article")[1:] if "Find every red thing" in card]
    frames = card.split('<div class="frame')[2:]
    assert [frame.count("box truth") for frame in frames] == [2, 1, 0]
    assert [frame.count("box answer") for frame in frames] == [1, 1, 0]


def test_a_run_of_sets_goes_on_where_it_stopped(sets_of_things: Files, tmp_path: Path) -> None:
    run(sets_of_things, tmp_path / "run", GOOD)
    path = tmp_path / "run/rows-0-of-1.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    outcome = evaluate(open_file("univg", *sets_of_things), Speaking(GOOD, "m"), tmp_path / "run")
    assert outcome.answered == 3 and len(outcome.rows) == 5


def score(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(["score", *arguments])
    return code, capsys.readouterr().out


def test_answers_made_elsewhere_are_scored_as_sets(
    sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, out = tmp_path / "answers.jsonl", tmp_path / "scores.jsonl"
    asked = {key: f"<think>So.</think><answer>{text}</answer>" for key, text in POOR.items()}
    asked["things#3"] = '[{"bbox_2d": [100, 100, 400, 500]}, {"bbox_2d": [600, 100, 900, 500]}]'
    answers.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in asked.items()))
    told = ["--data", str(sets_of_things[0]), "--out", str(out), "--legacy"]
    code, shown = score(capsys, str(answers), *told)
    assert code == 0, shown
    rows = {row["source"]: row for row in map(json.loads, out.read_text().splitlines())}
    kept = rows_of(run(sets_of_things, tmp_path / "run", POOR))
    names = ("iou", "f1_50", "mean_f1", "images_right", "image_f1", "refused", "count_error", "truth_images")
    for key in ("things#0", "things#1", "things#2"):
        assert [rows[key][name] for name in names] == [kept[key][name] for name in names]
    assert rows["things#3"]["fault"] == "no_answer", "style set wants its <answer>"
    assert "legacy_mig_iou" in rows["things#4"] and "legacy_mig_iou" not in rows["things#0"]
    assert "answers that are sets" in shown and "nothing there, and how many" in shown
    assert "--style direct reads" in shown
    code, shown = score(capsys, str(answers), *told[:4], "--style", "direct")
    rows = {row["source"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert rows["things#3"]["iou"] == 1.0


def test_a_set_without_an_answer_is_told(
    sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    given = [{"id": key, "text": GOOD[key]} for key in ("things#0", "things#2", "things#4")]
    answers.write_text("".join(json.dumps(row) + "\n" for row in given))
    code, shown = score(capsys, str(answers), "--data", str(sets_of_things[0]), "--style", "direct")
    assert code == 1 and "NOT COMPLETE: 2 of 5 samples have no answer" in shown
    assert "soft-F1 would be macro 66.7, micro 50.0 instead of macro 100.0, micro 100.0" in shown.replace(
        "\n", " "
    )


def test_a_response_may_be_a_list_of_boxes(
    sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = {"image": 2, "bbox_2d": [200, 600, 500, 900], "label": "low"}
    given = {"things#1": [low], "things#2": [], "things#3": [[100, 100, 400, 500], [600, 100, 900, 500]]}
    answers, out = tmp_path / "answers.jsonl", tmp_path / "scores.jsonl"
    given |= {key: GOOD[key] for key in ("things#0", "things#4")}
    answers.write_text("".join(json.dumps({"id": key, "text": one}) + "\n" for key, one in given.items()))
    shared = ["--data", str(sets_of_things[0]), "--style", "direct", "--out", str(out)]
    assert score(capsys, str(answers), *shared)[0] == 0
    rows = {row["source"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert [rows[f"things#{number}"]["iou"] for number in range(5)] == [1.0] * 5
    assert rows["things#2"]["refused"]


BOX_A, BOX_B, BOX_LOW = [100, 100, 400, 500], [600, 100, 900, 500], [200, 600, 500, 900]
NAMED = {
    "names": ["a.png", "a.png", "b.png"],
    "paths": ["/else/a.png", "things\\a.png", "./b.png"],
    "numbers": [1, 1, 2],
}


@pytest.mark.parametrize("names", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("key", ["image", "image_path"])
def test_boxes_name_the_files_of_their_images(
    names: list[Any], key: str, sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if key == "image_path" and names == [1, 1, 2]:
        return
    boxes = [{"bbox_2d": box, key: name} for box, name in zip([BOX_A, BOX_B, BOX_LOW], names, strict=True)]
    row, shown = score_first(boxes, sets_of_things, tmp_path, capsys)
    assert (row["iou"], row["box_images"], row["fault"]) == (1.0, [0, 0, 1], None)
    assert "do not say on which image" not in shown


def test_a_file_that_is_no_image_of_the_question_is_told(
    sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [{"bbox_2d": BOX_A, "image": "a.png"}, {"bbox_2d": BOX_LOW, "image": "d.png"}]
    row, shown = score_first(boxes, sets_of_things, tmp_path, capsys)
    assert (row["fault"], row["box_images"], row["iou"]) == ("unknown_image", [0], pytest.approx(2 / 4))
    assert "unknown_image 100.0 %" in " ".join(shown.split())


def test_boxes_that_name_no_image_of_several_are_told(
    sets_of_things: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, shown = score_first([BOX_A, BOX_B, BOX_LOW], sets_of_things, tmp_path, capsys)
    assert row["box_images"] == [2, 2, 2]
    assert "NOTE: 1 answers do not say on which image a box lies" in " ".join(shown.split())


def score_first(
    answer: Any, files: Files, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], str]:
    """Score an answer to the first question, which has three images; return its row, and what is printed."""
    answers, out = folder / "answers.jsonl", folder / "scores.jsonl"
    answers.write_text(json.dumps({"id": "things#0", "text": answer}) + "\n")
    _, shown = score(capsys, str(answers), "--data", str(files[0]), "--style", "direct", "--out", str(out))
    return json.loads(out.read_text()), shown


def test_the_hint_of_a_style_counts_answers_that_say_none() -> None:
    texts = ["[]", "[]", "[100, 200, 300, 400]", "Sorry."]
    rows = [{"fault": "no_answer", "boxes_unit": [], "refused": False, "complete": True}] * 4
    said = describe_style(texts, rows, "think")
    assert "--style direct reads a box, or that there is none, in 75 %, think in 0 %" in said
    single = describe_style(texts, [{"fault": "no_answer", "boxes_unit": []}] * 4, "think")
    assert "reads a box in 25 %" in single


def test_sets_may_be_longer(sets_of_things: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "find_engine", lambda config: Speaking(GOOD, "embedded"))
    data, images = sets_of_things
    for task, longest in (("find_all", 512), ("referring", 256)):
        config = EvaluateConfig(benchmark="univg", data=data, images=images, task=(task,))
        runner.evaluate_benchmark(config, tmp_path / task)
        kept = json.loads((tmp_path / task / "run.json").read_text())
        assert kept["fingerprint"]["decoding"]["max_new_tokens"] == longest
    asked = EvaluateConfig(benchmark="univg", max_new_tokens=99)
    assert runner.choose_decoding(asked, sets=True).max_new_tokens == 99
