"""Two runs side by side: on how many samples texts and boxes differ, and by how much."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from univg.cli import main as cli
from univg.errors import UnivgError
from univg.evaluate.pairs import Pair, build_differing_table, build_pairs_table, pair_runs
from univg.evaluate.report import build_sections, render_html_page
from univg.evaluate.runner import evaluate
from univg.evaluate.runs import Run, read_beside

BOX = [0.1, 0.2, 0.5, 0.6]


def row(boxes: list[list[float]], text: str = "", image: int = 0, **more: Any) -> dict[str, Any]:
    shape = {"task": "diff", "source": "one#1", "text": text, "boxes_unit": boxes, "image_index": image}
    return shape | {"hit_50": bool(boxes), "iou": float(bool(boxes)), **more}


SET = {"complete": True, "refused": False}
TABLE: list[tuple[str, dict[str, Any], dict[str, Any], tuple[bool, float, list[float]]]] = [
    ("the same", row([BOX]), row([BOX]), (False, 1.0, [0.0])),
    ("other notation, same numbers", row([BOX], "(1"), row([BOX], "[1"), (False, 1.0, [0.0])),
    ("one edge", row([BOX]), row([[0.1, 0.2, 0.5, 0.604]]), (True, 0.16 / 0.1616, [4.0])),
    ("nothing in common", row([[0, 0, 0.1, 0.1]]), row([[0.5, 0, 0.6, 0.1]]), (True, 0.0, [500.0])),
    ("another image", row([BOX]), row([BOX], image=1), (True, 0.0, [])),
    ("one has none", row([BOX]), row([]), (True, 0.0, [])),
    ("both have none", row([], "no"), row([], "?"), (False, 1.0, [])),
    ("a second box, which does not count", row([BOX]), row([BOX, [0, 0, 1, 1]]), (False, 1.0, [0.0])),
    (
        "sets in another order",
        row([BOX, [0, 0, 1, 1]], **SET),
        row([[0, 0, 1, 1], BOX], **SET),
        (False, 1.0, [0.0, 0.0]),
    ),
    ("a set with one box more", row([BOX], **SET), row([BOX, [0.8, 0.8, 1, 1]], **SET), (True, 2 / 3, [0.0])),
    ("nothing there, and no answer", row([], **SET | {"refused": True}), row([], **SET), (True, 0.0, [])),
]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [each[1:] for each in TABLE], ids=[t[0] for t in TABLE]
)
def test_how_far_two_answers_are_apart(
    first: Any, second: Any, expected: tuple[bool, float, list[float]]
) -> None:
    pair, turned = Pair("k", first, second), Pair("k", second, first)
    differ, overlap, off = expected
    assert pair.boxes_differ == turned.boxes_differ == differ
    assert pair.overlap == turned.overlap == pytest.approx(overlap)
    assert pair.edges_off == pytest.approx(off) and sorted(turned.edges_off) == pytest.approx(off)


def run(rows: dict[str, dict[str, Any]], label: str, data: str = "d", **settings: Any) -> Run:
    fingerprint = {"benchmark": "b", "data": data, "decoding": {"samples": 1}, **settings}
    return Run(label, "b", fingerprint, {"model": "m", "seed": len(data)}, rows, len(rows))


def test_what_the_tables_say() -> None:
    moved = [0.1, 0.2, 0.5, 0.61]
    first = run({key: row([BOX], "at (100") for key in "abcd"}, "here", engine="local", dtype="float32")
    others = {"a": row([BOX], "at (100"), "b": row([moved], "at (101"), "c": row([], "none")}
    pairing = pair_runs(first, run(others | {"x": row([])}, "there", engine="openai", model="served"))
    table = build_pairs_table(pairing)
    assert table.title == "there beside here: the same answers?"
    assert [line[:5] for line in table.rows] == [("diff", "3", "2 (66.7 %)", "2 (66.7 %)", "1")]
    assert table.rows[0][5:] == ("0.488", "0.000", "10.0", "10.0", "10.0")
    assert "2 samples that only one of the runs has are left out." in table.notes
    assert table.notes[-1].endswith('settings: engine: "local" -> "openai"; dtype: "float32" -> null.')
    listed = build_differing_table(pairing, most=1)
    assert listed is not None and listed.title.endswith("1 of 2 samples")
    assert listed.rows == (("one#1", "0.000", "–", "1", "at (100", "none"),)
    again = build_differing_table(pairing)
    assert again is not None and again.rows[1][3:] == ("7", "at (100", "at (101")
    same = pair_runs(first, run(dict(first.rows), "again"))
    assert build_differing_table(same) is None and build_pairs_table(same).rows[0][2:4] == ("0", "0")


def test_runs_over_different_samples_are_refused() -> None:
    first = run({"a": row([BOX])}, "here")
    with pytest.raises(
        UnivgError, match=r"different samples cannot be compared \(seed: 1 -> 2\).*here and there"
    ):
        pair_runs(first, run({"a": row([BOX])}, "there", data="dd"))
    with pytest.raises(UnivgError, match="none of its samples is among the other run's"):
        pair_runs(first, run({"b": row([BOX])}, "there"))


def test_a_page_shows_both_answers(scripted: ModuleType, tmp_path: Path) -> None:
    benchmark = scripted.world(2, tasks=["diff", "referring"])
    for name, version in (("a", 1), ("b", 2), ("c", 1)):
        evaluate(benchmark, scripted.ScriptedEngine(version=version), tmp_path / name)
    [found], beside = read_beside([tmp_path / "b"], tmp_path / "a")
    [section] = build_sections([found], beside=beside)
    assert [run.label for run in section.runs] == ["scripted (a)", "scripted (b)"]
    assert any("hits of scripted (a) only" in table.headings for table in section.tables)
    page = render_html_page([section], gallery=4)
    assert page.count('class="box other"') >= 1 and "of the run compared with" in page
    [found], beside = read_beside([tmp_path / "c"], tmp_path / "a")  # one fingerprint in two folders
    [section] = build_sections([found], beside=beside)
    assert section.pairings[0].differing == [] and 'class="box other"' not in render_html_page([section])


def test_the_command_compares(tiny_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--benchmark",
        "world",
        "--model",
        str(tiny_folder),
        "--n",
        "1",
        "--task",
        "referring",
        "--size",
        "60",
    ]
    a, b, c = (str(tmp_path / name) for name in "abc")
    ask = ["evaluate", *small, "--max-new-tokens"]
    assert cli.main([*ask, "6", "--out", a]) == 0
    capsys.readouterr()
    assert cli.main([*ask, "5", "--out", b, "--compare", a]) == 0
    told = capsys.readouterr().out
    assert "the same answers?" in told and "decoding.max_new_tokens: 6 -> 5" in told
    assert cli.main(["report", b, "--compare", a, "--out", c]) == 0
    assert "texts part at character" in (tmp_path / "c" / "report.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*ask, "6", "--seed", "1", "--out", c, "--compare", a]) == 2
    refusal = capsys.readouterr().err
    assert "different samples cannot be compared (seed: 0 -> 1)" in refusal, "sizes of the two are the same"
    assert not (tmp_path / "c" / "run.json").exists()
    assert cli.main(["report", a, "--compare", a]) == 2
    assert "not compared with itself" in capsys.readouterr().err
