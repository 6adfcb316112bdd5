"""Rollouts by vLLM: it reads what the model reads, or the run is refused before it learns anything.

Those with vLLM itself are `slow`, and skipped where there is none (see `vllm_engine`).
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpo_parts as parts
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoImageProcessor, Qwen2VLForConditionalGeneration

from families import save_family
from univg.cli.main import main
from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.models.tiny import PIXEL_BUDGET, build_tiny, save_tiny, tiny_config
from univg.training.grpo.arguments import paper_arguments
from univg.training.grpo.rollouts import find_forbidden
from univg.training.grpo.trainer import GroundingGRPOTrainer
from univg.training.grpo.vllm import Agreement, EngineCheck, Prompts, collapse, engine_folder, find_runs_of
from vllm_engine import PATIENCE_S, PYTHON, answer_in_vllm, require, running, serving

MARK, STORED, ASKED = 9, PixelBudget(3600, 14400), PixelBudget(3600, 8000)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2-VL whose rotary embeddings are Qwen2-VL's own, since vLLM has no others; its generation config
    asks for sampling that would change every probability."""
    _, processor = build_tiny(pixel_budget=STORED)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 9, 9]}
    config = tiny_config(processor.tokenizer, {**parts.SMALL_TEXT, "rope_parameters": rope})
    config.vision_config.rope_parameters = {"rope_type": "axial", "rope_theta": 10000.0}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        # vLLM's probabilities are among the tokens that may be drawn, the model's among all: a trained model gives
        # the others none either.
        text: Any = model.model.language_model
        text.embed_tokens.weight[find_forbidden(model, processor)] *= 0.01
        text.norm.weight.mul_(7)
    folder = tmp_path_factory.mktemp("start") / "tiny"
    save_tiny(model, processor, folder)
    stated = {"eos_token_id": processor.tokenizer.eos_token_id, "pad_token_id": 0, "do_sample": True}
    stated |= {"temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(stated))
    return folder


# --- one mark an image ---

words = st.lists(st.integers(0, MARK - 1), min_size=1, max_size=5)
images = st.lists(st.tuples(words, st.integers(1, 40)), max_size=6)


@given(images, words)
def test_an_images_run_becomes_one_mark_and_nothing_else_changes(
    before: list[tuple[list[int], int]], last: list[int]
) -> None:
    expanded = [token for text, count in before for token in (*text, *[MARK] * count)] + last
    marked = [token for text, _ in before for token in (*text, MARK)] + last
    assert collapse(expanded, MARK) == marked == collapse(marked, MARK)
    assert find_runs_of(MARK, expanded) == [count for _, count in before]


# --- the verdict ---


@pytest.mark.parametrize(
    ("mode", "agreement", "said"),
    [
        ("colocate", Agreement(Prompts(8, 0, 2048, 2048), 0.003, 0.99), None),
        ("colocate", Agreement(Prompts(8, 0, 2048, 2048)), None),
        ("server", Agreement(Prompts(8, 0, 2048, 2048), 0.1, 0.5), None),
        (
            "colocate",
            Agreement(Prompts(8, 3, 2048, 2608), 0.79, 0.07),
            "3 of 8 differ; 2048 prompt tokens sent, 2608 read; mean |Δ log p| 0.790, importance ratio 0.07",
        ),
        ("server", Agreement(Prompts(8, 1, 2048, 2048)), "--mm-processor-kwargs {}"),
        ("colocate", Agreement(Prompts(8, 0, 2048, 2048), 0.101, 0.9), "at most 0.1 is rounding"),
        ("server", Agreement(Prompts(8, 0, 2048, 2048), 0.5, 0.1), "--logprobs-mode processed_logprobs"),
        ("colocate", Agreement(Prompts(8, 0, 2048, 2048), float("nan"), 1.0), "vllm=off"),
    ],
)
def test_an_engine_that_reads_or_reckons_otherwise_is_refused(
    mode: str, agreement: Agreement, said: str | None
) -> None:
    if said is None:
        agreement.check(mode, 0.1, "--mm-processor-kwargs {}")
        return
    with pytest.raises(UnivgError) as error:
        agreement.check(mode, 0.1, "--mm-processor-kwargs {}")
    assert said in str(error.value) and f"vllm: {mode}" in str(error.value)


class WrongEngine:
    """Expands marks again, as vLLM does with runs, and draws one token of its own."""

    def __init__(self, again: int) -> None:
        self.again, self.asked = again, []

    def generate(self, prompts: Any, **settings: Any) -> list[Any]:
        self.asked += [each["prompt_token_ids"] for each in prompts]
        mark = self.mark
        return [
            SimpleNamespace(prompt_token_ids=[t for t in ids for _ in range(self.again if t == mark else 1)])
            for ids in self.asked
        ]

    mark = -1

    @property
    def llm_engine(self) -> Any:
        model = torch.nn.Linear(1, 1)
        return SimpleNamespace(
            model_executor=SimpleNamespace(
                driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=model))
            )
        )


@pytest.mark.parametrize(
    ("again", "said"), [(0, "vLLM reads other prompts"), (1, "log-probabilities are not")]
)
def test_the_trainer_stops_before_it_learns_from_a_wrong_engine(
    again: int, said: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are one token each here, so that an engine that expands nothing reads them rightly."""
    loaded = load(start, dtype="float32", device="cpu", pixel_budget=PixelBudget(400, 400))
    engine = WrongEngine(again)
    engine.mark = loaded.model.config.image_token_id

    class Generation:
        mode = "colocate"

        def __init__(self, **settings: Any) -> None:
            self.llm = engine

        def sync_weights(self) -> None: ...

        def generate(self, prompts: Any, images: Any, **settings: Any) -> Any:
            self.llm.generate([{"prompt_token_ids": ids} for ids in prompts])
            return prompts, [[70, 71] for _ in prompts], [[[-0.1], [-0.1]] for _ in prompts], None

    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", Generation)
    settings = {"prompts_per_step": 1, "rollouts": 2, "micro_batch": 2, "max_steps": 1}
    arguments = paper_arguments(tmp_path, use_vllm=True, use_cpu=True, **settings)
    for row in (rows := parts.ragged_rows()):
        row["images"] = [image.resize((20, 20)) for image in row["images"]]
    trainer = GroundingGRPOTrainer(
        loaded.model, None, arguments, rows, processing_class=loaded.processor, vllm_tolerance=0.2
    )
    before = [weight.clone() for weight in trainer.model.parameters()]
    with pytest.raises(UnivgError, match=said):
        trainer.train()
    assert engine.asked and all(engine.mark in ids for ids in engine.asked)
    after = trainer.model.parameters()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_engine_that_has_packed_its_weights_away_is_refused(start: Path) -> None:
    loaded, engine = load(start, dtype="float32", device="cpu"), WrongEngine(1)
    packed = torch.nn.Linear(1, 1)
    packed.weight.data = torch.empty(0)
    runner = SimpleNamespace(model_runner=SimpleNamespace(model=packed))
    executor = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))
    generation = SimpleNamespace(mode="colocate", llm=SimpleNamespace(llm_engine=executor))
    with pytest.raises(UnivgError, match=r"packed its weights away.*use vLLM on a GPU"):
        EngineCheck(generation, loaded.model, loaded.processor, 0.1)
    assert EngineCheck(SimpleNamespace(mode="colocate", llm=engine), loaded.model, None, 0.1)


# --- what a run is refused for, before a model is loaded ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["vllm=colocate", "model={start}", "lora={{r: 4}}", "bf16=true"], "use bf16=false or vllm=off"),
        (["vllm=server", "model={nine}"], "nine: its rotary embedding has more than 3 sections"),
    ],
)
def test_what_vllm_cannot_do_is_said(
    settings: list[str],
    said: str,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    spec = importlib.util.spec_from_loader("vllm", loader=None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "vllm" else find(name))
    nine = shutil.copytree(start, tmp_path / "nine")
    config = json.loads((nine / "config.json").read_text())
    config["rope_scaling"]["mrope_section"] = [2, 3, 3] * 3
    (nine / "config.json").write_text(json.dumps(config))
    asked = [each.format(start=start, nine=nine) for each in settings]
    assert main(["grpo", "--config", "tiny-grpo", "--out", str(tmp_path / "run"), *asked]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grpo", "--config", "tiny-grpo", "--out", str(tmp_path), "vllm=colocate"]) == 2
    assert "error: vLLM is not installed: vllm: colocate: pip install" in capsys.readouterr().err


# --- the pixel budget ---


@pytest.mark.parametrize(("budget", "linked"), [(ASKED, True), (STORED, False)])
def test_the_engine_finds_the_runs_pixel_budget_in_its_checkpoint(
    budget: PixelBudget, linked: bool, start: Path
) -> None:
    loaded = load(start, dtype="float32", device="cpu", pixel_budget=budget)
    with engine_folder(loaded.model, loaded.processor) as kept:
        name = loaded.model.name_or_path
        assert (name != str(start)) == linked == (kept is not None)
        size = AutoImageProcessor.from_pretrained(name).size
        assert (size["shortest_edge"], size["longest_edge"]) == (budget.min_pixels, budget.max_pixels)
        assert (Path(name) / "model.safetensors").samefile(start / "model.safetensors")
    assert loaded.model.name_or_path == str(start)


def test_a_newer_checkpoint_states_its_budget_in_another_file(start: Path, tmp_path: Path) -> None:
    """transformers reads `processor_config.json` first where it holds the image processor."""
    loaded = load(start, dtype="float32", device="cpu", pixel_budget=ASKED)
    stored = json.loads((start / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": stored}))
    (tmp_path / "config.json").write_bytes((start / "config.json").read_bytes())
    loaded.model.name_or_path = str(tmp_path)
    with engine_folder(loaded.model, loaded.processor):
        processor = AutoImageProcessor.from_pretrained(loaded.model.name_or_path)
    assert processor.size["longest_edge"] == ASKED.max_pixels


# --- vLLM itself ---

RUN = ["grpo", "--config", "tiny-grpo", "max_steps=2", "prompts_per_step=3", "rollouts=4", "micro_batch=12"]
RUN += ["max_completion_tokens=24", "max_tokens=1200", "bf16=false", "rollout_page_every=0"]
# One, three and six images, of two sizes; larger than the budget, so that they are resized.
RUN += ["data=[{reader: world, families: [referring, common_object, object_tracking], image_px: 150}]"]


@pytest.fixture
def univg(start: Path, tmp_path: Path) -> Callable[..., Any]:
    """`univg(*settings, processes=1, **environment)`: (exit status, what was printed) of a run with vLLM, in processes
    of its own."""
    require()

    def run(*settings: str, processes: int = 1, **added: str) -> tuple[int, str]:
        program = Path(__file__).with_name("vllm_parts.py")
        launch = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"] if processes > 1 else []
        command = [PYTHON, *launch, str(program), *RUN, f"model={start}", *settings]
        command += ["--out", str(tmp_path / "run")]
        with running(command, tmp_path / "printed", **{"VLLM_DTYPE": "float32", **added}) as process:
            process.wait(PATIENCE_S)
        return process.returncode, (tmp_path / "printed").read_text()

    return run


def _read_figures(printed: str) -> tuple[int, int, float, float]:
    said = r"(\d+) prompt tokens sent, (\d+) read; mean \|Δ log p\| ([\d.]+), importance ratio ([\d.]+)"
    found = re.search(said, printed)
    assert found, printed[-3000:]
    return int(found[1]), int(found[2]), float(found[3]), float(found[4])


DIFFERENCE, RATIO = "sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio"
OTHER_BUDGET = f"pixel_budget={{min_pixels: {ASKED.min_pixels}, max_pixels: {ASKED.max_pixels}}}"


LEARNS = ("model=embedded-think", "max_completion_tokens=96", "max_steps=3", "learning_rate=2e-3")
"""Of random models every rollout is worth nothing, so that nothing is learnt of them: these learn at each step."""


def _read_steps(run: Path, lines: Callable[[Path], list[dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """The rows of a run of so many steps, at each of which something was learnt."""
    rows = lines(run / "log.jsonl")
    assert [row["step"] for row in rows] == list(range(1, count + 1))
    assert all(row["grad_norm"] > 0 for row in rows)
    return rows


@pytest.mark.slow
def test_vllm_in_process_reads_with_the_runs_pixel_budget(univg: Callable[..., Any]) -> None:
    """Images of several sizes, several a prompt."""
    status, printed = univg("vllm=colocate", OTHER_BUDGET, "max_steps=1")
    assert status == 0, printed[-3000:]
    sent, read, difference, ratio = _read_figures(printed)
    assert sent == read and difference <= 0.001 and 0.98 < ratio < 1.02


@pytest.mark.slow
def test_a_loras_weights_arrive_at_vllm_in_process(
    univg: Callable[..., Any], tmp_path: Path, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    status, printed = univg("vllm=colocate", *LEARNS, "lora={r: 4}", "learning_rate=1e-2")
    assert status == 0, printed[-3000:]
    rows = _read_steps(tmp_path / "run", lines, 3)
    assert all(row[DIFFERENCE] < 0.002 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_vllm_in_process_reads_and_reckons_as_each_family(
    family: str, univg: Callable[..., Any], tmp_path: Path
) -> None:
    """Random models with the published processors; what they give tokens that may not be drawn is the difference."""
    model = save_family(tmp_path / family, family, tied=False, pixels=(4096, 16384))
    status, printed = univg("vllm=colocate", f"model={model}", "max_steps=1")
    assert status == 0, printed[-3000:]
    sent, read, difference, ratio = _read_figures(printed)
    assert sent == read and difference <= 0.02 and 0.8 < ratio < 1.2


@pytest.mark.slow
def test_the_embedded_model_learns_from_rollouts_that_vllm_draws_with_its_newest_weights(
    univg: Callable[..., Any], tmp_path: Path, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """The engine's answer changes with the weights, its log-probabilities stay the model's, no vision token is drawn,
    and what is saved loads in vLLM."""
    status, printed = univg("vllm=colocate", *LEARNS, PROBED=str(tmp_path / "probed"))
    assert status == 0, printed[-3000:]
    rows = _read_steps(tmp_path / "run", lines, 3)
    assert all(row[DIFFERENCE] < 0.002 and 0.95 < row[f"{RATIO}/mean"] < 1.05 for row in rows)
    probed = json.loads((tmp_path / "probed").read_text())
    answers = probed["answers"]
    assert len(answers) >= 3 and len({str(answer) for answer in answers}) > 1
    loaded = load("embedded-think", device="cpu")
    assert probed["drawn"] and not set(find_forbidden(loaded.model, loaded.processor)) & set(probed["drawn"])
    [text] = answer_in_vllm([tmp_path / "run"], tmp_path)
    assert text


@pytest.mark.slow
def test_with_old_weights_vllm_reckons_otherwise_and_the_log_says_so(
    univg: Callable[..., Any], tmp_path: Path, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """What the test before this one would have seen, had nothing been handed over; and TRL's correction bounds it."""
    bounded = (
        "trainer.vllm_importance_sampling_mode=token_truncate",
        "trainer.vllm_importance_sampling_clip_max=1.5",
    )
    status, printed = univg("vllm=colocate", *LEARNS, *bounded, STALE="1")
    assert status == 0, printed[-3000:]
    rows = _read_steps(tmp_path / "run", lines, 3)
    assert rows[0][DIFFERENCE] < 0.002 < 0.01 < rows[-1][DIFFERENCE]
    assert rows[-1][f"{RATIO}/max"] == pytest.approx(1.5)


@pytest.mark.slow
def test_in_bf16_and_not_corrected_the_first_rollouts_are_compared_all_the_same(
    univg: Callable[..., Any], tmp_path: Path, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    off = ("trainer.vllm_importance_sampling_correction=false", "max_steps=2")
    status, printed = univg("vllm=colocate", *off, VLLM_DTYPE="bfloat16")
    assert status == 0, printed[-3000:]
    sent, read, difference, _ = _read_figures(printed)
    assert sent == read and difference <= 0.05
    rows = lines(tmp_path / "run" / "log.jsonl")
    assert [any(name.startswith("sampling/") for name in row) for row in rows] == [True, False]


@pytest.mark.slow
def test_vllm_in_process_is_refused_where_it_expands_images_again(
    univg: Callable[..., Any], tmp_path: Path
) -> None:
    status, printed = univg("vllm=colocate", EXPANDED="1")
    assert status == 2 and "vLLM reads other prompts than the model: 12 of 12 differ" in printed
    sent, read, difference, ratio = _read_figures(printed)
    assert read > sent and difference > 0.01 and ratio < 0.9
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server, as docs/training.md starts it, but for how weights come; its address."""
    require()
    model = checkpoint.locate("embedded-think").folder
    pixels = {"min_pixels": PIXEL_BUDGET.min_pixels, "max_pixels": PIXEL_BUDGET.max_pixels}
    options = ["--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--max-model-len", "1200"]
    options += ["--weight-transfer-config", '{"backend": "gloo"}', "--worker-extension-cls"]
    options += ["gloo_weights.Extension", "--mm-processor-kwargs", json.dumps(pixels)]
    options += ["--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1", "--port", "{port}"]
    command = [PYTHON, "-m", "vllm.entrypoints.cli.main", "serve", str(model), *options]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving(command, log, VLLM_SERVER_DEV_MODE="1") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_vllm_server_reads_and_reckons_as_the_model(
    processes: int,
    univg: Callable[..., Any],
    vllm_server: str,
    lines: Callable[[Path], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Trained weights go to it over gloo, or later steps would differ. Pictures of all processes are sent by one."""
    asked = ("vllm=server", f"trainer.vllm_server_base_url={vllm_server}", *LEARNS, "prompts_per_step=4")
    status, printed = univg(*asked, processes=processes)
    assert status == 0, printed[-3000:]
    sent, read, difference, ratio = _read_figures(printed)
    assert sent == read and difference <= 0.001 and 0.98 < ratio < 1.02
    assert all(row[DIFFERENCE] < 0.002 for row in _read_steps(tmp_path / "run", lines, 3))


@pytest.mark.slow
def test_a_vllm_server_with_another_pixel_budget_is_refused(
    univg: Callable[..., Any], vllm_server: str
) -> None:
    asked = ("vllm=server", f"trainer.vllm_server_base_url={vllm_server}", "model=embedded-think")
    status, printed = univg(*asked, OTHER_BUDGET)
    assert status == 2 and "differ; " in printed
    assert (
        """start the server with --mm-processor-kwargs '{"min_pixels": 3600, "max_pixels": 8000}'"""
        in printed
    )


@pytest.mark.slow
def test_a_vllm_server_that_is_not_there_is_said(univg: Callable[..., Any]) -> None:
    asked = ("trainer.vllm_server_base_url=http://127.0.0.1:9", "trainer.vllm_server_timeout=1")
    status, printed = univg("vllm=server", *asked)
    assert status == 2 and "error: The vLLM server can't be reached at http://127.0.0.1:9" in printed
