"""The exit codes of `univg data …`: one rule for all verbs, and what each says that writes where something lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from univg.cli import main as cli
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl

BOXES = {"sound": (20, 10, 60, 40), "clipped": (20, 10, 60, 400), "left out": (20, 10, 0, 40)}


def save_set(folder: Path, case: str) -> Path:
    """Write a COCO set of six photographs; one of its boxes is as `case` says."""
    images, annotations = [], []
    for k in range(6):
        path = folder / "images" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (160, 90), (40 * k, 90, 20)).save(path)
        images.append({"id": k, "file_name": path.name, "width": 160, "height": 90})
        for n, box in enumerate([(10, 20, 90, 50), *([BOXES[case]] if k == 5 else [])]):
            annotations.append({"id": 10 * k + n, "image_id": k, "category_id": n, "bbox": box})
    categories = [{"id": 0, "name": "cup"}, {"id": 1, "name": "hat"}]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "set.json").write_text(json.dumps(whole))
    return folder / "set.json"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["data", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.parametrize(
    ("verb", "codes"),
    [
        (("validate",), (0, 1, 1)),
        (("stats",), (0, 0, 1)),
        (("convert", "--to", "coco", "--out", "new/x.json"), (0, 0, 1)),
        (("show", "--out", "new/x.png"), (0, 0, 1)),
        (("split", "--out", "new", "--test", "0.3"), (0, 0, 1)),
        (("build", "--out", "new", "-n", "3", "--family", "region"), (0, 0, 1)),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else None,
)
def test_one_rule_for_exit_codes(
    verb: tuple[str, ...],
    codes: tuple[int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for case, expected in zip(BOXES, codes, strict=True):
        folder = tmp_path / case.replace(" ", "-")
        file = save_set(folder, case)
        monkeypatch.chdir(folder)
        code, told, error = call(capsys, verb[0], file, "--images", folder / "images", *verb[1:])
        assert (code, error) == (expected, ""), told
        fault = {
            "sound": "fault",
            "clipped": "out_of_range  coco#5@51",
            "left out": "degenerate_box  coco#5@51",
        }
        assert (fault[case] in told.replace("no faults", "")) == (case != "sound")
        assert "new" not in verb or any((folder / "new").iterdir())  # what is sound is written all the same


def test_less_than_was_asked_for_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save_set(tmp_path, "sound")
    options = (file, "--images", tmp_path / "images")
    code, told, _ = call(
        capsys, "build", *options, "--out", tmp_path / "a", "-n", 300, "--family", "refer_grounding"
    )
    assert code == 1 and "of 300 tasks" in told
    samples = [GroundingSample((f"{k}.png", f"{k + 1}.png"), "Where?", "common") for k in range(5)]
    samples += [GroundingSample((f"{k}.jpg",), "Where?", "region") for k in range(2)]
    write_jsonl(tmp_path / "s.jsonl", samples)
    code, told, _ = call(capsys, "split", tmp_path / "s.jsonl", "--out", tmp_path / "b", "--test", 0.4)
    assert code == 1
    assert (
        "NOT AS ASKED: 40.0% were to be split off, and 28.6% are; train has no region; test has no common"
        in told
    )
    assert "samples that share pictures stay together, and the largest group holds 5 of 7" in told
    assert "univg data build SET --test 0.4" in told
    assert sum(1 for side in ("train", "test") for _ in read_jsonl(tmp_path / "b" / f"{side}.jsonl")) == 7


def test_a_folder_needs_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `build` wrote lies beside its pictures; a detection folder holds them."""
    folder, few = tmp_path / "set", ("-n", 3, "--family", "region")
    file = save_set(folder, "sound")
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "build", file, "--images", folder / "images", "--out", "tasks", *few)[0] == 0
    for number, path in enumerate((tmp_path / "tasks/samples.jsonl", Path("tasks/samples.jsonl"), folder)):
        code, _, error = call(capsys, "show", path, "--out", f"{number}.png")
        assert (code, error) == (0, "") and Path(f"{number}.png").is_file()
    code, told, _ = call(capsys, "split", folder, "--out", "split", "--test", 0.3)
    assert code == 0 and "compared by file content" in told
    assert f"next: univg data build split/train.json --images {folder} --out tasks" in told
    code, told, _ = call(capsys, "build", "split/train.json", "--images", folder, "--out", "t2", *few)
    assert code == 0 and "3 samples" in told


def test_what_is_replaced_is_said_and_what_is_read_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, images = save_set(tmp_path, "sound"), ("--images", tmp_path / "images")
    for verb in (("convert", "--to", "jsonl"), ("show",), ("stats",), ("validate",)):
        out = tmp_path / ("x.png" if verb[0] in ("show", "stats") else f"{verb[0]}.jsonl")
        first, second = (call(capsys, *verb, file, *images, "--out", out)[1] for _ in range(2))
        assert f"{out} (replaced)" in second and (verb[0] == "stats" or "(replaced)" not in first)
    content = file.read_bytes()
    for verb in (("convert", "--to", "sharegpt"), ("show",), ("stats",), ("validate",)):
        code, _, error = call(capsys, *verb, file, *images, "--out", file)
        assert code == 2 and "this is what is read" in error and file.read_bytes() == content
