"""Wrong settings of both stages: each is one line that names the key, what is wrong and what to do, before torch is
imported. What is passed on to TRL is compared with TRL's own list."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from univg.config import load_config
from univg.training.config import GrpoConfig, SftConfig
from univg.training.trainer_keys import PASSED
from univg.training.trainer_rules import IDLE, OWN

FILES = {
    "adapter/adapter_config.json": '{"base_model_name_or_path": "x"}',
    "llama/config.json": '{"model_type": "llama"}',
    "empty/x": "",
    "zero3.json": '{"zero_optimization": {"stage": 3}}',
    "a-file": "x",
    "nothing.jsonl": "",
    "broken.jsonl": '{"a": 1',
    "sft.yaml": "model: embedded\nbatch: 8\n",
    "grpo.yaml": "model: embedded\nprompts_per_step: 8\nrollouts: 4\n",
    "faulty.yaml": "model: embedded\ntrainer:\n  weight_decay: 0.1\n  num_train_epochs: 3\n",
    "theirs.py": """
THREE = 3
def text_weight(m): return "much"
def negative_weight(m): return -1.0
def failing_reward(completions, **columns): return [columns["nothing"]]
def short_reward(completions, **columns): return [1.0]
def none_reward(completions, **columns): return [None for _ in completions]
def nan_reward(completions, **columns): return [float("nan") for _ in completions]
def number_reward(completions, **columns): return 1.0
def text_reward(completions, **columns): return ["good" for _ in completions]
def narrow_reward(completions): return [1.0 for _ in completions]
""",
}

# what is wrong -> what is said of it
WRONG = {
    # types and ranges
    "sft learning_rat=1": "unknown key 'learning_rat'; did you mean 'learning_rate'?",
    "sft lora.rank=8": "did you mean 'lora.r'?",
    "sft batch=0": "batch: Input should be greater than 0",
    "sft batch=[1]": "batch: Input should be a valid integer",
    "grpo prompts_per_step=3x": "prompts_per_step: Input should be a valid integer",
    "grpo prompts_per_step=true": "prompts_per_step: Input should be a number, not true or false",
    "sft learning_rate=yes": "learning_rate: Input should be a number, not true or false",
    "sft learning_rate=-1e-5": "learning_rate: Input should be greater than 0",
    "sft learning_rate=.inf": "learning_rate: Input should be a finite number",
    "sft warmup_ratio=1.5": "warmup_ratio: Input should be less than or equal to 1",
    "sft save_every=2.5": "save_every: Input should be a valid integer",
    "sft workers=-1": "workers: Input should be greater than or equal to 0",
    "sft seed=99999999999999": "seed: Input should be less than",
    "sft max_steps=null": "max_steps: the world has no end",
    "sft freeze_vision=maybe": "freeze_vision: Input should be a valid boolean",
    "sft max_tokens=0": "max_tokens: Input should be greater than 0",
    "grpo max_tokens=100": "max_tokens: counts the rollout too, which may have max_completion_tokens=224: raise it",
    "sft pixel_budget.max_pixels=1": "pixel_budget.max_pixels: is below min_pixels=3136",
    "sft pixel_budget=1000": "pixel_budget: Input should be a mapping",
    # batches
    "sft batch=5 micro_batch=2": "batch=5 is not a multiple of micro_batch=2 × 1 process(es): use batch=4",
    "sft batch=2 micro_batch=4": "use batch=4",
    "grpo rollouts=1": "rollouts: Input should be greater than 1",
    "sft matrix_learning_rate=0": "matrix_learning_rate: Input should be greater than 0",
    "sft matrix_learning_rate=1e-3 trainer.optim=sgd": "it means Muon and AdamW, and trainer.optim=sgd: leave one",
    "sft matrix_learning_rate=1e-3 trainer.deepspeed=zero3.json": "matrix_learning_rate: Muon needs whole matrices",
    "sft trainer.deepspeed=none.json": "trainer.deepspeed: no such file: none.json",
    "grpo matrix_learning_rate=1e-3": "unknown key 'matrix_learning_rate'",
    # choices
    "sft prompt_style=thnk": "prompt_style: Input should be 'think', 'direct', 'simple', 'set', 'set_direct', 'json', ",
    "sft prompt_style=native": "native is json for Qwen2.5-VL and Qwen3-VL and marks for Qwen2-VL",
    "grpo loss_type=gpro": "loss_type: Input should be 'grpo', 'dr_grpo', ",
    "grpo scale_rewards=grp": "scale_rewards: Input should be 'group', 'batch' or 'none'",
    "grpo vllm=colocate": "vLLM is not installed: vllm: colocate: pip install 'trl[vllm]'",
    "grpo temperature=0": "temperature: Input should be greater than or equal to 0.00001",
    "grpo top_p=1.5": "top_p: Input should be less than or equal to 1",
    "grpo beta=-1": "beta: Input should be greater than or equal to 0",
    # adapters
    "sft lora=16": "lora: Input should be a mapping",
    "sft lora.dropout=1": "lora.dropout: Input should be less than 1",
    "sft lora.target=q_prj": "lora.target: no linear layer named 'q_prj': use 'all-linear-language' or some of ",
    "sft lora.target=[]": "lora.target: write all-linear-language or names of layers",
    "grpo lora.target=[lm_head]": "lora.target: the head cannot have an adapter",
    # the start
    "sft model=nowhere": "model: no such folder: nowhere: check the path, or give a hub name",
    "sft model=''": "model: String should have at least 1 character",
    "sft model=a-file": "model: this is a file, not a checkpoint",
    "sft model=empty": "model: not a checkpoint (no config.json)",
    "sft model=llama": "model: unknown model family 'llama': llama: known families are qwen2_vl",
    "sft model=adapter lora.r=2": "model: it is a LoRA adapter, and a new one cannot stand on it",
    "grpo model=adapter": "model: it is a LoRA adapter, so the reference of the KL term would be its base",
    # data
    "sft data=my.jsonl": "data: write a list of sources, such as [{reader: auto, path: FILE}]",
    "sft data=[]": "data: Input should not be empty",
    "sft data.1.weight=2": "which has no '1'",
    "sft data.0.reader=auto": "data.0.reader: reader 'auto' needs a path",
    "sft data.0.path=x.jsonl": "data.0.path: the world is drawn, not read",
    "sft data.0.images=x": "data.0.images: the world's pictures are drawn",
    "sft data.0.reader=cotsf data.0.path=a-file": "data.0.reader: no reader 'cotsf': did you mean 'cotsft'?",
    "sft data.0.reader=auto data.0.path=nowhere": "data.0.path: no such file or folder: nowhere",
    "sft data.0.reader=auto data.0.path=nothing.jsonl": "data.0.path: an empty file: nothing.jsonl",
    "sft data.0.reader=auto data.0.path=broken.jsonl": "data.0.path: no record with fields (the file ends",
    "sft data.0.reader=rl data.0.path=a-file data.0.images=nowhere": "data.0.images: no such folder: nowhere",
    "sft data.0.weight=0": "data.0.weight: Input should be greater than 0",
    "sft data.0.families=diff": "data.0.families: write a list, such as [diff], or shares, such as {diff: 1}",
    "sft data.0.families=[dif]": "data.0.families: no task family 'dif': did you mean 'diff'?",
    "sft data.0.families={diff: 0}": "data.0.families: shares are not negative, and one is above zero",
    "sft data.0.families=[]": "data.0.families: names no task family",
    "sft data.0.difficulty=0.5": "data.0.difficulty: write two numbers between 0 and 1, such as [0.0, 0.7]",
    "sft data.0.difficulty=[0.7,0.2]": "data.0.difficulty: write two numbers with 0 <= first <= second <= 1",
    "sft data.0.image_px=100000": "data.0.image_px: write pixels from 28 to 4096",
    # weights and rewards
    "grpo weighting=expp": "weighting 'expp': choose from exp, log, none, power (did you mean 'exp'?)",
    "grpo weighting=theirs.text_weight": "fails for a mean IoU of 0.0: could not convert string to float: 'much': take",
    "grpo weighting=theirs.negative_weight": "weights must be positive and finite",
    "grpo weighting=nowhere.weight": "put nowhere.py into ",
    "grpo weighting=theirs.THREE": "module theirs has no function 'THREE', only a int of that name",
    "grpo rewards={}": "rewards: no reward has a weight: give at least one",
    "grpo rewards={iou: 0, format: 0}": "rewards: no reward has a weight: give at least one",
    "grpo rewards={iou: .nan}": "rewards.iou: Input should be a finite number",
    "grpo rewards.iou=-1": "rewards.iou: a negative weight would reward missing the box",
    "grpo rewards.iou=true": "rewards: Input should be a number, not true or false",
    "grpo rewards.iuo=1": "reward 'iuo': choose from iou, set_f1, image, format (did you mean 'iou'?)",
    "grpo rewards.theirs.x=1": "rewards.theirs: Input should be a valid number",
    "grpo rewards={theirs.failing_reward: 1}": "fails on ground truth (KeyError: 'nothing')",
    "grpo rewards={theirs.short_reward: 1}": "gives 1 values for 2 rollouts on ground truth: return one each",
    "grpo rewards={theirs.none_reward: 1}": "no number for any ground truth, only None: add iou or format",
    "grpo rewards={theirs.nan_reward: 1}": "return finite numbers, or None",
    "grpo rewards={theirs.number_reward: 1}": "gives 1.0 for 2 rollouts on ground truth: return a list of 2 numbers",
    "grpo rewards={theirs.text_reward: 1}": "gives ['good', 'good'] on ground truth: return numbers, or None",
    "grpo rewards={theirs.narrow_reward: 1}": "let it take **columns",
    "grpo rewards={nowhere.reward: 1}": "put nowhere.py into ",
    # TRL's arguments: names, types and ranges
    "sft trainer.optm=x": "trainer.optm: TRL's SFT trainer has no such argument; did you mean 'optim'?",
    "sft trainer.weight_decay=much": "trainer.weight_decay: Input should be a valid number, got 'much'",
    "sft trainer.weight_decay=true": "trainer.weight_decay: Input should be a valid number, got True",
    "sft trainer.adam_beta1=2": "trainer.adam_beta1: Input should be less than 1",
    "sft trainer.optim=adam_torch": "trainer.optim: no such choice; did you mean 'adamw_torch'?",
    "sft trainer.optim=adamw_bnb_8bit": "trainer.optim: adamw_bnb_8bit needs bitsandbytes, which is not installed",
    "sft trainer.optim_args=a=1": "trainer.optim_args: does nothing here without an optim that reads them",
    "sft trainer.lr_scheduler_type=cosin": "trainer.lr_scheduler_type: no such choice; did you mean 'cosine'?",
    "sft trainer.lr_scheduler_kwargs={a: 1}": "lr_scheduler_kwargs.a: the schedule 'cosine' has no such setting",
    "sft trainer.report_to=tensorbord": "trainer.report_to: no such choice; did you mean 'tensorboard'?",
    "sft trainer.report_to=dvclive": "trainer.report_to: dvclive needs dvclive, which is not installed: pip install",
    "sft trainer.fp16=true": "trainer.fp16: bf16 is on too: set bf16: false, or leave it out",
    "sft trainer.deepspeed=nowhere.json": "trainer.deepspeed: no such file: nowhere.json",
    "sft trainer.fsdp=true": "trainer.fsdp: there is one process, and nothing to divide",
    "sft trainer.ddp_backend=glo": "trainer.ddp_backend: Input should be 'nccl', 'gloo'",
    "sft trainer.logging_steps=0": "trainer.logging_steps: Input should be greater than 0",
    "sft trainer.gradient_checkpointing_kwargs={a: 1}": "trainer.gradient_checkpointing_kwargs.a: Input should be",
    "grpo trainer.top_entropy_quantile=7": "trainer.top_entropy_quantile: Input should be less than or equal to 1",
    "grpo trainer.epsilon=-0.2": "trainer.epsilon: Input should be greater than or equal to 0",
    "grpo trainer.delta=0.5": "trainer.delta: Input should be greater than 1",
    "grpo trainer.mask_truncated_completions=3": "Input should be a valid boolean",
    # TRL's arguments that univg decides, or that do nothing
    "sft trainer.seed=3": "trainer.seed: univg decides it: use seed",
    "sft --config faulty.yaml": "faulty.yaml:4: trainer.num_train_epochs: univg decides it: use epochs, or max_steps",
    "sft trainer.packing=true": "does nothing here, because univg makes, orders and batches the rows itself; use data",
    "sft trainer.eval_steps=3": "does nothing here, because a run is scored by its answers, not by TRL; use validation",
    "sft trainer.hub_token=hf_x": "it would be saved with the run and its card; log in with hf auth login",
    "sft trainer.hub_model_id=a/b": "trainer.hub_model_id: does nothing here without trainer.push_to_hub: true",
    "grpo trainer.repetition_penalty=1.2": "trainer.repetition_penalty: does nothing here without vllm: colocate or",
    "grpo trainer.generation_kwargs={num_beams: 2}": "trainer.generation_kwargs: does nothing here without vllm",
    "grpo trainer.vllm_gpu_memory_utilization=0.5": "does nothing here without vllm: colocate",
    "grpo trainer.sapo_temperature_pos=2.0": "does nothing here without loss_type: sapo",
    "grpo trainer.sync_ref_model=true beta=0": "does nothing here without beta above 0",
    "grpo trainer.sync_ref_model=true --resume": "checkpoints do not hold the synchronised reference",
    # the run's folder and its config
    "sft --out=": "--out : names no folder: write --out DIR",
    "sft --out=a-file/below": "--out cannot be a folder: ",
    "sft --out=/proc/x": "): /proc/x: name another folder with --out",
    "sft --config tiny-grpo": "for univg grpo: --config tiny-grpo: choose another one, or run univg grpo",
    "sft --config grpo.yaml": "this config is for univg grpo: grpo.yaml:2 has 'prompts_per_step': run univg grpo",
    "grpo --config sft.yaml": "this config is for univg sft: sft.yaml:2 has 'batch': run univg sft",
    "sft --config nowhere.yaml": "nowhere.yaml: no such config file",
}

for package, line in (
    ("vllm", "grpo vllm=colocate"),
    ("bitsandbytes", "sft trainer.optim=adamw_bnb_8bit"),
    ("dvclive", "sft trainer.report_to=dvclive"),
):
    if importlib.util.find_spec(package) is not None:
        del WRONG[line]


def run_all(lines: list[str]) -> dict[str, Any]:
    """Run the command on every line in this process; returns what each printed, and whether torch was imported."""
    from univg.cli.main import main

    told = []
    for line in lines:
        verb, *rest = _split(line)
        chosen = [] if "--config" in rest else ["--config", f"tiny-{verb}"]
        out = [] if any(one.startswith("--out") for one in rest) else ["--out", "out"]
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            code = main([verb, *chosen, *out, *rest])
        told.append((code, stderr.getvalue()))
    return {"told": told, "torch": "torch" in sys.modules}


def _split(line: str) -> list[str]:
    """Split at the blanks that stand outside braces."""
    words = [""]
    for letter in line:
        if letter == " " and words[-1].count("{") == words[-1].count("}"):
            words.append("")
        else:
            words[-1] += letter
    return words


MOST_SECONDS = 6.0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says of every line, in one process of its own, and the processor time that it took."""
    folder = tmp_path_factory.mktemp("settings")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    program = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_settings as t; "
        "print(json.dumps(t.run_all(json.load(sys.stdin))))"
    )
    least = math.inf
    for _ in range(3):  # other programs on the machine cost a process time too: the least counts
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(list(WRONG)),
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if least < MOST_SECONDS:
            break
    return {
        **json.loads(done.stdout),
        "seconds": least,
        "left": sorted(path.name for path in folder.iterdir()),
    }


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_setting_is_one_line(told: dict[str, Any], line: str) -> None:
    code, error = told["told"][list(WRONG).index(line)]
    assert code == 2, error
    assert error.count("\n") == 1 and error.startswith("error: ") and "error: unexpected" not in error
    assert WRONG[line] in error


def test_all_of_them_cost_less_than_one_import_of_torch(told: dict[str, Any]) -> None:
    assert not told["torch"] and "out" not in told["left"]
    assert told["seconds"] < MOST_SECONDS, (
        f"{told['seconds']:.1f} s of processor time for {len(WRONG)} wrong settings"
    )


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_every_argument_of_trl_is_passed_decided_or_refused(stage: str) -> None:
    files = ["transformers/training_args.py", "trl/trainer/base_config.py", f"trl/trainer/{stage}_config.py"]
    theirs = {name for file in files for name in _list_fields(file)}
    passed, own = set(PASSED[stage].__annotations__), set(OWN[stage])
    idle = [name for _, names in IDLE[stage] for name in names]
    assert len(idle) == len(set(idle)) and not passed & own and not (passed | own) & set(idle)
    assert theirs == passed | own | set(idle)


def _list_fields(file: str) -> list[str]:
    """List the annotated names of a module's dataclasses, without importing it."""
    package, _, rest = file.partition("/")
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    tree = ast.parse((Path(found.submodule_search_locations[0]) / rest).read_text())
    classes = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Arguments"))
    ]
    return [
        n.target.id
        for c in classes
        for n in c.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]


def test_settings_that_are_right_pass() -> None:
    sft = load_config(
        SftConfig,
        "tiny-sft",
        ["trainer.max_grad_norm=1", "trainer.optim=sgd", "trainer.optim_args=momentum=0.9"],
    )
    assert sft.trainer["lr_scheduler_type"] == "cosine" and sft.trainer["optim_args"] == "momentum=0.9"
    vllm = ["vllm=colocate", "trainer.repetition_penalty=1.1", "trainer.generation_kwargs={seed: 3}"]
    assert load_config(GrpoConfig, "tiny-grpo", vllm).trainer["generation_kwargs"] == {"seed": 3}
    assert load_config(GrpoConfig, overrides=["scale_rewards=false"]).scale_rewards == "none"


def test_an_entry_of_a_default_mapping_leaves_the_others(tmp_path: Path) -> None:
    assert load_config(GrpoConfig, overrides=["rewards.iou=2"]).rewards == {"iou": 2.0, "format": 1.0}
    assert load_config(GrpoConfig, overrides=["rewards={iou: 2}"]).rewards == {"iou": 2.0}
    (tmp_path / "mine.yaml").write_text("rewards: {iou: 1}\n")
    assert load_config(GrpoConfig, tmp_path / "mine.yaml").rewards == {"iou": 1.0}, "a file says all of them"
    assert load_config(GrpoConfig, tmp_path / "mine.yaml", ["rewards.format=2"]).rewards == {
        "iou": 1.0,
        "format": 2.0,
    }


def test_one_process_of_several_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`accelerate launch --cpu --num_processes 2` sets these, and starts one process."""
    from univg.cli.main import main

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert main(["sft", "--config", "tiny-sft", "--out", "/tmp/never"]) == 2
    assert "started one: on CPUs use torchrun --nproc-per-node" in capsys.readouterr().err
