"""In two processes, launched in any way, a run learns what one process learns, and writes the same model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from launching import KINDS, RUNS, Launcher, list_weights, read_log
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

import vllm_engine
from families import save_family
from univg.models.loading import load
from univg.training.grpo.rollouts import find_forbidden

MATRIX = [(kind, what) for kind in KINDS if kind != "one" for what in RUNS]
SAME = ("loss", "grad_norm", "kl", "iou", "reward", "entropy", "completions/mean_length")
# Published names, vocabulary and processor; windows of attention, DeepStack.
FAMILY_MATRIX = [
    ("qwen2_vl", "zero2", "sft"),
    ("qwen2_5_vl", "fsdp2", "grpo"),
    ("qwen2_5_vl", "zero3", "sft"),
    ("qwen3_vl", "fsdp2", "grpo"),
    ("qwen3_vl", "zero3", "sft"),
]
Ran = Callable[..., Path]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def ran(launcher: Launcher, scaled: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return a run's folder by its launcher, what it trains, and the family if it is not ours; each is run once."""
    folder = tmp_path_factory.mktemp("runs")

    def find(kind: str, what: str, family: str = "") -> Path:
        begin, out = folder / f"{family}-start" if family else scaled, folder / f"{family}-{kind}-{what}"
        if family and not begin.exists():
            save_family(begin, family, pixels=(32 * 32, 64 * 64))
        if not out.exists():
            launcher.run(kind, [*RUNS[what], f"model={begin}"], out)
        return out

    return find


def test_bans_do_not_depend_on_weights_that_are_elsewhere(scaled: Path) -> None:
    """Under ZeRO-3 a process holds no row of the embedding; without bans an image token drawn ends the run."""
    loaded = load(scaled, device="cpu")
    whole = find_forbidden(loaded.model, loaded.processor)
    loaded.model.get_input_embeddings().weight = torch.nn.Parameter(torch.empty(0))
    assert find_forbidden(loaded.model, loaded.processor) == whole
    assert loaded.model.config.image_token_id in whole and len(whole) >= 10


def test_an_empty_model_is_the_model_without_its_numbers(scaled: Path) -> None:
    whole, empty = load(scaled, device="cpu"), load(scaled, device="cpu", empty=True)
    shapes = {name: (value.shape, value.dtype) for name, value in whole.model.state_dict().items()}
    assert {name: (value.shape, value.dtype) for name, value in empty.model.state_dict().items()} == shapes
    for (name, one), (_, other) in zip(whole.model.named_buffers(), empty.model.named_buffers(), strict=True):
        assert torch.equal(one, other), name
    weights = list(empty.model.parameters())
    assert len({weight.data_ptr() for weight in weights}) == len(weights), "accelerate tells them by address"
    assert empty.model.lm_head.weight is empty.model.get_input_embeddings().weight


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "what"), MATRIX)
def test_two_processes_learn_what_one_does(kind: str, what: str, ran: Ran) -> None:
    """The start model has learnt nothing: every token has its chance, image tokens too, were they not banned."""
    _compare(ran("one", what), ran(kind, what))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind", "what"), FAMILY_MATRIX)
def test_each_family_learns_divided_and_keeps_its_published_names(
    family: str, kind: str, what: str, ran: Ran
) -> None:
    alone, together = ran("one", what, family), ran(kind, what, family)
    _compare(alone, together)
    published = list_weights(alone.parent / f"{family}-start")
    for folder in (alone, together, together / "checkpoint-1"):
        assert list_weights(folder) == published, folder


@pytest.mark.slow
def test_vllm_reads_the_models_and_checkpoints_of_divided_runs(ran: Ran, tmp_path: Path) -> None:
    vllm_engine.require()
    folders = [
        ran(kind, what, family) / ("" if kind == "zero3" else "checkpoint-1")
        for family, kind, what in FAMILY_MATRIX
    ]
    # A few tokens: models that have learnt nothing repeat one until another is as likely, to the last digit.
    for folder, text in zip(folders, vllm_engine.answer_in_vllm(folders, tmp_path, tokens=4), strict=True):
        assert text == vllm_engine.answer_here(folder, tokens=4), folder


def _compare(alone: Path, together: Path) -> None:
    one, two = read_log(alone), read_log(together)
    assert len(one) == len(two) == 2
    for step, (each, other) in enumerate(zip(one, two, strict=True)):
        assert each["grad_norm"] > 1e-3, "where nothing is learnt nothing is compared"
        for name in set(SAME) & set(each):
            # What the first update did differs in the last bits; rollouts of the second step are drawn from it.
            apart = 1e-3 if step else 1e-4
            assert other[name] == pytest.approx(each[name], rel=1e-3, abs=apart), (step, name)
    (file,) = (path.name for path in alone.glob("*.safetensors"))
    first, second = load_file(alone / file), load_file(together / file)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "what"), MATRIX)
def test_every_launcher_writes_the_names_and_types_that_one_process_writes(
    kind: str, what: str, ran: Ran
) -> None:
    for folder in ("", "checkpoint-1", "checkpoint-2"):
        alone, together = list_weights(ran("one", what) / folder), list_weights(ran(kind, what) / folder)
        assert together == alone, folder
        assert {kind for kind, _ in together.values()} == {"F32"}
    if not what.endswith("lora"):
        assert {name.split(".")[0] for name in together} == {"model", "visual"}, "as Qwen2-VL was published"
        plain, found = AutoModelForImageTextToText.from_pretrained(
            ran(kind, what) / "checkpoint-2", output_loading_info=True
        )
        assert not found["missing_keys"] and not found["unexpected_keys"]
        assert plain.lm_head.weight is plain.get_input_embeddings().weight
    read = load(ran(kind, what) / "checkpoint-1", device="cpu")
    assert read.prompt_style == "think"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_a_sharded_run_goes_on_from_a_checkpoint_that_holds_the_weights_once(
    kind: str, scaled: Path, ran: Ran, launcher: Launcher, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = [*RUNS["sft"], f"model={scaled}", "--resume"]
    # transformers wants a GPU for bf16 where it does not know that it is on a processor.
    run += [] if kind == "zero3" else ["bf16=true"]
    launcher.run(kind, run, whole)
    shutil.copytree(whole, killed)  # as it was after its first checkpoint
    shutil.rmtree(killed / "checkpoint-2")
    (killed / "model.safetensors").unlink()
    told = launcher.run(kind, run, killed)
    assert "resuming from checkpoint-1" in told and "0.00 M parameters" not in told
    saved, again = (load_file(out / "model.safetensors") for out in (whole, killed))
    dtype = torch.float32 if kind == "zero3" else torch.bfloat16
    assert {weight.dtype for weight in saved.values()} == {dtype}
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    assert not list(whole.rglob("pytorch_model_fsdp*"))
    assert {*list_weights(whole), *list_weights(whole / "checkpoint-1")} == {*list_weights(ran("one", "sft"))}
    assert load(whole / "checkpoint-1", device="cpu").prompt_style == "think"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_a_divided_run_is_scored_while_it_learns_as_one_process_is(
    kind: str, ran: Ran, launcher: Launcher, tmp_path: Path
) -> None:
    """Each process gathers all weights and answers its share of the questions; then it learns on as before."""
    run = [*RUNS["sft"], "model=embedded-think", "validation.reader=world", "validation.n=6"]
    run += ["validation.every=1", "validation.keep_best=false", "validation.max_new_tokens=96"]
    for each in ("one", kind):
        launcher.run(each, run, tmp_path / each)
    one, two = (read_log(tmp_path / each) for each in ("one", kind))
    scored = [row for row in one if "validation/iou" in row]
    assert [row["step"] for row in scored] == [0, 1, 2] and scored[0]["validation/iou"] > 0.3
    for row, other in zip(one, two, strict=True):
        for name in {"validation/iou", "validation/acc_50", "validation/format", "loss"} & set(row):
            assert other[name] == pytest.approx(row[name], abs=2e-3), (row["step"], name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "before", "after", "processes"),
    [
        ("sft", "ddp", "one", 1),
        ("grpo", "one", "ddp", 2),
        ("grpo-lora", "ddp", "one", 1),
        ("sft", "fsdp2", "fsdp2", 4),
        ("sft-lora", "fsdp2", "fsdp2", 4),
    ],
)
def test_a_run_goes_on_in_another_number_of_processes(
    what: str,
    before: str,
    after: str,
    processes: int,
    scaled: Path,
    ran: Ran,
    launcher: Launcher,
    tmp_path: Path,
) -> None:
    whole, killed = ran(before, what), tmp_path / "killed"
    shutil.copytree(whole, killed)  # as it was after its first checkpoint
    shutil.rmtree(killed / "checkpoint-2")
    (file,) = (path.name for path in whole.glob("*.safetensors"))
    (killed / file).unlink()
    run = [*RUNS[what], f"model={scaled}", "--resume"]
    told = launcher.run(after, [*run, *(["micro_batch=1"] if processes == 4 else [])], killed, processes)
    assert f"process(es), not {processes}: the samples are the same" in told and "resuming from" in told
    _compare(ran("one", what), killed)
