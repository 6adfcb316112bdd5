"""Let TRL's own trainers take three steps each, and tell what their models were given.

`python in_trl.py MODEL FILE PICTURES OUT`, FILE read as docs/data.md says.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from seen import describe, tell

STEPS = 3


def read_rows(file: str, pictures: str) -> Any:
    from datasets import Image, Sequence, load_dataset

    folder = Path(pictures)
    data = load_dataset("json", data_files=file, split="train")
    data = data.map(lambda row: {"images": [str(folder / name) for name in row["images"]]})
    return data.cast_column("images", Sequence(Image()))


def settings(out: str) -> dict[str, Any]:
    return {
        "output_dir": out,
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "seed": 1,
        "gradient_checkpointing": False,
    }


def train_sft(model: str, data: Any, processor: Any, out: str) -> dict[str, Any]:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(per_device_train_batch_size=1, max_length=None, **settings(out))
    trainer = SFTTrainer(model, config, train_dataset=data, processing_class=processor)
    rows = []
    for row in data:
        batch = trainer.data_collator([dict(row)])
        tokens, taught = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        rows.append(
            describe(tokens, taught, batch["pixel_values"], batch["image_grid_thw"].tolist(), processor)
        )
    trainer.train()
    return {"rows": rows, "losses": [one["loss"] for one in trainer.state.log_history if "loss" in one]}


def train_grpo(model: str, data: Any, processor: Any, out: str) -> dict[str, Any]:
    """`asked`: what the policy saw, and the solution that the reward got beside it, one for each step."""
    from trl import GRPOConfig, GRPOTrainer

    asked: list[dict[str, Any]] = []
    solutions: list[str] = []

    def reward(completions: list[Any], solution: list[str], **_: Any) -> list[float]:
        solutions.append(solution[0])
        return [float(len(one[0]["content"]) % 7) for one in completions]

    class Watched(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            made = super()._generate_and_score_completions(inputs)
            grids = made["image_grid_thw"][: len(inputs[0]["images"])].tolist()
            patches = made["pixel_values"][: sum(map(math.prod, grids))]
            tokens = made["prompt_ids"][0][made["prompt_mask"][0].bool()].tolist()
            asked.append(describe(tokens, [], patches, grids, processor))
            return made

    config = GRPOConfig(
        per_device_train_batch_size=2, num_generations=2, max_completion_length=8, beta=0.0, **settings(out)
    )
    trainer = Watched(model, reward, config, train_dataset=data, processing_class=processor)
    trainer.train()
    told = [{**one, "solution": solution} for one, solution in zip(asked, solutions, strict=True)]
    return {"asked": told, "losses": [one["loss"] for one in trainer.state.log_history if "loss" in one]}


if __name__ == "__main__":
    from transformers import AutoProcessor

    checkpoint, lines, folder, results = sys.argv[1:]
    processing = AutoProcessor.from_pretrained(checkpoint)
    found = read_rows(lines, folder)
    tell(
        sft=train_sft(checkpoint, found, processing, f"{results}/sft"),
        grpo=train_grpo(checkpoint, found, processing, f"{results}/grpo"),
    )
