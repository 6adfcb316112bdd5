"""Pushing data sets to a hub: what arrives is what others load, and nothing is lost where it does not."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard, constants
from PIL import Image

from fake_hub import TOKEN, Hub, run, running
from univg.cli.main import main
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, which this process takes for the real one."""
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def pictured(tmp_path: Path) -> tuple[Path, list[GroundingSample]]:
    """Three samples, a photograph stored on its side among their pictures; one answer is a set, one is empty."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 30), (20, 120, 30)).save(tmp_path / "b.png")
    both, box = ("turned.jpg", "b.png"), (0.1, 0.2, 0.5, 0.6)
    of_teacher = {"thought": {"teacher": "openai:big"}, "size": 3}
    samples = [
        GroundingSample(both, "Where?", "diff", (box,), 1, "It is there.", source="own#1", extra=of_teacher),
        GroundingSample(
            both, "All?", "find_all", (box, box), box_images=(0, 1), complete=True, source="own#2"
        ),
        GroundingSample(("b.png",), "Any?", "find_all", complete=True, thinking=False, source="own#3"),
    ]
    write_jsonl(tmp_path / "data.jsonl", samples)
    return tmp_path / "data.jsonl", samples


@pytest.fixture
def push(
    pictured: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`push(*more)` -> (exit code, what was said), of `univg data push` with the folder `tmp_path / "out"`."""

    def pushed(*more: str, to: str = "org/mine") -> tuple[int, str]:
        command = [
            "data",
            "push",
            str(pictured[0]),
            "--images",
            str(tmp_path),
            "--out",
            str(tmp_path / "out"),
        ]
        code = main([*command, "--to", to, *more])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return pushed


def test_what_arrives_is_what_datasets_and_univg_load(
    hub: Hub, push: Callable[..., Any], pictured: tuple[Path, list[GroundingSample]], tmp_path: Path
) -> None:
    samples = pictured[1]
    code, said = push("--license", "cc-by-4.0", "--private")
    assert code == 0 and f"pushed: {hub.url}/datasets/org/mine/commit" in said
    assert hub.repositories == {"datasets/org/mine": True}
    assert set(hub.files) == {"README.md", "data/train-00000-of-00001.parquet"}
    for name, content in hub.files.items():
        assert content == (tmp_path / "out" / name).read_bytes()
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["query"] for row in rows] == ["Where?", "All?", "Any?"]
    assert rows[0]["images"][0].size == (20, 40), "upright, as its boxes are"
    assert rows[1]["box_images"] == [0, 1] and rows[2]["boxes"] == [] and rows[0]["box_images"] is None
    code = main(["data", "convert", str(tmp_path / "out"), "--images", str(tmp_path), "--to", "jsonl",
                 "--out", str(tmp_path / "back.jsonl")])  # fmt: skip
    assert code == 0 and list(read_jsonl(tmp_path / "back.jsonl")) == samples


def test_the_card_says_what_is_in_it(hub: Hub, push: Callable[..., Any], tmp_path: Path) -> None:
    assert push("--license", "cc-by-4.0", "--split", "test")[0] == 0
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    known = card.data.to_dict()
    assert known["license"] == "cc-by-4.0" and known["size_categories"] == ["n<1K"]
    assert known["configs"][0]["data_files"] == [{"split": "test", "path": "data/test-*"}]
    for expected in (
        "| diff | 1 |",
        "| find_all | 2 |",
        "1 by openai:big",
        "`data.jsonl`, format `univg`",
        "Digest",
    ):
        assert expected in card.text
    assert "3 questions on 5 pictures" in card.text


def test_a_second_push_takes_the_place_of_the_first(
    hub: Hub, push: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:
        small.setattr("univg.data.exports.hub.PART_BYTES", 1)
        small.setattr("univg.data.exports.hub._BATCH", 1)
        assert push()[0] == 0
    assert len(hub.files) == 4, "three parts and the card"
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "out")
        assert push("--split", split)[0] == 0
    both = {f"data/{split}-00000-of-00001.parquet" for split in ("train", "test")}
    assert set(hub.files) == both | {"README.md"}
    for name, content in hub.files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    loaded = datasets.load_dataset(str(tmp_path / "downloaded"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3, "test": 3}
    assert "of the split `test` alone; there are also `train`" in hub.files["README.md"].decode()


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "no name of a repository": ({"to": "org/my set"}, "cannot be made (.*"),
    "wrong token": ({"HF_TOKEN": "hf_wrong"}, "cannot be made (.*401.*hf auth login"),
    "there already, and public": ({"there": True}, "is there already, and public"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_the_hub_refuses_is_told_before_anything_is_written(
    name: str, hub: Hub, push: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    how, expected = FAILURES[name]
    monkeypatch.setenv("HF_TOKEN", how.get("HF_TOKEN", TOKEN))
    if how.get("there"):
        hub.repositories["datasets/org/mine"] = False
    code, said = push("--private", to=how.get("to", "org/mine"))
    assert re.search(expected.replace("(", r"\("), said, re.DOTALL) and code == 2, said
    assert "\n" not in said.strip()
    assert not hub.files and not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["refusing", pytest.param("dying", marks=pytest.mark.slow)])
def test_a_push_that_fails_leaves_the_set_and_says_how_to_push_it(
    failing: str, hub: Hub, push: Callable[..., Any], tmp_path: Path
) -> None:
    setattr(hub, failing, True)
    code, said = push()
    assert code == 2 and "the set is written, but was not pushed (" in said and not hub.files
    setattr(hub, failing, False)
    by_hand = shlex.split(said.strip().partition("push it by hand: ")[2])
    assert by_hand[:4] == ["hf", "upload", "org/mine", str(tmp_path / "out")]
    again = run(hub, str(Path(sys.executable).with_name(by_hand[0])), *by_hand[1:])
    assert again.returncode == 0, again.stderr
    assert hub.files["data/train-00000-of-00001.parquet"]


def test_a_picture_that_is_not_there_costs_its_sample(
    hub: Hub, push: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "turned.jpg").unlink()
    code, said = push("--dry-run")
    assert code == 1 and "1 samples" in said and "missing_image" in said and not hub.asked
