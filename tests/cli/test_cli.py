"""The command's edge: help without torch, exit codes, one process from arguments to answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import univg
from univg.cli import main as cli
from univg.errors import UnivgError

CALL = "import sys; from univg.cli.main import main; code = main(sys.argv[1:]);"


def call(
    *arguments: str, code: str = f"{CALL} sys.exit(code)", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], [], ["ground", "--help"], ["world", "-h"], ["pretrain", "--help"]]
)
def test_help_needs_nothing_heavy(arguments: list[str]) -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    done = call(*arguments, code=f"{CALL} print(sorted({heavy}), file=sys.stderr); sys.exit(code)")
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert "Usage: univg" in done.stdout


def test_help_comes_within_half_a_second() -> None:
    def seconds() -> float:  # of processor time: other programs may want the machine as well
        before = os.times()
        call("--help")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"univg {univg.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], 'Unknown command "nope"'),
        (["world"], "Missing option '--out'"),
        (["world", "--out", "w", "--n", "0"], "--n"),
        (["world", "--out", "w", "--difficulty", "2"], "--difficulty"),
        (
            ["world", "--out", "w", "--split", "nope"],
            'Invalid value "nope" for --split. Choose from: "train", "test", "unseen"',
        ),
        (["pretrain"], "Missing option '--config'"),
        (["pretrain", "--config", "nope.yaml"], "nope.yaml: no such config file"),
        (["pretrain", "--config", "tiny-base", "stepz=3"], "unknown key 'stepz'"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("error: ")
    assert line in told.err


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UnivgError("what: which: do this"), 2, "error: what: which: do this\n"),
        (UnivgError("first\nsecond"), 2, "error: first\nerror: second\n"),
        (
            UnivgError(
                "Caught UnivgError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x.py", line 1, in f\nunivg.errors.UnivgError: what: which: do this\n'
            ),
            2,
            "error: what: which: do this\n",
        ),
        (EOFError("end"), 1, "error: unexpected EOFError: end: set UNIVG_DEBUG=1 for the traceback\n"),
        (
            ZeroDivisionError("a\nb"),
            1,
            "error: unexpected ZeroDivisionError: a b: set UNIVG_DEBUG=1 for the traceback\n",
        ),
    ],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(command: Any) -> None:
        raise raised

    monkeypatch.delenv("UNIVG_DEBUG", raising=False)
    monkeypatch.setattr("univg.cli.ground._check_arguments", fail)
    assert cli.main(["ground", "a.png", "-q", "x"]) == code
    assert capsys.readouterr().err == line
    monkeypatch.setenv("UNIVG_DEBUG", "1")
    assert cli.main(["ground", "a.png", "-q", "x"]) == code
    told = capsys.readouterr().err
    assert told.lstrip().startswith("Traceback")
    assert told.endswith(line)


def test_a_whole_process(tiny: str, tmp_path: Path) -> None:
    """Arguments to answer, as a shell sees it: names beyond ASCII in a shell that has only that."""
    image = tmp_path / "Küche.png"
    Image.new("RGB", (60, 50), (200, 100, 0)).save(image)
    shared = ["ground", str(image), "-q", "Wo ist die Tür?", "--max-new-tokens", "3"]
    shared += ["--model", tiny, "--out", str(tmp_path / "out")]
    both = f"{CALL} sys.exit(main([*sys.argv[1:], '--json']))"
    done = call(*shared, code=both, PYTHONIOENCODING="ascii", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (1, ""), "three tokens hold no answer"
    *read, written = done.stdout.splitlines()
    assert "Pictures" in read
    assert json.loads(written)["pictures"] == [str(tmp_path / "out" / "Küche-grounded-2.png")]


def test_a_fault_of_a_whole_process(tmp_path: Path) -> None:
    done = call("ground", str(tmp_path / "nope.png"), "-q", "x", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no such file: {tmp_path / 'nope.png'}: check the path\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_ctrl_c_ends_quietly() -> None:
    code = (
        # A shell starts background jobs with Ctrl-C ignored, and the tests may be one of them.
        "import signal, sys, time, univg.cli.ground as g; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "g._check_arguments = lambda command: (print('ready', flush=True), time.sleep(60)); "
        f"{CALL} sys.exit(code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ground", "a.png", "-q", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told.strip()) == (130, "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of another kind")
def test_a_reader_that_leaves_early_is_no_news() -> None:
    code = (
        "import sys, univg.cli.ground as g; g._check_arguments = lambda r: (print('x' * 10**6), sys.exit(0));"
        + f"{CALL} sys.exit(code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ground", "a.png", "-q", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=30)


def test_world_writes_what_can_be_read_and_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg.grounding.samples import read_jsonl
    from univg.world import FAMILIES

    out = tmp_path / "deep" / "w"
    n = len(FAMILIES)
    arguments = ["--n", str(n), "--out", str(out), "--size", "64", "--split", "test", "--seed", "5"]
    assert cli.main(["world", *arguments]) == 0
    told = capsys.readouterr()
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert [sample.task for sample in samples] == list(FAMILIES)
    assert {name for sample in samples for name in sample.images} == {
        f"images/{p.name}" for p in (out / "images").iterdir()
    }
    for sample in samples:
        for name in sample.images:
            with Image.open(out / name) as image:
                assert max(image.size) <= 64
    with Image.open(out / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    assert told.out.startswith(f"{n} samples")
    assert str(out / "contact-sheet.png") in told.out
    before = (out / "samples.jsonl").read_bytes()
    assert cli.main(["world", *arguments]) == 0
    assert (out / "samples.jsonl").read_bytes() == before


def test_world_takes_families_and_a_difficulty(tmp_path: Path) -> None:
    from univg.grounding.samples import read_jsonl

    arguments = ["--n", "4", "--size", "48", "--difficulty", "0", "--family", "diff", "--family", "referring"]
    assert cli.main(["world", "--out", str(tmp_path), *arguments]) == 0
    samples = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert [sample.task for sample in samples] == ["diff", "referring"] * 2
    assert all(sample.extra["difficulty"] == 0 for sample in samples)


def test_world_replaces_its_own_samples_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg.grounding.samples import read_jsonl

    def draw(seed: int) -> int:
        return cli.main(["world", "--out", str(tmp_path), "--n", "2", "--size", "48", "--seed", str(seed)])

    assert draw(0) == draw(1) == 0
    samples = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert sorted(f"images/{path.name}" for path in (tmp_path / "images").iterdir()) == sorted(
        name for sample in samples for name in sample.images
    )
    (tmp_path / "samples.jsonl").unlink()  # as after a run that was killed
    assert draw(2) == 0
    capsys.readouterr()
    (tmp_path / "images" / "holiday.png").touch()
    before = sorted(tmp_path.rglob("*"))
    assert draw(3) == 2
    assert "the folder holds something else (images/holiday.png)" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "images" / "holiday.png").unlink()
    (tmp_path / "samples.jsonl").write_text('{"images": ["mine.png"]}')
    assert draw(3) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--family", "nope"], "no such task family: --family nope: choose from diff, "),
        (["--out", "file"], "name another folder with --out"),
    ],
)
def test_faults_of_world_are_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert cli.main(["world", "--out", "w", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert line in told.err
    assert os.listdir() == ["file"]


PRETRAIN = """
phases: [{name: dense, steps: 2, mixture: {referring/describe: 1.0}}]
batch: 2
micro_batch: 2
image_px: 48
text: {num_hidden_layers: 3}
dense_layer: 2
box_layer: 3
card_samples: 1
workers: 0
eval_every: 0
"""


def test_pretrain_trains_refuses_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from univg.models.tiny import build_tiny, save_tiny

    save_tiny(*build_tiny(seed=1), tmp_path / "start")  # else a tokenizer would learn its merges first
    (tmp_path / "c.yaml").write_text(f"{PRETRAIN}start: {tmp_path / 'start'}\n")
    arguments = ["pretrain", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run"), "seed=7"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"checkpoint: {tmp_path / 'run'}\n"
    assert cli.main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume"]) == 0
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    capsys.readouterr()
    answer = ["ground", str(tmp_path / "a.png"), "-q", "Where?", "--model", str(tmp_path / "run"), "--json"]
    assert cli.main([*answer, "--max-new-tokens", "2"]) == 1, "two tokens hold no answer"
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "run")
