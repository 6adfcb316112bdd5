"""Answers as other programs write them, matched with the samples of a data file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from univg.cli import main as cli
from univg.data.formats.faults import RecordFault
from univg.errors import UnivgError
from univg.evaluate.predictions import match_predictions
from univg.grounding.samples import GroundingSample

SAMPLES = [
    GroundingSample(
        [f"./set/{task}/{n}/a.png", f"./set/{task}/{n}/b.png"],
        "Find the mug. " if n % 2 else "Find the mug, then the jug.",
        task,
        boxes=[(0.1 * n, 0.1, 0.1 * n + 0.2, 0.4)],
        source=f"mine#{task}-{n}",
    )
    for task in ("diff", "region")
    for n in range(3)
]


def say(number: int) -> str:
    box = [round(1000 * edge) for edge in SAMPLES[number].boxes[0]]
    return f"<think>There.</think><answer>({box[0]},{box[1]}),({box[2]},{box[3]})</answer>"


def answers(**fields: Any) -> list[dict[str, Any]]:
    """An answer to each sample; a field's value may depend on the sample's number."""
    return [
        {name: value(n) if callable(value) else value for name, value in fields.items()}
        for n in range(len(SAMPLES))
    ]


def complete(n: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": say(n)}}
    return {"status_code": 200, "body": {"choices": [choice, choice]}}


def converse(n: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "x"},
        {"role": "user", "content": f"<image><image>{SAMPLES[n].query}"},
    ]


def locate(n: int) -> list[str]:
    return [f"/data/{path[2:]}" for path in SAMPLES[n].images]


WRITTEN: dict[str, Any] = {
    "answers with the place in the file": answers(id=lambda n: n, response=say),
    "answers with the place counted from 1": answers(id=lambda n: n + 1, answer=say),
    "answers with the sample's source": answers(id=lambda n: SAMPLES[n].source, output=say),
    "answers with the sample's key": answers(key=lambda n: SAMPLES[n].key, text=say),
    "answers with the place in their task": answers(
        id=lambda n: n % 3, task=lambda n: SAMPLES[n].task, pred=say
    ),
    "a batch file of OpenAI's": answers(
        id=lambda n: f"batch_req_{n + 7}a", custom_id=lambda n: f"request-{n}", response=complete, error=None
    ),
    "a batch file of Gemini's": answers(
        key=lambda n: SAMPLES[n].source,
        response=lambda n: {
            "candidates": [
                {"content": {"parts": [{"text": "Hm (1,2),(3,4)", "thought": True}, {"text": say(n)}]}}
            ]
        },
    ),
    "a batch file of Anthropic's": answers(
        custom_id=lambda n: SAMPLES[n].source,
        result=lambda n: {
            "type": "succeeded",
            "message": {
                "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": say(n)}]
            },
        },
    ),
    "lmms-eval's samples": answers(
        doc_id=lambda n: n,
        doc=lambda n: {"question": SAMPLES[n].query},
        target="[]",
        resps=lambda n: [[say(n)]],
        filtered_resps=lambda n: [say(n)],
    ),
    "ms-swift's predictions": answers(response=say, labels=None, messages=converse, images=locate),
    "LLaMA-Factory's predictions": answers(
        prompt=lambda n: f"user: {SAMPLES[n].query} assistant:", predict=say
    ),
    "what the reference's evaluation keeps": [
        *answers(task=lambda n: SAMPLES[n].task, question=lambda n: SAMPLES[n].query, answer=say),
        {"diff": {"IOU@0.7": 1, "TOTAL": 3}},
    ],
    "a map of ids to texts": {sample.source: say(n) for n, sample in enumerate(SAMPLES)},
    "a map of ids to answers": {str(n): {"prediction": say(n)} for n in range(len(SAMPLES))},
    "lists of answers under their tasks": {
        task: [{"id": n, "text": say(n + start)} for n in range(3)]
        for task, start in (("diff", 0), ("region", 3))
    },
    "answers under one key": {"model": "x", "results": answers(index=lambda n: n, model_output=say)},
    "texts alone, in order": [say(n) for n in range(len(SAMPLES))],
}


def match_all(path: Path, samples: Sequence[GroundingSample] = SAMPLES) -> tuple[list[str], list[str], str]:
    faults: list[RecordFault] = []
    found, (how, *_) = match_predictions(path, samples, faults.append)
    wrong = [one.names["source"] for one in found if one.text != say(SAMPLES.index(one.sample))]  # type: ignore[arg-type]
    assert not wrong
    return [one.names["source"] for one in found], [fault.kind for fault in faults], how


@pytest.mark.parametrize("name", WRITTEN)
def test_answers_find_their_samples(name: str, tmp_path: Path) -> None:
    content = WRITTEN[name]
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps(content))
    sources, faults, how = match_all(whole)
    assert sorted(sources) == sorted(sample.source for sample in SAMPLES) and not faults
    if isinstance(content, list) and "order" not in how:
        lines = tmp_path / "a.jsonl"
        lines.write_text("".join(json.dumps(row) + "\n" for row in reversed(content)))
        assert sorted(match_all(lines)[0]) == sorted(sources)


def test_a_table_of_answers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    lines = [f"{n}\t{SAMPLES[n].query}\t[0]\t{say(n)}" for n in range(len(SAMPLES))]
    path.write_text("\n".join(["index\tquestion\tanswer\tprediction", *lines]) + "\n")
    assert len(match_all(path)[0]) == len(SAMPLES)


def test_what_has_no_sample_or_a_second_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"id": "mine#diff-0", "text": say(0)},
        {"id": "mine#diff-1", "text": say(1)},
        {"id": "mine#diff-0", "text": "other"},
        {"id": "mine#diff-9", "text": say(1)},
        {"id": "mine#diff-2", "response": None, "error": {"code": 429}},
        {"id": "mine#region-0", "response": {"status_code": 400, "body": {"error": {"message": "x"}}}},
        {"id": "mine#region-1"},
        {"id": "mine#region-2", "text": 7},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "mine#')
    sources, faults, how = match_all(path)
    assert sources == ["mine#diff-0", "mine#diff-1"] and how == "by `id`, its source"
    assert sorted(faults) == [
        *("bad_field", "failed_request", "failed_request", "missing_field", "not_json"),
        *("repeated_answer", "unknown_id"),
    ]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"text": "a"}], "1 answers and 6 samples: they have no ids, so nothing tells which is whose"),
        ([{"id": "x", "text": "a"}] * 5, r"none of their ids \(such as x\) is one of its samples'"),
        ([{"id": "9" * 5000, "text": "a"}] * 5, r"none of their ids \(such as 9+\) is one of its samples'"),
        (
            [{"text": say(n), "question": SAMPLES[0 if n == 0 else 1 - n % 2].query} for n in range(6)],
            "in order 2 of 6 answers are to another question",
        ),
    ],
    ids=["too few without ids", "unknown ids", "ids of thousands of digits", "another order"],
)
def test_nothing_is_matched_by_guessing(rows: list[dict[str, Any]], line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(UnivgError, match=line):
        match_all(path)


@pytest.fixture
def mig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "task": "diff" if n < 6 else "region",
            "images": [f"./MIG-Bench/images/{n}/1.jpg", f"./MIG-Bench/images/{n}/2.jpg"],
            "question": "What differs?",
            "answer": [0.1, 0.2, 0.3, 0.4],
            "additional_info": "",
            "need_format": True,
        }
        for n in range(8)
    ]
    Path("data.json").write_text(json.dumps(rows))
    return rows


def test_the_command_counts_what_is_missing(
    mig: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    good = "<think>a</think><answer>(100,200),(300,400)</answer>"
    Path("a.jsonl").write_text("".join(json.dumps({"id": n, "output": good}) + "\n" for n in range(6)))
    command = ["score", "a.jsonl", "--data", "data.json"]
    assert cli.main([*command, "--legacy", "--out", "s.jsonl"]) == 1
    told = capsys.readouterr().out
    assert "NOT COMPLETE: 2 of 8 samples have no answer (the first is mig_bench#region/0)" in told
    assert "counted as 0, Acc@0.5 would be macro 50.0, micro 75.0 instead of diff 100.0." in told
    assert "by `id`, the place in the file, from 0" in told
    scored = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert [(row["id"], row["source"], row["legacy_mig_iou"]) for row in scored[:2]] == [
        (0, "mig_bench#diff/0", 1.0),  # 0-1 answers of a data file are taken to 0-1000 for it
        (1, "mig_bench#diff/1", 1.0),
    ]
    assert cli.main([*command, "--task", "diff"]) == 0
    assert "Acc@0.5 would" not in capsys.readouterr().out
    assert cli.main([*command, "--task", "dif"]) == 2
    line = "error: no task 'dif' in this benchmark: choose from diff, region (did you mean 'diff'?)\n"
    assert capsys.readouterr().err == line


def test_answers_without_truth_are_one_line(
    mig: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.jsonl").write_text("".join(json.dumps({"id": n, "output": "x"}) + "\n" for n in range(6)))
    assert cli.main(["score", "a.jsonl"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "the samples' file with --data" in told
    assert cli.main(["score", "a.jsonl", "--images", "x"]) == 2
    assert "--images is about a file of samples" in capsys.readouterr().err
    Path("a.xlsx").write_bytes(b"PK\x03\x04")
    assert cli.main(["score", "a.xlsx", "--data", "data.json"]) == 2
    assert "an Excel workbook: a.xlsx: save it as CSV" in capsys.readouterr().err
