"""Prompts for every task, and the teachers that need no server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg.cli.main import main
from univg.construct.ledger import Draw
from univg.construct.prompts import FIELDS, JUDGE, PROPOSE, TASKS, Prompts, name_image
from univg.construct.teacher import WorldTeacher, request_of
from univg.data.dataset import Dataset
from univg.errors import UnivgError
from univg.grounding.prompts import render_response
from univg.grounding.samples import GroundingSample, read_jsonl
from univg.world import FAMILIES

TEXTS = Prompts.load()
MIG_BENCH = {name for name, family in FAMILIES.items() if family.in_mig_bench}


def text_of(messages: tuple[dict[str, Any], ...]) -> str:
    return str(messages[0]["content"][-1]["text"])


def test_every_task_has_steps_of_its_own() -> None:
    assert len(MIG_BENCH) == 10
    assert MIG_BENCH | {"free_form", "referring", "implicit", "video"} <= set(TASKS)
    own = [TEXTS.texts[name] for name in set(TASKS.values())]
    assert len(set(own)) == len(own) == 14 and set(TEXTS.texts) == set(TASKS.values()) | {PROPOSE, JUDGE}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_prompt_says_all_that_it_must(task: str) -> None:
    sample = GroundingSample(["a"], "Where $is {it}? ", task, boxes=[(0.1, 0.2, 0.3, 0.4)])
    text = text_of(TEXTS.propose(sample, "en"))
    assert "Where $is {it}?" in text and "English" in text and TEXTS.texts[TASKS[task]].strip() in text
    assert text.count(render_response(sample.boxes[0], style="simple")) == 2
    assert "one image" in text and "<answer>" in text
    judged = text_of(TEXTS.judge(sample, ["It is left. $cost", "It is there."], "en"))
    assert "two chains" in judged and "Chain 1:\nIt is left. $cost" in judged and "Chain 2:" in judged
    left = re.sub(r"Where \$is|\$cost", "", text + judged)
    assert "$" not in left


def test_texts_of_sets_are_replaced_from_their_folder(tmp_path: Path) -> None:
    assert set(TEXTS.of_sets) == {PROPOSE, JUDGE, "find_all", "odd_one_out"}
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "find_all.md").write_text("1. Count them.")
    own = Prompts.load(tmp_path)
    dogs = GroundingSample(["a"], "Every dog.", "find_all", complete=True)
    assert "1. Count them." in text_of(own.propose(dogs, "en")) and own.texts == TEXTS.texts
    changed = {k for k, v in own.digests(with_sets=True).items() if v != TEXTS.digests(with_sets=True)[k]}
    assert changed == {"sets/find_all"} and own.digests() == TEXTS.digests()
    (tmp_path / "sets" / "diff.md").write_text("x")
    with pytest.raises(UnivgError, match=r"no text of that name to replace: .*sets/diff.md"):
        Prompts.load(tmp_path)


def test_a_prompt_names_the_image() -> None:
    three = GroundingSample(["a", "b", "c"], "Find it in image 3.", "free_form", boxes=[(0, 0, 1, 1)])
    assert name_image(three) == "the third image"
    assert name_image(GroundingSample(["a", "b"], "Find it.", "x")) == "the image that it lies in"
    assert "three images, in order" in text_of(TEXTS.propose(three, "zh"))


def test_own_texts_replace_the_package_s(tmp_path: Path) -> None:
    (tmp_path / "diff.md").write_text("1. Look at $target.")
    own = Prompts.load(tmp_path)
    assert own.digest("diff") != TEXTS.digest("diff") and own.digest("region") == TEXTS.digest("region")
    pair = GroundingSample(["a", "b"], "What differs?", "diff", boxes=[(0, 0, 1, 1)], target_image=0)
    assert "1. Look at the first image." in text_of(own.propose(pair, "en"))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("dif.md", "x", r"no text of that name to replace: .*dif.md: call it diff.md"),
        ("diff.md", "", "the text is empty"),
        ("diff.md", "$anser", r"\$anser means nothing here: .*there are \$box"),
        ("propose.md", "$question", r"\$steps is missing"),
        ("judge.md", "$question", r"\$candidates is missing"),
        ("notes.csv", "x", "no .md or .txt file in it"),
    ],
)
def test_texts_that_cannot_be_used(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UnivgError, match=told):
        Prompts.load(tmp_path)
    assert set(FIELDS) == {PROPOSE, JUDGE}


def test_a_request_is_known_by_all_that_decides_it() -> None:
    first, second = Dataset.from_world(2, size=28).items()
    ask, how = TEXTS.propose(first.sample, "en"), Draw(9, 1.0)
    teacher = WorldTeacher()
    key = request_of(teacher, first, "propose", 0, ask, how, 0).key
    others = [
        request_of(teacher, second, "propose", 0, ask, how, 0),
        request_of(teacher, first, "propose", 1, ask, how, 0),
        request_of(teacher, first, "propose", 0, TEXTS.propose(first.sample, "zh"), how, 0),
        request_of(teacher, first, "propose", 0, ask, Draw(8, 1.0), 0),
        request_of(teacher, first, "propose", 0, ask, how, 1),
    ]
    assert key == request_of(teacher, first, "propose", 0, ask, how, 0).key
    assert len({key, *(one.key for one in others)}) == 6


def test_the_world_as_teacher_needs_nothing(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(["construct", "--teacher", "world", "--out", str(out), "--size", "28"]) == 0
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert len(samples) == 26 and {sample.task for sample in samples} == set(FAMILIES)
    assert all((out / image).exists() for sample in samples for image in sample.images)
    assert main(["data", "validate", str(out / "samples.jsonl"), "--images", str(out)]) == 0
    for to, name in (("llamafactory", "l.json"), ("trl", "t.jsonl"), ("sharegpt", "s.json")):
        assert (
            main(["data", "convert", str(out / "samples.jsonl"), "--to", to, "--out", str(out / name)]) == 0
        )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] and manifest["spent"]["requests"] == 0
    again = tmp_path / "again"
    source = ["--data", str(out / "samples.jsonl")]
    assert main(["construct", "--teacher", "world", *source, "--out", str(again)]) == 0
    thoughts = [(sample.key, sample.thought) for sample in read_jsonl(again / "samples.jsonl")]
    assert thoughts == [(sample.key, sample.thought) for sample in samples]


def test_a_checkpoint_as_its_own_teacher(
    tmp_path: Path, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    out = tmp_path / "out"
    arguments = ["construct", "--teacher", "embedded", "--out", str(out), "--task", "refer_grounding"]
    arguments += ["--n", "4", "--chains", "3", "--min-iou", "0.3"]
    assert main(arguments) == 0
    rows, journal = lines(out / "proposals.jsonl"), (out / "journal.jsonl").read_bytes()
    assert len(rows) == 12 and journal.count(b"\n") == 4
    for row in rows:
        assert (row["state"] == "rejected") == bool(row["causes"])
        assert row["causes"] or row["iou"] >= 0.3
    before = (out / "proposals.jsonl").read_bytes()
    assert main(arguments) == 0
    assert (out / "journal.jsonl").read_bytes() == journal and (
        out / "proposals.jsonl"
    ).read_bytes() == before


def test_a_checkpoint_has_a_budget_too(tmp_path: Path, capsys: Any) -> None:
    arguments = [
        "construct",
        "--teacher",
        "embedded",
        "--out",
        str(tmp_path),
        "--task",
        "referring",
        "--n",
        "6",
    ]
    assert (
        main(
            [
                *arguments,
                "--chains",
                "1",
                "--batch-size",
                "2",
                "--max-new-tokens",
                "20",
                "--budget-tokens",
                "400",
            ]
        )
        == 3
    )
    assert "the budget is used up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--teacher", "openai:m"], "no address: --teacher openai:m: give --base-url"),
        (["--teacher", "openai:m", "--base-url", "http://127.0.0.1:9/v1", "--family", "x"], "no such family"),
        (
            ["--teacher", "openai:", "--base-url", "http://127.0.0.1:9/v1"],
            "no OpenAI-compatible server answers",
        ),
        (["--teacher", "nowhere-at-all"], "nowhere-at-all"),
        (["--teacher", "world", "--task", "none"], "no such task family: --task none: choose from diff"),
        (["--teacher", "world", "--judge", "same"], "the world judges nothing"),
        (["--teacher", "embedded", "--data", __file__], "a teacher must see the images: --data "),
        (["--teacher", "embedded", "--data", "x.json"], "no such file or folder: x.json: check the path"),
        (
            ["--teacher", "embedded", "--temperature", "1e-9"],
            "3 greedy proposals would be equal: --temperature 1e-09",
        ),
        (["--teacher", "world", "--data", "x.json"], "no such file or folder: x.json"),
        (["--teacher", "world", "--prompts", "nowhere"], "no such folder: nowhere: give --prompts"),
        (
            ["--teacher", "world", "--min-words", "9", "--max-words", "3"],
            "no thought is that long: --min-words 9",
        ),
        (
            ["--teacher", "openai:m", "--base-url", "http://127.0.0.1:9/v1", "--field", "x"],
            "not NAME=JSON: --field x",
        ),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(["construct", "--out", str(tmp_path / "out"), *options]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_another_asking_in_the_same_folder_says_what_it_replaces(tmp_path: Path, capsys: Any) -> None:
    run = ["construct", "--teacher", "world", "--out", str(tmp_path / "out"), "--n"]
    assert main([*run, "6"]) == main([*run, "6"]) == 0
    assert "of another asking" not in capsys.readouterr().err, "the same command goes on"
    assert main([*run, "2"]) == 0
    assert "held 6 kept samples of another asking (differs in data)" in capsys.readouterr().err
    assert main([*run, "6"]) == 0
    assert len(list(read_jsonl(tmp_path / "out" / "samples.jsonl"))) == 6


def test_that_nothing_was_kept_is_said(tmp_path: Path, capsys: Any) -> None:
    run = ["construct", "--teacher", "world", "--out", str(tmp_path / "out"), "--n", "2"]
    assert main([*run, "--min-words", "290"]) == 0
    assert "note: nothing was kept" in capsys.readouterr().err
