"""`univg data …` as a shell sees it: what is printed, what is written, and the exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from univg.cli import main as cli
from univg.data import fetching
from univg.data.fetching import HubFile, check_file
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl

SHARED = Path(__file__).parents[3] / "shared" / "data"
MIG, BCCD = SHARED / "mig_bench_original.json", SHARED / "bccd_voc"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `univg data …`."""
    code = cli.main(["data", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


def one(i: int, images: tuple[str, ...], **fields: Any) -> GroundingSample:
    given: dict[str, Any] = {
        "task": "diff",
        "boxes": [(0.1, 0.1, 0.5, 0.5)],
        "target_image": 0,
        "thought": "There.",
        "source": f"made#{i}",
    }
    return GroundingSample(images, f"Where is thing {i}?", **{**given, **fields})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Eight sound samples of two images each, as JSONL, with their images in `images`."""
    for i in range(8):
        for side in "ab":
            path = tmp_path / "images" / f"{i}{side}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (60, 40), (30 * i, 90, 40 if side == "a" else 200)).save(path)
    write_jsonl(tmp_path / "made.jsonl", [one(i, (f"{i}a.png", f"{i}b.png")) for i in range(8)])
    return tmp_path / "made.jsonl"


# --- validate ---


@pytest.mark.skipif(not MIG.exists(), reason="the public MIG-Bench annotations are not here")
def test_validate_finds_the_seven_bad_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "faults.jsonl"
    code, told, _ = call(capsys, "validate", MIG, "--out", out)
    assert code == 1
    assert "4295 samples of 5887 images, 0 unusable, 7 faults" in told
    faults = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(fault["record"], fault["kind"]) for fault in faults} == {
        *((f"mig_bench#common_object/{i}", "inverted_box") for i in (7, 105, 126, 163, 512)),
        *((f"mig_bench#common_object/{i}", "out_of_range") for i in (34, 703)),
    }
    assert all(fault["record"] in told and fault["usable"] for fault in faults)


def test_validate_a_sound_file(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, error = call(capsys, "validate", made, "--images", made.parent / "images")
    assert (code, error) == (0, "")
    assert "8 samples of 16 images, 0 unusable, no faults" in told


@pytest.mark.parametrize("how", [[], ["--headers-only"]])
def test_validate_finds_each_kind_of_fault(
    how: list[str], tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = made.parent / "images"
    (images / "text.png").write_text("no image")
    bad = [
        one(100, ("gone.png", "0a.png")),
        one(101, ("text.png",)),
        one(102, ("0a.png",), boxes=[(0.5, 0.1, 0.1, 0.5)]),
        one(103, ("0a.png",), boxes=[(0.5, 0.1, 0.5, 0.5)]),
        one(104, ("0a.png",), boxes=[(0.5, 0.1, 1.2, 0.5)]),
        one(105, ("0a.png",), boxes=[(50, 10, 120, 500)]),
        one(106, ("0a.png",), boxes=[(0.0005, 0.0001, 0.0009, 0.0009)]),
    ]
    path = tmp_path / "bad.jsonl"
    write_jsonl(path, [*read_jsonl(made), *bad])
    with path.open("a") as file:
        file.write('{"images": ["0a.png"], "query": " ", "task": "diff"}\n')
    out = tmp_path / "faults.jsonl"
    code, told, _ = call(capsys, "validate", path, "--images", images, "--out", out, "--max-tokens", 34, *how)
    assert code == 1
    faults = [json.loads(line) for line in out.read_text().splitlines()]
    by_kind: dict[str, set[str]] = {}
    for fault in faults:
        by_kind.setdefault(fault["kind"], set()).add(fault["record"].split("#")[1])
        assert fault["cause"] and fault["fix"]
        assert fault["kind"] in told
    # 60x40 pixels become 84x56: six tokens and two marks an image, a text of about six, the chat's twenty
    assert by_kind.pop("too_many_tokens") >= {str(i) for i in range(8)}
    assert by_kind == {
        "missing_image": {"100"},
        "bad_image": {"101"},
        "inverted_box": {"102"},
        "degenerate_box": {"103"},
        "out_of_range": {"104"},
        "wrong_scale": {"105", "106"},
        "empty_question": {"line 16"},
    }
    assert "15 samples of 18 images, 1 unusable" in told


def test_tags_are_counted_against_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [
        {"from": "human", "value": "<image>Where?"},
        {"from": "gpt", "value": "<answer>(1,2),(30,40)</answer>"},
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"conversations": turns, "images": ["a.png", "b.png"]}]))
    code, told, _ = call(capsys, "validate", path)
    assert code == 1 and "image_tags  cotsft#0: 1 <image> tag(s) for 2 image(s)" in told


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["validate", "none.json"], "no such file or folder: none.json: check the path"),
        (["validate", "a.json"], "an empty file: a.json"),
        (["validate", "a.json", "--format", "nope"], "no such format: --format nope: choose from univg"),
        (["validate", "made.jsonl", "--images", "none"], "no such folder: none"),
        (["validate", "made.jsonl", "--out", "none/x.jsonl"], "name another --out"),
        (
            ["validate", "made.jsonl", "--images", "images", "--min-pixels", "9", "--max-pixels", "3"],
            "--max-pixels",
        ),
        (["validate"], "Missing argument 'FILE'"),
        (["convert", "made.jsonl", "--to", "verl", "--out", "x.json"], "name it x.parquet"),
        (["convert", "made.jsonl", "--to", "nope", "--out", "x.json"], "for --to. Choose from"),
        (["convert", "made.jsonl", "--to", "trl", "--out", "x.jsonl", "--embed-images"], "--embed-images"),
        (["stats", "a.json"], "an empty file"),
        (
            ["stats", "made.jsonl", "--images", "images", "--tokenizer", "images"],
            "give a checkpoint's folder",
        ),
        (["show", "made.jsonl", "--images", "images", "--task", "nope"], "no sample of the task nope"),
        (["show", "made.jsonl", "--images", "images", "--out", "x.nope"], "name a .png file"),
        (["split", "made.jsonl", "--out", "x", "--test", "2"], "--test"),
        (["fetch", "nope"], "no such set: nope: choose from mig_bench"),
        (["build", "none", "--out", "x"], "no such file or folder: none"),
        (["build", "voc", "--out", "x", "--family", "nope"], "no such task family: --family nope"),
        (["build", "voc", "--out", "x"], "in this folder: voc"),
        (["build", "made.jsonl", "--out", "x", "--rename", "x"], "not of the form OLD=NEW"),
    ],
)
def test_usage_errors_are_one_line_and_write_nothing(
    arguments: list[str],
    line: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made.parent)
    Path("a.json").touch()
    Path("voc").mkdir()
    before = sorted(Path().rglob("*"))
    code, told, error = call(capsys, *arguments)
    assert (code, told) == (2, "")
    assert error.count("\n") == 1 and error.startswith("error: ") and line in error
    assert sorted(Path().rglob("*")) == before


# --- convert, split ---


@pytest.mark.parametrize("to", ["jsonl", "sharegpt", "llamafactory", "trl", "verl", "easyr1"])
def test_convert_and_back(to: str, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from univg.data.exports import SUFFIXES

    out, back = made.with_name(f"x{SUFFIXES[to]}"), made.with_name("back.jsonl")
    if out.suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    code, told, _ = call(capsys, "convert", made, "--to", to, "--out", out)
    assert code == 0 and f"8 samples  {out}" in told
    assert call(capsys, "convert", out, "--to", "jsonl", "--out", back)[0] == 0
    assert list(read_jsonl(back)) == list(read_jsonl(made))


def test_convert_tells_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [one(0, ("a.png",)), one(1, ("a.png",), thought=None)])
    code, told, _ = call(capsys, "convert", path, "--to", "sharegpt", "--out", tmp_path / "x.json")
    assert code == 1
    assert "1 samples" in told and "no_thought  made#1" in told and "--style direct" in told
    assert len(json.loads((tmp_path / "x.json").read_text())) == 1


def test_split_shares_no_picture(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = made.parent / "images"
    (images / "copy.png").write_bytes((images / "0a.png").read_bytes())
    samples = [*read_jsonl(made), one(8, ("copy.png",)), one(9, ("1a.png",))]
    write_jsonl(made, samples)
    for by_content in (False, True):
        extra = ["--images", images] if by_content else []
        for seed in range(6):
            out = made.parent / f"split-{seed}-{by_content}"
            code, told, _ = call(capsys, "split", made, "--out", out, "--test", 0.4, "--seed", seed, *extra)
            assert code == 0 and ("file content" in told) == by_content
            train, test = (list(read_jsonl(out / f"{side}.jsonl")) for side in ("train", "test"))
            assert sorted(s.source for s in train + test) == sorted(s.source for s in samples)
            assert 2 <= len(test) <= 4
            sides = [{name for s in side for name in s.images} for side in (train, test)]
            assert not sides[0] & sides[1]
            if by_content:
                assert any({"0a.png", "copy.png"} <= side for side in sides)


def test_a_split_of_nothing_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "i.json"
    path.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []})
    )
    code, told, _ = call(capsys, "split", path, "--format", "coco", "--out", tmp_path / "split")
    assert code == 1 and "0 photographs" in told


# --- stats, show ---


def test_stats_count_and_draw(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made.parent / "s.png"
    code, told, _ = call(capsys, "stats", made, "--images", made.parent / "images", "--out", out)
    assert code == 0
    assert "8 samples, 16 images, 0 records unusable" in told
    assert "8 with 2" in told and "diff" in told and "16.0%" in told
    # 84x56 pixels are six tokens of 28x28 and two marks, twice; the words by estimate; the chat's twenty
    assert "most:" in told and "(3136–401408 pixels)" in told
    with Image.open(out) as picture:
        assert picture.width > 1000 and picture.height > 400
    code, told, _ = call(capsys, "stats", made)
    assert code == 0 and "prompt tokens need the images" in told


def test_show_draws_a_sheet(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made.parent / "sheet.png"
    images = made.parent / "images"
    code, told, _ = call(capsys, "show", made, "--images", images, "--out", out, "-n", 4)
    assert code == 0 and str(out) in told
    with Image.open(out) as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
        assert picture.width > 800 and (235, 30, 99) in colours  # the box
    before = out.read_bytes()
    call(capsys, "show", made, "--images", images, "--out", out, "-n", 4)
    assert out.read_bytes() == before
    (images / "0a.png").unlink()
    code, told, _ = call(capsys, "show", made, "--images", images, "--out", out, "-n", 8)
    assert code == 1 and "not shown: made#0: no such file" in told


# --- fetch ---


def test_fetch_says_that_it_is_offline(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, error = call(capsys, "fetch", "mig_bench", "--yes")  # the tests are offline: HF_HUB_OFFLINE
    assert (code, told) == (2, "")
    assert error == (
        "error: offline (HF_HUB_OFFLINE is set): Michael4933/MIG-Bench: unset HF_HUB_OFFLINE where there is a network\n"
    )


def test_fetch_without_an_answer_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Api:
        def dataset_info(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(fetching, "_check_online", lambda repository: None)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    code, _, error = call(capsys, "fetch", "mig_bench")
    assert code == 2 and error.count("\n") == 1
    assert "the hub gave no answer (ConnectionError: no route to host)" in error


def test_fetch_shows_first_and_loads_and_checks_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = b"x" * 1500
    large = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest())
    files = [
        SimpleNamespace(rfilename="README.md", size=3, lfs=None),
        SimpleNamespace(rfilename="MIG_data.json", size=1500, lfs=large),
    ]
    asked: list[str] = []

    class Api:
        def dataset_info(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(sha="0123456789abcdef", siblings=files)

    def hand_over(repository: str, name: str, local_dir: Path, **_: object) -> str:
        asked.append(name)
        path = Path(local_dir, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if name.endswith(".json") else b"abc")
        return str(path)

    monkeypatch.setattr(fetching, "_check_online", lambda repository: None)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hand_over)
    out = tmp_path / "data"
    code, told, _ = call(capsys, "fetch", "mig_bench", "--out", out)
    assert (code, asked) == (0, [])
    assert "1.5 kB" in told and "2 files, 1.5 kB" in told and "nothing was downloaded" in told
    assert f"MIG_data.json  1.5 kB  {large.sha256[:20]}" in told and "revision 0123456789ab" in told
    assert told.index("MIG_data.json") < told.index("README.md")
    assert (
        "no file of Michael4933/MIG-Bench is called *.txt"
        in call(capsys, "fetch", "mig_bench", "--only", "*.txt")[2]
    )
    assert call(capsys, "fetch", "mig_bench", "--out", out, "--yes", "--only", "*.json")[0] == 0
    assert asked == ["MIG_data.json"]
    large.sha256 = "0" * 64
    code, _, error = call(capsys, "fetch", "mig_bench", "--out", out, "--yes")
    assert code == 2 and "SHA-256 is not the one the hub states" in error
    (out / "README.md").write_bytes(b"abc")
    with pytest.raises(UnivgError, match="3 bytes came of 4"):
        check_file(out / "README.md", HubFile("README.md", 4, None))
    assert call(capsys, "fetch")[1].count("\n") >= 7


# --- build ---


@pytest.mark.skipif(not BCCD.exists(), reason="the BCCD photographs are not here")
def test_build_from_real_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tasks"
    arguments = ["build", BCCD, "--out", out, "-n", 12, "--seed", 4, "--rename", "WBC=white blood cell"]
    code, told, _ = call(capsys, *arguments)
    assert code == 1  # two boxes enclose nothing, and are left out
    assert "12 samples" in told and "voc#BloodImage_00338@12" in told
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert [s.task for s in samples[:4]] == ["common_object", "region", "refer_grounding", "group_grounding"]
    assert any("white blood cell" in s.extra["category"] for s in samples)
    for sample in samples:
        for name in sample.images:
            with Image.open(out / name) as image:
                assert image.size == (640, 480) or "crops" in name
    assert call(capsys, "validate", out / "samples.jsonl", "--images", out)[0] == 0
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    first = (out / "samples.jsonl").read_bytes()
    code, _, told = call(capsys, *arguments)
    assert code == 2 and "tasks are here already" in told and (out / "samples.jsonl").read_bytes() == first
    again = tmp_path / "again"
    assert call(capsys, *[again if each is out else each for each in arguments])[0] == 1
    assert (again / "samples.jsonl").read_bytes() == first
    assert call(capsys, "build", BCCD, "--out", tmp_path / "other", "--rename", "cat=dog")[0] == 2


def test_build_tracks_through_folders_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for i in range(6):
        path = tmp_path / "frames" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (120, 80), (40 * i, 0, 0)).save(path)
        entries["images"].append({"id": i, "file_name": f"frames/{i:03d}.png", "width": 120, "height": 80})
        box = [10 + 5 * i, 20, 40, 40]
        entries["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({**entries, "categories": [{"id": 1, "name": "dog"}]}))
    out = tmp_path / "out"
    options = ["--family", "object_tracking", "-n", 5, "--link"]
    code, told, _ = call(capsys, "build", path, "--out", out, *options)
    assert code == 1 and "object_tracking: 0 of 5 tasks: no frames in order" in told
    code, _, _ = call(capsys, "build", path, "--out", out, "--ordered", *options)
    assert code == 0
    for sample in read_jsonl(out / "samples.jsonl"):
        frames = [int(Path(name).stem) for name in sample.images]
        assert frames == sorted(frames) and sample.target_image
        x1 = (10 + 5 * frames[sample.target_image]) / 120
        assert sample.boxes[0] == pytest.approx((x1, 0.25, x1 + 40 / 120, 0.75))
        assert (out / sample.images[0]).stat().st_nlink == 2


def test_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, told, _ = call(capsys, "formats")
    assert code == 0 and "mgrounding" in told and "convert --to: jsonl, sharegpt" in told


def test_help_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from univg.cli.main import main; main(['data', 'validate', '--help']); "
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'PIL', 'pyarrow', 'univg.data.readers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# --- sets ---


def test_validate_tells_what_is_not_known_of_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box, two = [[0.1, 0.2, 0.5, 0.6]], {"images": ["a.png", "b.png"], "task": "find_all"}
    records: list[dict[str, Any]] = [
        {**two, "query": "Every cup.", "boxes": box, "complete": True},
        {**two, "query": "Every cup in image 2.", "boxes": box, "complete": True},
        {**two, "query": "Every jug.", "boxes": box, "target_image": 0, "complete": True},
        {**two, "query": "Every dog.", "boxes": [], "complete": True},
        {**two, "query": "Every mug.", "boxes": []},
    ]
    path = tmp_path / "sets.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    out = tmp_path / "faults.jsonl"
    code, told, _ = call(capsys, "validate", path, "--out", out)
    assert code == 1 and [json.loads(line)["kind"] for line in out.read_text().splitlines()] == [
        "no_target_image"
    ]
    told = " ".join(told.split())
    assert "without a box, to be asked but not taught or scored: 1, first" in told
    assert 'if nothing of the kind is there, say "complete": true' in told
    code, told, _ = call(capsys, "validate", path, "--images", tmp_path)
    assert code == 1 and "0 unusable and 5 for a missing or bad image" in told
    assert "no sample is left" in told
