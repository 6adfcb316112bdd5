"""Stage 1: what it learns, and that a run killed, torn, out of disk or out of numbers loses nothing silently."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from runs import QUIET, WEIGHTS, killed_at, same_weights
from univg.cli.main import main
from univg.config import load_config, save_config
from univg.errors import UnivgError
from univg.grounding.boxes import unit_to_permille
from univg.grounding.samples import read_jsonl
from univg.models.grounder import Grounder
from univg.models.loading import load
from univg.training.config import DataSource, LoraSettings, SftConfig
from univg.training.merging import merge
from univg.training.run.checkpoints import Checkpoints, find_last_good
from univg.training.run.log import read_rows
from univg.training.run.rows import StageRows
from univg.training.sft.stage import SftTrainer, Steps, train_sft


@pytest.fixture(scope="module")
def small(start: Path) -> SftConfig:
    return SftConfig(
        model=str(start),
        data=(DataSource(image_px=60),),
        max_steps=6,
        save_every=2,
        batch=4,
        micro_batch=2,
        learning_rate=1e-3,
        bf16=False,
        workers=0,
    )


@pytest.fixture(scope="module")
def finished(small: SftConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of `small`."""
    return train_sft(small, tmp_path_factory.mktemp("runs") / "whole", console=QUIET)


@pytest.fixture(scope="module")
def killed(small: SftConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `small` that ended in its sixth step, after two checkpoints. To be copied."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    with killed_at(5, small):
        train_sft(small, out, console=QUIET)
    return out


def changed(config: SftConfig, **values: Any) -> SftConfig:
    return config.model_validate(config.model_dump() | values)


def test_boxes_are_learnt_by_heart_without_a_shift(start: Path, published: Path, tmp_path: Path) -> None:
    """Prompt, pictures, template and frame are those of grounding, or the boxes would not come back."""
    config = SftConfig(
        model=str(start),
        data=(
            DataSource(reader="univg", path=str(published / "samples.jsonl"), images=str(published), count=2),
        ),
        max_steps=90,
        batch=2,
        micro_batch=2,
        learning_rate=1e-2,
        prompt_style="direct",
        bf16=False,
        workers=0,
        save_every=1000,
        trainer={"adam_beta2": 0.98},
    )
    out = train_sft(config, tmp_path / "heart", console=QUIET)
    grounder = Grounder.from_pretrained(out)
    samples = list(read_jsonl(published / "samples.jsonl"))[:2]
    for sample in samples:
        found = grounder.ground([published / name for name in sample.images], sample.query)
        assert found.fault is None
        assert found.boxes[0].box_permille == unit_to_permille(sample.boxes[0])


@pytest.mark.slow
def test_matrices_learn_by_muon_and_a_resumed_run_ends_the_same(small: SftConfig, tmp_path: Path) -> None:
    config = changed(small, matrix_learning_rate=1e-3, freeze_vision=False, max_steps=4)
    whole = train_sft(config, tmp_path / "whole", console=QUIET)
    with killed_at(3, config):
        train_sft(config, tmp_path / "killed", console=QUIET)
    assert same_weights(whole, train_sft(config, tmp_path / "killed", resume=True, console=QUIET))
    frozen = changed(config, matrix_learning_rate=1e-30, max_steps=2)
    weights = load_file(train_sft(frozen, tmp_path / "frozen", console=QUIET) / WEIGHTS)
    before = load_file(Path(small.model) / WEIGHTS)
    moved = {
        name for name, weight in weights.items() if not torch.equal(weight.float(), before[name].float())
    }
    assert any("embed_tokens" in name for name in moved) and any("norm" in name for name in moved)
    assert not any(name.endswith(("_proj.weight", "qkv.weight")) for name in moved)


@pytest.mark.slow
def test_a_process_killed_at_any_step_and_resumed_ends_with_the_same_weights(
    small: SftConfig, finished: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "killed", tmp_path / "small.yaml"
    save_config(changed(small, workers=1), file)
    command = [sys.executable, "-m", "univg", "sft", "--config", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    logged, deadline = random.randint(1, 5), time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "log.jsonl").exists() and (out / "log.jsonl").read_text().count("\n") >= logged:
            break
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train_sft(small, out, resume=True, console=QUIET)
    assert same_weights(finished, out), f"killed after step {logged}"
    steps = [row["step"] for row in read_rows(out / "log.jsonl")]
    assert steps == list(range(1, 7)), "every step is logged once"
    assert not (out / ".saving").exists()


def test_a_resumed_run_draws_each_sample_once_and_ends_with_the_same_weights(
    small: SftConfig, finished: Path, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, drawn = copytree(killed, tmp_path / "run"), []
    draw = StageRows.__getitem__
    monkeypatch.setattr(StageRows, "__getitem__", lambda rows, i: (drawn.append(i), draw(rows, i))[1])
    train_sft(small, out, resume=True, console=QUIET)
    assert drawn == list(range(16, 24)), "from checkpoint-4 on, four a step"
    assert same_weights(finished, out)
    steps = [row["step"] for row in read_rows(out / "log.jsonl")]
    assert steps == list(range(1, 7)), "every step is logged once"
    counts = [[row["num_tokens"] for row in read_rows(run / "log.jsonl")] for run in (finished, out)]
    assert counts[0] == counts[1] == sorted(counts[0]), "tokens are counted on from where the run was killed"
    assert not (out / ".saving").exists()


def test_ctrl_c_says_where_the_run_stopped(
    small: SftConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_config(small, tmp_path / "small.yaml")
    draw = StageRows.__getitem__

    def until(rows: StageRows, i: int) -> Any:
        if i >= 3 * small.batch:
            raise KeyboardInterrupt
        return draw(rows, i)

    monkeypatch.setattr(StageRows, "__getitem__", until)
    assert main(["sft", "--config", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")]) == 130
    assert capfd.readouterr().err.endswith("\nstopped at step 3: continue with --resume from checkpoint-2\n")


def test_what_is_of_no_use_is_told_before_the_plan_and_summed_up(
    small: SftConfig, published: Path, tmp_path: Path
) -> None:
    lines = (published / "samples.jsonl").read_text().splitlines()
    gone = dict(json.loads(lines[0]), images=["images/gone.png"] * len(json.loads(lines[0])["images"]))
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join([json.dumps(gone), *lines[1:7], lines[7][:99]]))
    source = DataSource(reader="univg", path=str(file), images=str(published))
    shown = io.StringIO()
    out = train_sft(
        changed(small, data=(source,), max_dropped=0.2, max_steps=2),
        tmp_path / "run",
        console=Console(file=shown, soft_wrap=True),
    )
    said = shown.getvalue().splitlines()
    assert said[0] == "opening data and model, drawing the first samples"
    assert said[1].startswith(f"data: {file}: pictures are missing for 1 of 7 samples looked at")
    assert said[2] == f"data: {file}: 1 of 8 records left out"
    assert said[3].startswith("  1 not_json, first univg#line 8: the file ends in the middle of this line")
    assert said[4].startswith("oracle: what is taught reads back on 6 samples (rounding leaves at least 0.9")
    assert said[5].startswith("4 samples a step")
    summed_up = "of 8 samples drawn, 1 left out for the next one, 0 with pictures shrunk: see "
    assert f"{summed_up}{out / 'left-out.jsonl'}" in said
    facts = json.loads((out / "run.json").read_text())
    assert facts["left_out_when_read"] == [{"file": str(file), "records": 8, "causes": {"not_json": 1}}]


@pytest.mark.slow
def test_lora_with_dropout_resumes_the_same_and_merges_to_the_same(small: SftConfig, tmp_path: Path) -> None:
    config = changed(
        small,
        lora=LoraSettings(r=4, dropout=0.2),
        bf16=True,
        gradient_checkpointing=True,
        learning_rate=1e-2,
        max_steps=4,
        trainer={"weight_decay": 0.1},
    )
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train_sft(config, whole, console=QUIET)
    with killed_at(3, config):
        train_sft(config, torn, console=QUIET)
    train_sft(config, torn, resume=True, console=QUIET)
    assert same_weights(whole, torn, "adapter_model.safetensors")
    for folder in (whole, whole / "checkpoint-4", torn):
        said = json.loads((folder / "adapter_config.json").read_text())
        assert said["base_model_name_or_path"] == config.model and said["revision"] is None
    for dtype in ("float32", "bfloat16"):
        report = merge(whole, tmp_path / ("merged" if dtype == "float32" else dtype), dtype=dtype)
        assert "read back, its weights and its answers to them are equal" in report
    merged, beside, base = (load(folder) for folder in (tmp_path / "merged", whole, config.model))
    weights = merged.model.state_dict()
    assert all(torch.allclose(weights[k], v, atol=1e-5) for k, v in beside.model.state_dict().items())
    moved = {k for k, v in base.model.state_dict().items() if not torch.equal(weights[k], v)}
    assert moved and all("language_model.layers" in name and "proj" in name for name in moved)
    with pytest.raises(UnivgError, match="a model is here already"):
        merge(whole, tmp_path / "merged")
    with pytest.raises(UnivgError, match=r"is a LoRA adapter.*univg merge"):
        train_sft(changed(config, model=str(whole)), tmp_path / "stacked", console=QUIET)


HUB_RUN = """
import json, sys
from pathlib import Path
from peft import AutoPeftModel
from transformers import AutoModelForImageTextToText
from univg.cli.main import main
from univg.models.loading import load

config, out = sys.argv[1:]
for name in ("org/start", "org/start@v2"):
    run = Path(out) / name.replace("/", "-")
    assert main(["sft", "--config", config, "--out", str(run), f"model={name}"]) == 0
    for folder in (run, run / "checkpoint-1"):
        said = json.loads((folder / "adapter_config.json").read_text())
        print(said["base_model_name_or_path"], said["revision"])
        assert load(folder).revision == ("b" if "@" in name else "a") * 40
    assert out not in (run / "adapter_config.json").read_text() + (run / "README.md").read_text()
    AutoPeftModel.from_pretrained(run)
    AutoModelForImageTextToText.from_pretrained(run)
"""


@pytest.mark.slow
def test_an_adapter_names_its_base_as_the_hub_does(small: SftConfig, start: Path, tmp_path: Path) -> None:
    """A hub's cache made by hand; univg, peft and transformers find the base by the name alone."""
    cached = tmp_path / "hub" / "models--org--start"
    (cached / "refs").mkdir(parents=True)
    for branch, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        copytree(start, cached / "snapshots" / commit)
        (cached / "refs" / branch).write_text(commit)
    save_config(changed(small, lora=LoraSettings(r=2), max_steps=1), tmp_path / "lora.yaml")
    command = [sys.executable, "-c", HUB_RUN, str(tmp_path / "lora.yaml"), str(tmp_path / "runs")]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HOME": str(tmp_path)}, check=False
    )
    assert ended.returncode == 0, ended.stderr
    names = [line for line in ended.stdout.splitlines() if line.startswith("org/")]
    assert names == ["org/start None"] * 2 + ["org/start v2"] * 2


def test_the_loss_is_the_steps_whatever_its_split(small: SftConfig, finished: Path, tmp_path: Path) -> None:
    a = load_file(finished / WEIGHTS)
    for micro_batch in (1, 4):
        config = changed(small, micro_batch=micro_batch)
        b = load_file(train_sft(config, tmp_path / str(micro_batch), console=QUIET) / WEIGHTS)
        assert all(torch.allclose(a[key], b[key], atol=2e-4) for key in a)


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_the_loss_on_a_cpu_is_trls(
    small: SftConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, Any] | None
) -> None:
    def rows(out: Path) -> list[dict[str, float]]:
        train_sft(changed(small, max_steps=2, bf16=True, lora=lora), out, console=QUIET)
        return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]

    ours = rows(tmp_path / "ours")
    monkeypatch.delattr(SftTrainer, "compute_loss")
    for mine, trls in zip(ours, rows(tmp_path / "trls"), strict=True):
        assert mine["num_tokens"] == trls["num_tokens"]
        for name in ("loss", "grad_norm", "entropy", "mean_token_accuracy"):
            assert mine[name] == pytest.approx(trls[name], rel=2e-2), name


def test_the_vision_tower_is_frozen_unless_it_is_set_free(
    small: SftConfig, finished: Path, tmp_path: Path
) -> None:
    free = train_sft(changed(small, freeze_vision=False, max_steps=1), tmp_path / "free", console=QUIET)
    before = load_file(Path(small.model) / WEIGHTS)

    def moved(folder: Path) -> set[str]:
        after = load_file(folder / WEIGHTS)
        return {
            "visual" if "visual" in k else "text"
            for k in after
            if not torch.equal(after[k], before[k].float())
        }

    assert moved(finished) == {"text"}
    assert moved(free) <= {"text", "visual"} and "visual" in moved(free)


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped", "unsealed"])
def test_a_torn_checkpoint_is_named_and_the_one_before_is_used(
    small: SftConfig, finished: Path, killed: Path, tmp_path: Path, damage: str
) -> None:
    out = copytree(killed, tmp_path / "torn")
    file = out / "checkpoint-4" / "optimizer.pt"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "missing":
        file.unlink()
    elif damage == "flipped":
        file.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        (out / "checkpoint-4" / "whole.json").unlink()
    last, reports = find_last_good(out)
    assert last == out / "checkpoint-2" and len(reports) == 1
    assert "torn checkpoint" in reports[0] and "checkpoint-4" in reports[0] and "\n" not in reports[0]
    if damage == "missing":
        train_sft(small, out, resume=True, console=QUIET)
        assert same_weights(finished, out)
        assert find_last_good(out) == (out / "checkpoint-6", []), "the torn one was replaced"


def test_when_all_are_torn_nothing_is_started_over_silently(small: SftConfig, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.raises(UnivgError, match="every checkpoint is torn"):
        train_sft(small, tmp_path, resume=True, console=QUIET)


@pytest.mark.parametrize(("freeze_vision", "limit"), [(True, 100_000), (False, 6_000_000)])
def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
    small: SftConfig, finished: Path, tmp_path: Path, full_disk: Any, freeze_vision: bool, limit: int
) -> None:
    """Of the second checkpoint the weights cannot be written, or, where all are trained, the optimizer's state."""
    out, stack, config = tmp_path / "full", ExitStack(), changed(small, freeze_vision=freeze_vision)
    draw = StageRows.__getitem__

    def shrink_disk(rows: StageRows, i: int) -> Any:
        if i == 12:
            stack.enter_context(full_disk(limit))
        return draw(rows, i)

    said = r"checkpoint 4 cannot be written.*make room; continue with"
    with pytest.MonkeyPatch.context() as patch, stack:
        patch.setattr(StageRows, "__getitem__", shrink_disk)
        with pytest.raises(UnivgError, match=said) as error:
            train_sft(config, out, console=QUIET)
    assert "\n" not in str(error.value) and "enforce" not in str(error.value)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2"]
    assert not (out / ".saving").exists()
    train_sft(config, out, resume=True, console=QUIET)
    assert same_weights(finished, out) == freeze_vision


def test_a_finished_model_that_cannot_be_written_is_one_line(
    small: SftConfig, killed: Path, tmp_path: Path, full_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stack, write = copytree(killed, tmp_path / "full"), ExitStack(), Checkpoints.write

    @contextmanager
    def shrink_disk(kept: Checkpoints, args: Any, step: int) -> Iterator[Path]:
        with write(kept, args, step) as folder:
            yield folder
        stack.enter_context(full_disk(100_000))

    monkeypatch.setattr(Checkpoints, "write", shrink_disk)
    said = r"the finished model cannot be written .*continue with --resume from checkpoint-6"
    with stack, pytest.raises(UnivgError, match=said):
        train_sft(small, out, resume=True, console=QUIET)
    assert not (out / WEIGHTS).exists()


def test_a_loss_that_is_no_longer_finite_stops_with_the_batch(small: SftConfig, tmp_path: Path) -> None:
    wild = changed(small, learning_rate=1e30, trainer={"lr_scheduler_type": "constant"})
    with pytest.raises(UnivgError, match=r"is (nan|inf)") as error:
        train_sft(wild, tmp_path, console=QUIET)
    saved = list((tmp_path / "non-finite").glob("*.pt"))
    assert len(saved) == 1 and str(saved[0]) in str(error.value)
    content = torch.load(saved[0], weights_only=True)
    assert content["batches"][0]["input_ids"].ndim == 2
    assert all(name.startswith("world#") for batch in content["samples"] for name in batch)
    assert not (tmp_path / WEIGHTS).exists()


def test_a_run_is_neither_overwritten_nor_mixed_with_another(
    small: SftConfig, finished: Path, start: Path
) -> None:
    with pytest.raises(UnivgError, match="--resume"):
        train_sft(small, finished, console=QUIET)
    with pytest.raises(UnivgError, match=r"another config \(differs in learning_rate\)"):
        train_sft(changed(small, learning_rate=1e-5), finished, resume=True, console=QUIET)
    with pytest.raises(UnivgError, match="batch=4 is not a multiple of micro_batch=3"):
        train_sft(changed(small, micro_batch=3), finished, console=QUIET)
    with pytest.raises(UnivgError, match=r"lora.target: no linear layer named 'k_prj'"):
        train_sft(changed(small, lora={"target": ["k_prj"]}), start.parent / "x", console=QUIET)


def test_beside_the_checkpoints_stands_what_they_were_made_of(small: SftConfig, finished: Path) -> None:
    assert load_config(SftConfig, finished / "resolved.yaml") == small
    facts = json.loads((finished / "run.json").read_text())
    assert (
        len(facts["data_digest"]) == 64
        and facts["steps"] == 6
        and facts["versions"]["trl"].startswith("1.16")
    )
    card = (finished / "README.md").read_text()
    assert facts["data_digest"] in card and "micro_batch: 2" in card and "trl 1.16" in card
    names = sorted(path.name for path in finished.glob("checkpoint-*"))
    assert names == ["checkpoint-4", "checkpoint-6"], "two are kept"


def test_the_model_loads_everywhere(
    finished: Path, published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForImageTextToText

    plain = AutoModelForImageTextToText.from_pretrained(finished)
    ours = load(finished)
    assert ours.prompt_style == "think" and ours.pixel_budget.max_pixels == 3600
    weights = plain.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in ours.model.state_dict().items())
    assert load(finished / "checkpoint-6").prompt_style == "think", "a checkpoint on the way is a model too"
    picture = str(next((published / "images").iterdir()))
    arguments = [
        "ground",
        picture,
        "-q",
        "the dog",
        "--model",
        str(finished),
        "--json",
        "--max-new-tokens",
        "4",
    ]
    assert main(arguments) == 1, "four tokens hold no answer"
    assert json.loads(capfd.readouterr().out)["model"]


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "x")]
    for arguments, said in [
        (
            ["sft", "--config", "tiny-sft", "max_step=3", *out],
            "unknown key 'max_step'; did you mean 'max_steps'",
        ),
        (["sft", "--config", "tiny-sft", "model=nowhere", *out], "no such folder: nowhere"),
        (["sft", "--config", "tiny-sft", "trainer.optm=x", *out], "did you mean 'optim'"),
        (["merge", str(tmp_path), *out], "not a LoRA adapter"),
    ]:
        assert main(arguments) == 2
        error = capfd.readouterr().err
        assert said in error and error.count("\n") == 1


def test_the_processes_share_a_step_between_them(small: SftConfig) -> None:
    rows = StageRows(small, load(small.model).processor, 2 * small.batch)
    alone = Steps(small, rows, 0, 1)[1]
    shares = [Steps(small, rows, rank, 2)[1] for rank in range(2)]
    drawn = [sorted(name for part in share.parts for name in part.samples) for share in (alone, *shares)]
    assert sorted(drawn[1] + drawn[2]) == drawn[0] and len(drawn[1]) == len(drawn[2]) == 2


def test_a_run_goes_on_as_it_was_divided_and_with_its_data(
    small: SftConfig, killed: Path, tmp_path: Path
) -> None:
    out = copytree(killed, tmp_path / "run")
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(facts | {"processes": 2, "division": "ZeRO-2"}))
    with pytest.raises(
        UnivgError, match="began under ZeRO-2 and would go on with whole weights in each process"
    ):
        train_sft(small, out, resume=True, console=QUIET)
    (out / "run.json").write_text(json.dumps(facts | {"data_digest": "0" * 64}))
    with pytest.raises(UnivgError, match="data is not what the run began with"):
        train_sft(small, out, resume=True, console=QUIET)


def test_a_run_goes_on_from_the_start_model_it_began_with(
    small: SftConfig, start: Path, tmp_path: Path
) -> None:
    """Its weights are GRPO's reference, and what an adapter stands on: no checkpoint of the run holds them."""
    begun = copytree(start, tmp_path / "start")
    config, out = changed(small, model=str(begun)), tmp_path / "run"
    with killed_at(3, config):
        train_sft(config, out, console=QUIET)
    weights = (begun / WEIGHTS).read_bytes()
    middle = len(weights) // 2
    (begun / WEIGHTS).write_bytes(weights[:middle] + bytes([weights[middle] ^ 1]) + weights[middle + 1 :])
    with pytest.raises(UnivgError, match=r"not what the run began with \(differs in model.safetensors\)"):
        train_sft(config, out, resume=True, console=QUIET)
    (begun / WEIGHTS).write_bytes(weights)
    train_sft(config, out, resume=True, console=QUIET)


def test_a_checkpoint_generates_with_a_cache(finished: Path) -> None:
    for folder in (finished, finished / "checkpoint-6"):
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True


def run_in_two_processes(config: SftConfig, out: Path) -> subprocess.CompletedProcess[str]:
    save_config(config, out.with_suffix(".yaml"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    command = ["-m", "univg", "sft", "--config", str(out.with_suffix(".yaml")), "--out", str(out), "--resume"]
    return subprocess.run(
        [sys.executable, *launch, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.slow
def test_two_processes_make_the_weights_of_one(small: SftConfig, finished: Path, tmp_path: Path) -> None:
    """Killed after a checkpoint whose successor is damaged in the middle of a file, both go on from the same one."""
    out, config = tmp_path / "two", changed(small, micro_batch=1)
    ended = run_in_two_processes(config, out)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("model: ") == 1
    one, two = load_file(finished / WEIGHTS), load_file(out / WEIGHTS)
    assert all(torch.allclose(one[key], two[key], atol=2e-4) for key in one)
    damaged = out / "checkpoint-6" / WEIGHTS
    content = damaged.read_bytes()
    middle = len(content) // 2
    damaged.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    ended = run_in_two_processes(config, out)
    assert ended.returncode == 0, ended.stderr
    assert "model.safetensors is damaged" in ended.stderr and "resuming from checkpoint-4" in ended.stderr
    again = load_file(out / WEIGHTS)
    assert all(torch.equal(two[key], again[key]) for key in two)


@pytest.mark.slow
def test_several_processes_save_bf16_too(small: SftConfig, tmp_path: Path) -> None:
    ended = run_in_two_processes(changed(small, micro_batch=1, bf16=True, max_steps=1), tmp_path / "two")
    assert ended.returncode == 0, ended.stderr
    assert {weight.dtype for weight in load_file(tmp_path / "two" / WEIGHTS).values()} == {torch.bfloat16}
    on_the_way = load_file(tmp_path / "two" / "checkpoint-1" / WEIGHTS)
    assert {weight.dtype for weight in on_the_way.values()} == {torch.float32}
    assert json.loads((tmp_path / "two" / "config.json").read_text())["dtype"] == "bfloat16"
