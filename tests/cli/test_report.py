"""`univg report` on runs whose answers come from a script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from univg.cli import main as cli
from univg.evaluate.runs import claim, write_state

TASKS = ("diff", "region")


def write_run(folder: Path, model: str, shift: int = 0) -> None:
    """A run of the world's benchmark with eight rows, of which some hit."""
    fingerprint: dict[str, Any] = {"benchmark": "world", "model": model, "decoding": {"samples": 1}}
    about = {"model": model, "kind": "world", "split": "test", "seed": 0, "difficulty": 0.5, "size_px": 40}
    identity = claim(folder, fingerprint, about)
    rows = []
    for number in range(8):
        iou = 1.0 if (number + shift) % 3 else 0.0
        task = TASKS[number % 2]
        text = "<think>There.</think><answer>(100,100),(500,500)</answer>" if iou else "no"
        rows.append(
            {
                "key": f"{number:032x}",
                "fingerprint": identity,
                "source": f"world#test-{task}-0-{number // 2}",
                "task": task,
                "images": ["a.png"],
                "query": f"Where is <b>{number}</b>?",
                "truth_unit": [0.1, 0.1, 0.5, 0.5],
                "style": "think",
                "text": text,
                "truncated": False,
                "boxes_unit": [[0.1, 0.1, 0.5, 0.5]] if iou else [],
                "fault": None if iou else "no_answer",
                "iou": iou,
                **{f"hit_{threshold}": iou > 0 for threshold in (30, 50, 70)},
                "format_ok": iou > 0,
                "image_index": 0,
                "image_rule": "target",
                "seconds": 0.1,
            }
        )
    (folder / "rows-0-of-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_state(folder, (0, 1), 8, [])


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "one", "models/first")
    write_run(tmp_path / "two", "models/second", shift=1)


def test_a_run_is_reported_in_its_own_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "one"]) == 0
    told = capsys.readouterr().out
    assert "first" in told and "62.5" in told and "no_answer 37.5 %" in told
    assert {path.name for path in Path("one").iterdir()} >= {"report.md", "report.html", "iou-world.png"}
    page = Path("one/report.html").read_text()
    assert page.count("<article") == 8 and "Where is &lt;b&gt;0&lt;/b&gt;?" in page
    assert page.count('class="box truth"') == 8 and page.count('class="box answer"') == 5


def test_two_runs_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "one", "two", "--gallery", "2", "--legacy"]) == 0
    told = capsys.readouterr().out
    assert "second minus first" in told and "scored as the reference code does" in told
    assert Path("univg-report/report.html").read_text().count("<article") == 4
    assert "| **macro** | **8** |" in Path("univg-report/report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "no run here: nowhere: give a folder that `univg evaluate` wrote"),
        ([], "Missing argument 'RUN...'"),
        (["one", "--out", "one/run.json"], "--out cannot be a folder"),
    ],
)
def test_what_can_be_put_right_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: ") and line in told
