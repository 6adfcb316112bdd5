"""The trainer: weights and gradient whatever the split, sampling, logging, and TRL's methods as they were."""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpo_parts as parts
import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from trl import GRPOTrainer

import univg.training.grpo.trainer as module
from univg.errors import UnivgError
from univg.grounding.reading import read
from univg.grounding.scoring import score
from univg.models.loading import load
from univg.training.grpo.arguments import EpochSampler, batch_plan, paper_arguments
from univg.training.grpo.difficulty import exp_weight
from univg.training.grpo.metrics import RolloutCallback
from univg.training.grpo.pages import RolloutPages
from univg.training.grpo.rollouts import draw, draw_sharded, find_runs, stream, take_rows
from univg.training.grpo.trainer import GroundingGRPOTrainer


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.save_start(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def whole(start: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process, one batch of all twelve rollouts."""
    return parts.one_step(start, tmp_path_factory.mktemp("whole"), micro_batch=12, accumulation=1)


# --- difficulty ---


def test_advantages_carry_the_weight_of_their_prompts_group(whole: dict[str, Any]) -> None:
    expected = []
    for row in parts.ragged_rows():
        scores = [score(row["sample"], read(text)) for text in parts.scripted_texts(row)]
        rewards = np.array([each.iou + each.format_ok for each in scores])
        weight = exp_weight(sum(each.iou for each in scores) / len(scores))
        expected += list(weight * (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4))
    assert whole["advantages"] == pytest.approx(expected, abs=1e-5)
    assert len({round(abs(value), 3) for value in expected}) > 6, "groups of different difficulty"


def test_micro_batches_change_neither_weights_nor_gradient(
    start: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    split = parts.one_step(start, tmp_path, micro_batch=3, accumulation=4)
    assert split["advantages"] == pytest.approx(whole["advantages"], abs=1e-6)
    _same_gradient(split["gradient"], whole["gradient"])


def test_two_processes_give_the_same_weights_and_gradient(
    start: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """The second of three groups is divided between the two processes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(str(Path(__file__).with_name("grpo_parts.py")), str(start), str(tmp_path), "3", "2"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = [torch.load(tmp_path / f"process-{rank}.pt") for rank in (0, 1)]
    assert found[0]["places"] + found[1]["places"] == list(range(12))
    assert found[0]["advantages"] + found[1]["advantages"] == pytest.approx(whole["advantages"], abs=1e-6)
    for each in found:
        assert each["bytes_sent"] < 20_000, "prompts are gathered without their pictures"
        _same_gradient(each["gradient"], whole["gradient"])
        for name in ("iou", "format", "groups/weight", "groups/no_spread", "groups/hard", "reward"):
            assert found[0]["logged"][name] == pytest.approx(whole["logged"][name], abs=1e-5), name
    # Weights of mean 1: that of all groups, wherever they are.
    even = [torch.load(tmp_path / f"even-{rank}.pt") for rank in (0, 1)]
    scaled = np.array(whole["advantages"]) / whole["logged"]["groups/weight"]
    assert even[0]["advantages"] + even[1]["advantages"] == pytest.approx(scaled.tolist(), abs=1e-5)
    assert even[0]["logged"]["groups/weight"] == pytest.approx(1, abs=1e-6)


def _same_gradient(one: torch.Tensor, other: torch.Tensor) -> None:
    assert torch.isfinite(one).all() and other.norm() > 1e-3
    assert float((one - other).norm() / other.norm()) < 1e-5


def test_the_weight_multiplies_the_policy_term_and_not_the_kl_term(start: Path, tmp_path: Path) -> None:
    """At the start model the KL term has no gradient, so the gradient is the policy's alone: twice the weight,
    twice the gradient."""
    once = parts.one_step(start, tmp_path / "a", 12, 1, weighting="none")
    twice = parts.one_step(start, tmp_path / "b", 12, 1, weighting=lambda mean_iou: 2.0)
    _same_gradient(twice["gradient"], 2 * once["gradient"])


def test_a_step_logs_what_its_rollouts_were(whole: dict[str, Any]) -> None:
    logged = whole["logged"]
    assert logged["faults/no_box"] == pytest.approx(3 / 12) == logged["faults/any"]
    assert logged["format"] == pytest.approx(9 / 12) and logged["truncated"] == 0
    assert logged["groups/easy"] + logged["groups/medium"] + logged["groups/hard"] == pytest.approx(1)
    assert 1 < logged["groups/weight"] < math.e
    for name in ("kl", "entropy", "completions/mean_length", "completions/clipped_ratio", "hit_50", "reward"):
        assert name in logged


# --- rollouts ---


def _train(start: Path, out: Path, **changes: Any) -> tuple[GroundingGRPOTrainer, list[list[int]]]:
    """A trainer that has taken a step with sampled rollouts, and these."""
    loaded = load(start, dtype="float32", device="cpu")
    settings: dict[str, Any] = {"max_completion_length": 12, "shuffle_dataset": False, "save_strategy": "no"}
    own = {name: changes.pop(name) for name in ("rows_at_once", "callbacks") if name in changes}
    arguments = paper_arguments(
        out,
        prompts_per_step=3,
        rollouts=4,
        micro_batch=changes.pop("micro_batch", 12),
        processes=1,
        max_steps=1,
        disable_tqdm=True,
        use_cpu=True,
        **(settings | changes),
    )
    drawn: list[list[int]] = []

    class Watching(GroundingGRPOTrainer):
        def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
            responses, nothing = super()._generate_single_turn(*arguments, **named)
            drawn.extend(responses)
            return responses, nothing

    trainer = Watching(
        loaded.model, None, arguments, parts.ragged_rows(), processing_class=loaded.processor, **own
    )
    trainer.train()
    return trainer, drawn


def test_sampled_rollouts_do_not_depend_on_the_batch(start: Path, tmp_path: Path) -> None:
    _, whole = _train(start, tmp_path)
    _, split = _train(start, tmp_path, rows_at_once=5, micro_batch=4)
    assert whole == split
    assert len({tuple(each) for each in whole}) > 6, "rollouts of a group differ"


def test_rollouts_read_a_prompt_once_and_say_what_transformers_says(start: Path) -> None:
    """Reading each group's prompt once, with images of ragged number, changes no token."""
    loaded = load(start, dtype="float32", device="cpu")
    rows = [row for row in parts.ragged_rows() for _ in range(2)]
    prompts = [
        loaded.processor.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    images = [row["images"] for row in rows]
    inputs = dict(
        loaded.processor(images=images, text=prompts, padding=True, padding_side="left", return_tensors="pt")
    )
    ids = [
        row[mask.bool()].tolist()
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    firsts, sources = find_runs(ids, images)
    assert (firsts, sources) == ([0, 2, 4], [0, 0, 1, 1, 2, 2])
    config = GenerationConfig(max_new_tokens=10, temperature=0.9, top_p=0.95, suppress_tokens=[0, 1])
    config.eos_token_id, config.pad_token_id = [loaded.processor.tokenizer.eos_token_id], 0

    def streams() -> list[torch.Generator]:
        return [stream(0, 0, place, each, torch.device("cpu")) for place, each in enumerate(ids)]

    together = draw(
        loaded.model, take_rows(inputs, [len(i) for i in images], firsts), sources, streams(), config
    )
    divided = draw(
        loaded.model,
        take_rows(inputs, [len(i) for i in images], firsts[:2]),
        [0, 1, 1],
        [streams()[place] for place in (1, 2, 3)],
        config,
    )
    with torch.no_grad():
        apart = draw_sharded(loaded.model, inputs, streams(), config)
    assert together == apart and divided == together[1:4]


def test_tokens_of_prompts_cannot_be_sampled(start: Path, tmp_path: Path) -> None:
    """With a model that gives every token the same chance, hundreds of draws hold none of them."""
    trainer, _ = _train(start, tmp_path)
    tokenizer = trainer.processing_class.tokenizer
    names = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
    names += ["<|im_start|>", "<|quad_start|>"]  # <|endoftext|> ends a text, as Qwen2-VL's own
    banned = set(tokenizer.convert_tokens_to_ids(names))
    assert banned <= set(trainer.generation_config.suppress_tokens)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    ids = [tokenizer.encode("Where is it?")] * 40
    written, _ = trainer._generate_single_turn(ids, None, {}, 4)
    seen = {token for row in written for token in row}
    assert len(seen) > 100 and not seen & banned
    assert seen <= set(tokenizer.get_vocab().values()), "no padding of the vocabulary either"


def test_vllm_is_told_of_the_same_tokens(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    class FakeVLLM:
        mode = "server"

        def __init__(self, **settings: Any) -> None:
            told.update(settings)

    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", FakeVLLM)
    loaded = load(start, dtype="float32", device="cpu")
    arguments = paper_arguments(
        tmp_path, prompts_per_step=1, use_vllm=True, use_cpu=True, generation_kwargs={"seed": 3}
    )
    GroundingGRPOTrainer(
        loaded.model, None, arguments, parts.ragged_rows(), processing_class=loaded.processor
    )
    bias = told["generation_kwargs"]["logit_bias"]
    assert bias[loaded.model.config.image_token_id] == -100.0
    assert loaded.processor.tokenizer.eos_token_id not in bias
    assert told["generation_kwargs"]["seed"] == 3 and "suppress_tokens" not in told["generation_kwargs"]


def test_pages_of_rollouts_and_reports(start: Path, tmp_path: Path) -> None:
    trainer, _ = _train(start, tmp_path, callbacks=[RolloutPages(tmp_path / "rollouts", every=50)])
    page = (tmp_path / "rollouts" / "step-000001.html").read_text()
    assert page.count("<section>") == 3 and page.count("data:image/jpeg") == sum(parts.IMAGES)
    assert (tmp_path / "rollouts" / "index.html").exists()
    assert trainer.args.report_to == []
    assert trainer.args.ddp_find_unused_parameters is False, "every row has pictures, so all are used"


def test_callbacks_and_rewards_have_the_pictures_themselves(start: Path, tmp_path: Path) -> None:
    """What TRL gathers has none: a reward that hands pictures to other processes must not hand over black pixels."""
    seen: list[int] = []

    class Watch(RolloutCallback):
        def on_rollouts(self, args: Any, state: Any, generation: Any) -> None:
            for row in generation.rows:
                again = pickle.loads(pickle.dumps(row["images"]))
                seen.extend(a.tobytes() == b.tobytes() for a, b in zip(again, row["images"], strict=True))

    _train(start, tmp_path, callbacks=[Watch()])
    assert all(seen) and len(seen) == 4 * sum(parts.IMAGES)


# --- batches ---


@pytest.mark.parametrize(
    ("asked", "micro_batch", "accumulation"),
    [((16, 8, 8, 8), 8, 2), ((8, 8, 32, 1), 32, 2), ((3, 4, 5, 1), 4, 3), ((1, 2, 64, 1), 2, 1)],
)
def test_batch_sizes_follow_from_prompts_and_rollouts(
    asked: tuple[int, int, int, int], micro_batch: int, accumulation: int
) -> None:
    plan = batch_plan(*asked)
    assert (plan.micro_batch, plan.accumulation) == (micro_batch, accumulation)
    assert plan.processes * plan.micro_batch * plan.accumulation == plan.prompts * plan.rollouts


def test_prompts_that_cannot_be_dealt_are_refused() -> None:
    with pytest.raises(UnivgError, match="use 16, or another multiple of 8"):
        batch_plan(20, 8, 8, processes=8)


def test_the_order_of_an_epoch_does_not_depend_on_those_before(start: Path, tmp_path: Path) -> None:
    trainer, _ = _train(start, tmp_path)
    trainer.shuffle_dataset = True
    sampler, resumed = (trainer._get_train_sampler() for _ in range(2))
    assert isinstance(sampler, EpochSampler)
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    resumed.set_epoch(3)
    assert list(resumed) == orders[3]
    assert len({tuple(order) for order in orders}) > 1 and len(orders[0]) == 12


# --- TRL ---

OVERRIDDEN = {
    "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["inputs"],
    "_generate_single_turn": [
        *("prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images=False")
    ],
    "_get_per_token_logps_and_entropies": [
        *(
            "model",
            "input_ids",
            "attention_mask",
            "logits_to_keep",
            "batch_size=None",
            "compute_entropy=False",
        ),
        *("compute_aux_loss=False", "pixel_values=None", "image_grid_thw=None", "num_images=None"),
        *("pixel_attention_mask=None", "spatial_shapes=None", "num_tiles=None", "image_sizes=None"),
        *("token_type_ids=None", "mm_token_type_ids=None", "image_position_ids=None"),
    ],
    "_get_train_sampler": ["dataset=None"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model=None"],
    "_load_rng_state": ["checkpoint"],
    "_prepare_inputs": ["generation_batch"],
    "_save_checkpoint": ["model", "trial"],
    "_send_telemetry": [],
}
MOST_OVERRIDES = 10
RELIED_ON = {
    "_metrics": "dict of lists by mode, averaged and cleared by log()",
    "_buffered_inputs": "the generation batch, split; rebuilt when _step is a multiple of steps × iterations",
    "_step": "micro-batches since the start of the process",
    "self._dist.summon_full_params": "weights gathered for generation under FSDP",
    "self.eos_token_ids": "all that end a completion",
    "self.generation_config": "with suppress_tokens from args.generation_kwargs",
}
READ_AGAIN = (
    "TRL has changed under GroundingGRPOTrainer. Read again, in trl/trainer/grpo_trainer.py: "
    "_generate_and_score_completions (the order of rows, 'advantages' in what it returns, rewards gathered over "
    "processes, what it asks the processor for), _prepare_inputs (when rollouts are drawn anew, how they are shuffled "
    "and split), _generate_single_turn (what it returns), _get_per_token_logps_and_entropies (its arguments, how it "
    "calls the model), _compute_loss and _get_train_sampler; in trl/trainer/utils.py: add_fused_lm_head and "
    "split_pixel_values_by_grid; then CONTRIBUTING.md, 'TRL'."
)


def _parameters(function: Any) -> list[str]:
    """Parameters without their types, and without `self`: "name" or "name=default"."""
    empty = inspect.Parameter.empty
    listed = [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    return [
        stars.get(kind, "") + name + ("" if default is empty else f"={default}")
        for name, kind, default in listed
    ]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_methods_have_the_signatures_they_were_written_for(name: str) -> None:
    theirs = _parameters(getattr(GRPOTrainer, name))
    ours = _parameters(getattr(GroundingGRPOTrainer, name))
    assert theirs == OVERRIDDEN[name], f"{name}{theirs}: {READ_AGAIN}"
    if "**fields" in ours:  # those that TRL gives by name
        ours = ours[: ours.index("**fields")]
        named = {each.partition("=")[0] for each in theirs[len(ours) :]}
        calls = _calls_of(name)
        assert len(calls) == 4 and all(len(call.args) <= len(ours) for call in calls), READ_AGAIN
        keywords = {word.arg for call in calls for word in call.keywords if word.arg}
        assert keywords - {each.partition("=")[0] for each in ours} <= named, READ_AGAIN
        assert ours == theirs[: len(ours)]
    else:
        assert ours == theirs


def _calls_of(method: str) -> list[ast.Call]:
    tree = ast.parse(inspect.getsource(sys.modules[GRPOTrainer.__module__]))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == method]


def test_one_class_holds_every_override_and_there_are_few() -> None:
    bases = GroundingGRPOTrainer.__mro__
    assert bases[1] is GRPOTrainer, (
        "no class of ours stands between TRL's trainer and the one that extends it"
    )
    own = {name for name, value in vars(GroundingGRPOTrainer).items() if inspect.isroutine(value)}
    theirs = {name for name in own if name != "__init__" and hasattr(GRPOTrainer, name)}
    assert theirs == set(OVERRIDDEN) and len(theirs) <= MOST_OVERRIDES
    for name, value in vars(GroundingGRPOTrainer).items():
        hides = isinstance(value, property) and hasattr(GRPOTrainer, name)
        assert not hides, f"{name} hides something of TRL's"
    subclasses = [cls for cls in _subclasses(GRPOTrainer) if cls.__module__.startswith("univg.")]
    assert subclasses == [GroundingGRPOTrainer]


def _subclasses(cls: type) -> list[type]:
    return [each for sub in cls.__subclasses__() for each in (sub, *_subclasses(sub))]


def test_nothing_else_is_given_a_trainer() -> None:
    """What the trainer calls takes models, arguments and numbers, and so can be read and tested without one."""
    folder = Path(module.__file__).parent
    for file in sorted(folder.glob("*.py")):
        if file.name in ("trainer.py", "stage.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.arg):
                assert "trainer" not in node.arg, f"{file.name}:{node.lineno}: {node.arg}"


def test_what_is_relied_on_is_still_there() -> None:
    source = inspect.getsource(sys.modules[GRPOTrainer.__module__])
    for name in RELIED_ON:
        assert name in source, f"{name} is gone. {READ_AGAIN}"
    returned = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert '"advantages": advantages' in returned, READ_AGAIN


def test_the_example_in_the_docstring_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"\n\n((?:    .*\n|\n)+)", inspect.getdoc(module) or "")
    assert code is not None
    text = "\n".join(line.removeprefix("    ") for line in code[1].splitlines())
    names: dict[str, Any] = {}
    exec(compile(text, "docstring", "exec"), names)
    history = json.loads(json.dumps(names["trainer"].state.log_history))
    assert history[0]["groups/weight"] >= 1
