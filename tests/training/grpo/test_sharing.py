"""Shared prompts in the trainer: the same weights as TRL's way, groups kept together, images encoded once, reasons."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpo_parts as parts
import pytest
import torch
from PIL import Image

from univg.config import load_config
from univg.errors import UnivgError
from univg.models.loading import load
from univg.training.config import GrpoConfig
from univg.training.grpo.arguments import paper_arguments
from univg.training.grpo.patches import Patches
from univg.training.grpo.sharing import PromptsNotShared, find_groups, regroup
from univg.training.grpo.trainer import GroundingGRPOTrainer

STEPS = 2


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = parts.save_start(tmp_path_factory.mktemp("start") / "tiny")
    return folder


def _trainer(
    start: Path, out: Path, shared_prefix: str, frozen: bool = True, lora: Any = None, **changes: Any
) -> Any:
    """Groups of four on three prompts, scripted; each update takes two micro-batches of six, so groups of a
    shuffled generation lie across them."""
    loaded = load(start, dtype="float32", device="cpu")
    if frozen:
        loaded.model.model.visual.requires_grad_(False)
    rows = parts.ragged_rows()
    arguments = paper_arguments(
        out,
        prompts_per_step=3,
        rollouts=parts.GENERATIONS,
        micro_batch=6,
        processes=1,
        **{
            "max_steps": STEPS,
            "shuffle_dataset": False,
            "save_strategy": "no",
            "learning_rate": 1e-3,
            "disable_tqdm": True,
            "use_cpu": True,
            **changes,
        },
    )
    if lora is not None:
        from peft import LoraConfig

        lora = LoraConfig(
            r=4, lora_alpha=32, target_modules=r".*language_model.*\.(q_proj|down_proj)", **lora
        )
    more = {"eval_dataset": rows[:2]} if changes.get("eval_strategy") else {}
    trainer = parts.ScriptedTrainer(
        loaded.model,
        None,
        arguments,
        rows,
        processing_class=loaded.processor,
        peft_config=lora,
        shared_prefix=shared_prefix,
        **more,
    )
    trainer.rows = rows
    return trainer


def _trainable(trainer: Any) -> torch.Tensor:
    return torch.cat([w.detach().flatten().clone() for w in trainer.model.parameters() if w.requires_grad])


RUNS: dict[str, dict[str, Any]] = {
    "frozen vision": {},
    "trained vision": {"frozen": False},
    "LoRA": {"lora": {}, "gradient_checkpointing": True},
    "checkpointing": {"gradient_checkpointing": True},
    "two updates on the same rollouts": {"num_iterations": 2, "max_steps": 3},
    "several updates a generation": {
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 3,
    },
    "several generations an update": {
        "per_device_train_batch_size": 12,
        "steps_per_generation": 1,
        "gradient_accumulation_steps": 2,
        "max_steps": 2,
    },
    "evaluation between": {
        "num_iterations": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "max_steps": 3,
    },
    "no reference": {"beta": 0.0},
    "cut-off rollouts left out": {"mask_truncated_completions": True},
    "token mean": {"loss_type": "dapo"},
}


NIGHTLY = {
    *("trained vision", "checkpointing", "several updates a generation"),
    *("cut-off rollouts left out", "token mean", "evaluation between", "no reference"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in NIGHTLY else name for name in RUNS]
)
def test_a_run_ends_with_the_weights_of_trls_way(name: str, start: Path, tmp_path: Path) -> None:
    ends = {}
    for way in ("off", "on"):
        trainer = _trainer(start, tmp_path / way, way, **RUNS[name])
        begin = _trainable(trainer)
        torch.manual_seed(0)  # TRL's shuffle draws from the global stream
        trainer.train()
        ends[way] = _trainable(trainer)
        assert (trainer.shared is not None) == (way == "on")
        history = [row for row in trainer.state.log_history if "loss" in row]
        ends[way + " log"] = torch.tensor(
            [[row["loss"], row["entropy"], row["grad_norm"]] for row in history]
        )
    assert float((ends["on"] - ends["off"]).abs().max()) < 1e-4
    moved = (ends["off"] - begin).norm()
    assert moved > 1e-2 and float((ends["on"] - ends["off"]).norm() / moved) < 1e-3
    torch.testing.assert_close(ends["on log"], ends["off log"], atol=2e-4, rtol=1e-3)


def test_sampled_rollouts_are_the_same_tokens(start: Path, tmp_path: Path) -> None:
    written = {}
    for way in ("off", "on"):
        trainer = _trainer(start, tmp_path / way, way, max_completion_length=20)
        trainer._generate_single_turn = GroundingGRPOTrainer._generate_single_turn.__get__(trainer)
        drawn: list[Any] = []

        def keep(
            inputs: Any, prompts: Any, completions: Any, ids: Any, trainer: Any = trainer, drawn: Any = drawn
        ) -> Any:
            drawn.append(ids)
            return GroundingGRPOTrainer._calculate_rewards(trainer, inputs, prompts, completions, ids)

        trainer._calculate_rewards = keep
        trainer.train()
        written[way] = drawn
    assert written["on"] == written["off"] and len(written["on"]) == STEPS
    assert len({tuple(ids) for ids in written["on"][0]}) > 6


@pytest.mark.parametrize(("frozen", "towers"), [(True, 1), (False, 2)], ids=["frozen", "trained"])
def test_images_are_encoded_once_a_step_while_the_tower_is_frozen(
    frozen: bool, towers: int, start: Path, tmp_path: Path
) -> None:
    """By rollouts, reference and two updates together. A tower that is trained encodes them once in each update,
    and the reference's once for all rollouts."""
    trainer = _trainer(start, tmp_path, "on", frozen, num_iterations=2, max_steps=2)
    seen: list[int] = []
    for model in (trainer.model, trainer.ref_model):
        tower = model.model.visual
        tower.register_forward_hook(
            lambda module, args, kwargs, output: seen.append(len(kwargs["grid_thw"])), with_kwargs=True
        )
    trainer.train()
    once = sum(parts.IMAGES)
    if frozen:
        assert sum(seen) == once
    else:  # groups are divided between the micro-batches of an update: three, of which one in both
        assert once * 3 <= sum(seen) <= 2 * once + 2 * 2 * once


def test_pixels_are_there_once(start: Path, tmp_path: Path) -> None:
    """A dataset that draws its images anew for every row gives other objects with the same pixels."""
    trainer = _trainer(start, tmp_path, "on", max_steps=1)
    processed: list[int] = []
    processor = trainer.processing_class.image_processor
    trainer.processing_class.image_processor = _Counting(processor, processed)
    rows = [
        {**row, "images": [image.copy() for image in row["images"]]}
        for row in parts.ragged_rows()
        for _ in range(parts.GENERATIONS)
    ]
    output = trainer._generate_and_score_completions(rows)
    assert sum(processed) == sum(parts.IMAGES)
    assert output["pixel_values"].shape[1] == 1, "places"
    assert isinstance(trainer.processing_class.image_processor, _Counting), (
        "the processor itself stays as it was"
    )
    whole = trainer.shared.patches.with_pixels(output)["pixel_values"]
    expected = processor(images=[i for row in rows for i in row["images"]], return_tensors="pt")[
        "pixel_values"
    ]
    assert torch.equal(whole, expected)


class _Counting:
    def __init__(self, inner: Any, processed: list[int]) -> None:
        self._inner, self._processed = inner, processed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, images: Sequence[Any], **settings: Any) -> Any:
        self._processed.append(len(images))
        return self._inner(images=images, **settings)


def test_pictures_keep_one_of_each() -> None:
    """Grey and colour of the same bytes are different pictures."""
    from univg.models.tiny import build_tiny

    _, processor = build_tiny(0)
    grey = Image.new("L", (60, 60), 7)
    colour = Image.new("RGB", (60, 20), (7, 7, 7))
    reader = Patches().placing(processor)
    read = reader.image_processor(images=[[grey, colour], [grey]], return_tensors="pt")
    assert read["image_grid_thw"].tolist()[0] == read["image_grid_thw"].tolist()[2]
    first, second, third = read["pixel_values"].split(read["image_grid_thw"].prod(dim=-1).tolist())
    assert torch.equal(first, third) and not set(first[:, 0].tolist()) & set(second[:, 0].tolist())
    assert processor.image_processor is not reader.image_processor
    assert reader.pixel_budget == processor.pixel_budget


# --- groups ---


def _batches(sizes: Sequence[int], order: Sequence[int]) -> list[dict[str, Any]]:
    """Rows numbered by `order`; row r is of prompt r // 4 and has r // 4 images of 4 patches."""
    batches, at = [], 0
    for size in sizes:
        rows = list(order[at : at + size])
        at += size
        prompts = [row // 4 for row in rows]
        patches = [8 * prompt + place for prompt in prompts for place in range(4 * prompt)]
        batches.append(
            {
                "prompt_ids": torch.tensor([[5, prompt + 6] for prompt in prompts]),
                "prompt_mask": torch.ones(len(rows), 2, dtype=torch.long),
                "advantages": torch.tensor([float(row) for row in rows]),
                "num_images": prompts,
                "pixel_values": torch.tensor(patches, dtype=torch.long)[:, None],
                "image_grid_thw": torch.tensor([[1, 2, 2]] * sum(prompts)).reshape(-1, 3),
                "num_items_in_batch": torch.tensor(12),
            }
        )
    return batches


def test_an_update_sees_the_same_rollouts_in_groups() -> None:
    order = [3, 0, 8, 5, 2, 11, 1, 4, 9, 6, 10, 7]
    sorted_batches = regroup(_batches([4, 4, 4], order), accumulation=3)
    rows = [batch["advantages"].tolist() for batch in sorted_batches]
    assert [sorted(each) for each in rows] == [[0, 1, 2, 3], [8, 9, 10, 11], [4, 5, 6, 7]]
    for batch in sorted_batches:
        prompts = [int(row) // 4 for row in batch["advantages"]]
        assert batch["num_images"] == prompts and batch["prompt_ids"][:, 1].tolist() == [
            p + 6 for p in prompts
        ]
        assert len(batch["image_grid_thw"]) == sum(prompts) and batch["num_items_in_batch"] == 12
        assert batch["pixel_values"][:, 0].tolist() == [
            8 * p + place for p in prompts for place in range(4 * p)
        ]


def test_rollouts_do_not_move_from_one_update_to_another() -> None:
    order = [3, 0, 8, 5, 2, 11, 1, 4, 9, 6, 10, 7]
    before = _batches([3, 3, 3, 3], order)
    after = regroup(before, accumulation=2)
    for update in (slice(0, 2), slice(2, 4)):
        sets = [
            sorted(row for b in side[update] for row in b["advantages"].tolist()) for side in (before, after)
        ]
        assert sets[0] == sets[1]
    assert [b["advantages"].tolist() for b in regroup(before, 3)] == [
        b["advantages"].tolist() for b in before
    ]


def test_groups_are_told_apart_by_words_and_by_pictures() -> None:
    batch = {
        "input_ids": torch.tensor([[0, 5, 6], [0, 5, 6], [5, 6, 7], [0, 5, 6]]),
        "attention_mask": torch.tensor([[0, 1, 1], [0, 1, 1], [1, 1, 1], [0, 1, 1]]),
        "pixel_values": torch.tensor([[0], [0], [0], [1]]),
        "image_grid_thw": torch.tensor([[1, 1, 1]] * 4),
    }
    assert find_groups(batch, [1, 1, 1, 1], range(4)) == ([0, 2, 3], [0, 0, 1, 2])
    assert find_groups(batch, [1, 1, 1, 1], range(1, 4)) == ([1, 2, 3], [0, 1, 2])


# --- reasons ---


def test_configs_may_say_on_and_off_without_quotes() -> None:
    """YAML reads both as truth values."""
    for word in ("auto", "on", "off"):
        config = load_config(GrpoConfig, "tiny-grpo", [f"shared_prefix={word}"])
        assert config.shared_prefix == word


def test_off_and_auto_and_on(start: Path, tmp_path: Path) -> None:
    assert not _trainer(start, tmp_path, "off").shared
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptsNotShared)
        assert _trainer(start, tmp_path, "auto").shared


def test_a_dropout_that_a_group_would_share_is_said_and_not_shared(start: Path, tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"once for every rollout: adapter 'default' has a dropout of 0\.1"
    ) as said:
        trainer = _trainer(start, tmp_path, "auto", lora={"lora_dropout": 0.1}, max_steps=1)
    assert sum(issubclass(each.category, PromptsNotShared) for each in said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptsNotShared)
        trainer.train()
    assert trainer.shared is None
    assert _trainer(start, tmp_path, "on", lora={"lora_dropout": 0.1}).shared


def test_on_refuses_what_cannot_be(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univg.models.generation.shared_attention.MODEL_FAMILIES", ())
    with pytest.raises(
        UnivgError, match="shared_prefix=on: prompts cannot be shared: models of type 'qwen2_vl'"
    ):
        _trainer(start, tmp_path, "on")
    with pytest.warns(UserWarning, match="models of type 'qwen2_vl'"):
        assert not _trainer(start, tmp_path, "auto").shared
