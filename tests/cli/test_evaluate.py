"""`univg evaluate` and `univg score` as a shell sees them, on a tiny model with random weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.cli import main as cli
from univg.grounding.samples import GroundingSample, write_jsonl

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # tests run in a folder of their own
SMALL = ["--n", "1", "--task", "referring", "--task", "diff", "--size", "60", "--max-new-tokens", "4"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def rows(folder: str) -> dict[str, dict[str, Any]]:
    found = [
        json.loads(line)
        for path in Path(folder).glob("rows-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {row["key"]: {name: value for name, value in row.items() if name != "seconds"} for row in found}


def test_the_world_needs_no_files(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--benchmark", "world", "--model", tiny, "--out", "run", *SMALL]
    assert cli.main([*command, "--legacy"]) == 0
    told = capsys.readouterr()
    assert "2 new rows, 2 of 2: run" in told.out
    assert "Acc@0.5" in told.out and "macro" in told.out and "truncated 100.0 %" in told.out
    assert "scored as the reference code does" in told.out
    assert {"legacy_iou", "legacy_reward_iou", "legacy_reward_format"} <= set(
        next(iter(rows("run").values()))
    )
    assert cli.main(command) == 0
    assert "0 new rows, 2 of 2: run" in capsys.readouterr().out


def test_a_consensus_and_its_seed(tiny: str) -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        shared = ["--benchmark", "world_unseen", "--model", tiny, "--out", out, *SMALL]
        assert cli.main(["evaluate", *shared, "--samples", "3", "--sampling-seed", seed]) == 0
    texts = {out: {key: row["texts"] for key, row in rows(out).items()} for out in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]


def test_other_settings_are_another_run(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--benchmark", "world", "--model", tiny, "--out", "run", *SMALL]
    assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main([*command, "--style", "direct"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith('error: rows of another run (prompt.style: "think" -> "direct"')
    assert cli.main([*command, "--shard", "1/2"]) == 0, "a shard of the same run is the same run"


def test_a_missing_image_is_in_the_exit_code(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30)).save("0.png")
    samples = [
        GroundingSample(
            (f"{number}.png",), "Where is it?", "referring", boxes=((0, 0, 1, 1),), source=f"own#{number}"
        )
        for number in range(2)
    ]
    write_jsonl("own.jsonl", samples)
    command = [
        "evaluate",
        "--benchmark",
        "univg",
        "--data",
        "own.jsonl",
        "--images",
        str(tmp_path),
        "--model",
        tiny,
    ]
    command += ["--out", "run", "--max-new-tokens", "4"]
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert "NOT COMPLETE: 1 of 2 samples are scored" in told.out.replace("\n", " ")
    assert "fault: own#1: image: no such file under" in told.err and "1.png" in told.err
    assert (
        told.err.strip().splitlines()[-1].startswith("error: 1 samples could not be evaluated (image): run: ")
    )
    assert [row["source"] for row in rows("run").values()] == ["own#0"]
    Image.new("RGB", (40, 30)).save("1.png")
    assert cli.main(command) == 0
    assert "1 new rows, 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--benchmark", "nope"], "no benchmark 'nope': choose from world, world_unseen, world_drawn"),
        (["--benchmark", "lisa_val"], "the benchmark is a published file: lisa_val: give --data FILE"),
        (["--benchmark", "mig_bench", "--data", "x"], "give --images ROOT"),
        (["--benchmark", "mig_bench", "--data", "x.json", "--images", "."], "x.json"),
        (
            ["--benchmark", "mig_bench", "--data", __file__, "--images", "nowhere"],
            "no such folder: nowhere: `univg data fetch mig_bench --out nowhere --yes` fetches the images, or name",
        ),
        (["--benchmark", "world", "--data", "x.json"], "world is drawn here, no file is read"),
        (["--benchmark", "world", "--task", "nope"], "no task 'nope' in this benchmark"),
        (["--benchmark", "world", "--shard", "2/2"], "no shard '2/2'"),
        (["--benchmark", "world", "--samples", "3", "--temperature", "0"], "greedy samples would be equal"),
        (["--benchmark", "world", "--engine", "openai"], "give --url"),
        (["--benchmark", "world", "--n", "1", "--model", "nowhere"], "no such folder: nowhere"),
    ],
)
def test_what_can_be_put_right_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--out", "run", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: ") and line in told


def test_scores_of_answers_made_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    good = "<think>a</think><answer>(0,0),(500,500)</answer>"
    records = [
        {"id": 1, "task": "diff", "text": good, "answer": [0, 0, 500, 250]},
        {"id": 2, "task": "region", "text": "nothing", "answer": [0, 0, 500, 250]},
    ]
    Path("p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli.main(["score", "p.jsonl", "--out", "s.jsonl", "--legacy"]) == 0
    told = capsys.readouterr().out
    assert "Answers are 0–1000" in told and "macro" in told and "scores: s.jsonl" in told
    scored = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert [(row["id"], row["iou"], row["fault"]) for row in scored] == [
        (1, 0.5, None),
        (2, 0.0, "no_answer"),
    ]
    assert scored[0]["boxes_unit"] == [[0, 0, 0.5, 0.5]] and scored[0]["legacy_mig_box"] == [0, 0, 500, 500]
    assert cli.main(["score", "p.jsonl", "--out", "plain.jsonl"]) == 0
    assert "legacy_mig_iou" not in Path("plain.jsonl").read_text()
    assert cli.main(["score", "p.jsonl", "--out", "p.jsonl"]) == 2
    assert "the scores would replace the responses" in capsys.readouterr().err
    records.append({"id": 3, "task": "diff", "text": good, "answer": [0, 0, 0.5, 0.5]})
    Path("mixed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli.main(["score", "mixed.jsonl", "--out", "m.jsonl"]) == 0
    assert "1 of 3 answers look like 0–1" in capsys.readouterr().out
    Path("bad.jsonl").write_text("{}\n")
    assert cli.main(["score", "bad.jsonl", "--out", "s.jsonl"]) == 2
    line = "error: no answer of 1 can be scored; the first: no response: bad.jsonl, line 1: give the raw response"
    assert capsys.readouterr().err == f"{line} as `text`\n"


def test_scoring_needs_no_torch() -> None:
    Path("p.jsonl").write_text('{"text": "", "answer": [0, 0, 1, 1]}\n')
    code = "import sys; from univg.cli.main import main; code = main(sys.argv[1:]);"
    code += "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    command = [sys.executable, "-c", code, "score", "p.jsonl", "--out", "s.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=ENVIRONMENT)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of another kind")
def test_a_whole_process_killed_and_run_again(tiny: str, tmp_path: Path) -> None:
    """The same as the runner's own test, from the command down to a real model, with fewer kills."""
    settings = ["--n", "4", "--size", "60", "--max-new-tokens", "24", "--batch-size", "2"]
    command = [
        sys.executable,
        "-m",
        "univg",
        "evaluate",
        "--benchmark",
        "world",
        "--model",
        tiny,
        *settings,
    ]
    rng, path = random.Random(0), tmp_path / "killed" / "rows-0-of-1.jsonl"
    for _ in range(4):
        process = subprocess.Popen([*command, "--out", "killed"], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        before = path.stat().st_size if path.exists() else 0
        while process.poll() is None and (path.stat().st_size if path.exists() else 0) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
    for out in ("killed", "whole"):
        subprocess.run([*command, "--out", out], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    assert rows("killed") == rows("whole") and len(rows("whole")) == 4 * 13
    assert len(path.read_bytes().splitlines()) == 4 * 13
