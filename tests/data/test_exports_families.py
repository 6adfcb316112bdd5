"""What is written for a family of models is in its own coordinates, and comes back as the samples that they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from univg.cli.main import main
from univg.data.dataset import Dataset
from univg.data.exports import SUFFIXES
from univg.data.formats.image_root import Stored, stored_size
from univg.grounding.prompts import render_answer
from univg.grounding.samples import GroundingSample, write_jsonl

BOX = (0.1234, 0.2345, 0.7654, 0.8765)
SIZES = {"a.png": (640, 480), "b.png": (90, 200), "c.png": (3000, 100)}
SEEN = {
    "llamafactory": {"a.png": (364, 280), "b.png": (84, 196), "c.png": (1736, 56)},
    "verl": {"a.png": (364, 252), "b.png": (84, 196), "c.png": (1624, 56)},
    "trl": {"a.png": (364, 252), "b.png": (84, 196), "c.png": (1708, 56)},
}
"""How large each trainer's model sees them at 100,000 pixels."""
SAMPLES = [
    GroundingSample(("a.png",), "Where is the dog?", "referring", (BOX,), thought="There.", source="own#one"),
    GroundingSample(
        ("a.png", "c.png"),
        "Which cat is in image 2?",
        "region",
        (BOX,),
        1,
        "In the second image.",
        source="own#two",
    ),
    GroundingSample(
        *(("b.png", "c.png"), "Every cat.", "find_all", (BOX, (0.0, 0.5, 0.4, 1.0))),
        thought="Both images show one.",
        complete=True,
        box_images=(0, 1),
        source="own#set",
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in SIZES.items():
        Image.new("RGB", size).save(tmp_path / name)
    write_jsonl(tmp_path / "own.jsonl", SAMPLES)
    return tmp_path


def test_what_a_trainer_must_know_and_what_is_answered_in_part_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = ((0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9))
    rows = [
        replace(SAMPLES[0], boxes=boxes, box_images=(0, 0), complete=complete) for complete in (False, True)
    ]
    write_jsonl(folder / "two.jsonl", rows)
    given = [
        "--images",
        str(folder),
        "--to",
        "trl",
        "--out",
        str(folder / "two-out.jsonl"),
        "--style",
        "direct",
    ]
    main(
        [
            "data",
            "convert",
            str(folder / "two.jsonl"),
            *given,
            "--family",
            "qwen2_5_vl",
            "--max-pixels",
            "100000",
        ]
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "of pictures of at most 100,000 pixels: let the trainer allow as many" in told
    assert (
        "1 samples with several boxes are answered by their first: where all are asked for, --complete"
        in told
    )


@pytest.mark.parametrize("to", ["sharegpt", "llamafactory", "trl", "verl", "easyr1"])
def test_pixels_are_written_as_the_family_sees_pictures_and_read_back(to: str, folder: Path) -> None:
    out = folder / f"out{SUFFIXES[to]}"
    given = ["--images", str(folder), "--to", to, "--out", str(out), "--family", "qwen2_5_vl"]
    assert main(["data", "convert", str(folder / "own.jsonl"), *given, "--max-pixels", "100000"]) == 0
    seen = SEEN["llamafactory" if to in ("sharegpt", "easyr1") else to]
    wanted = []
    for sample in SAMPLES:
        sizes = [seen[name] for name in sample.images]
        style = "set_direct" if sample.complete else "simple"
        wanted.append(render_answer(sample, style, sample.target_image or 0, sizes))
    text = out.read_bytes().decode("utf-8", "ignore") if to not in ("verl", "easyr1") else str(_rows(out))
    assert [answer in text for answer in wanted] == [True] * 3
    reader = "cotsft" if to in ("sharegpt", "llamafactory") else to
    again = Dataset.from_file(str(out), reader, str(folder), lambda sample: True, None)
    assert not again.faults
    found = {each.source: each for each in (again.item(k).sample for k in range(again.total))}
    for sample in SAMPLES:
        assert found[sample.source].targets == sample.targets, sample.source


@pytest.mark.parametrize("seen", [5, {"sizes": [[0, 10]]}, {"sizes": [5]}, {"sizes": [["a", "b"]]}, [1]])
def test_damaged_sizes_cost_their_record_alone(seen: object, folder: Path) -> None:
    out = folder / "out.jsonl"
    given = ["--images", str(folder), "--to", "trl", "--out", str(out), "--family", "qwen2_5_vl"]
    assert main(["data", "convert", str(folder / "own.jsonl"), *given]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    rows[1]["univg"] = json.dumps({**json.loads(rows[1]["univg"]), "seen": seen})
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = Dataset.from_file(str(out), "trl", str(folder), lambda sample: True, None)
    assert [fault.kind for fault in again.faults] == ["bad_field"]
    assert {again.item(k).sample.source for k in range(again.total)} == {"own#one", "own#set"}


def _rows(path: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as parquet

    rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
    return rows


def test_thousandths_are_what_the_other_families_are_given(folder: Path) -> None:
    for family in ("qwen2_vl", "qwen3_vl"):
        out = folder / f"{family}.jsonl"
        given = ["--images", str(folder), "--to", "trl", "--out", str(out), "--family", family]
        assert main(["data", "convert", str(folder / "own.jsonl"), *given]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert rows[0]["solution"] == "(123,235),(765,877)"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--to", "yolo", "--family", "qwen2_5_vl"], "yolo has coordinates of its own"),
        (["--to", "trl", "--family", "qwen2_5"], "no such family: --family qwen2_5: choose from"),
    ],
)
def test_what_cannot_be_is_one_line(
    more: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / ("out.jsonl" if "trl" in more else "out")
    command = [
        "data",
        "convert",
        str(folder / "own.jsonl"),
        "--images",
        str(folder),
        "--out",
        str(out),
        *more,
    ]
    assert main(command) == 2
    assert told in capsys.readouterr().err


def test_each_picture_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def count(path: Path) -> Stored:
        read.append(path.name)
        return stored_size(path)

    monkeypatch.setattr("univg.data.exports.pictures.stored_size", count)
    given = ["--images", str(folder), "--to", "trl", "--out", str(folder / "o.jsonl"), "--style", "direct"]
    assert main(["data", "convert", str(folder / "own.jsonl"), *given, "--family", "qwen2_5_vl"]) == 0
    assert [read.count(name) for name in SIZES] == [1] * 3


def test_a_picture_that_is_not_there_cannot_be_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.png").unlink()
    given = [
        "--images",
        str(folder),
        "--to",
        "trl",
        "--out",
        str(folder / "o.jsonl"),
        "--family",
        "qwen2_5_vl",
    ]
    assert main(["data", "convert", str(folder / "own.jsonl"), *given]) == 1
    told = capsys.readouterr()
    assert "2 samples" in told.out and "b.png" in told.out + told.err
