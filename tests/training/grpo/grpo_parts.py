"""What the GRPO tests share: a tiny start model, rows with one, three and six images, and scripted rollouts.

Run as a program (by `torchrun`), it takes one step on several processes and writes what came of it.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl.trainer import grpo_trainer

from univg.grounding.prompts import render_chat, render_response
from univg.models.loading import Loaded, load
from univg.models.tiny import build_tiny, save_tiny
from univg.training.grpo.arguments import paper_arguments
from univg.training.grpo.trainer import GroundingGRPOTrainer
from univg.world import make_sample

GENERATIONS = 4
SMALL_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
IMAGES = (1, 3, 6)
FAMILY_OF = {1: "referring", 3: "common_object", 6: "object_tracking"}


def save_start(folder: Path) -> Path:
    """A model whose responses differ from prompt to prompt (at the usual initial scale they hardly do)."""
    model, processor = build_tiny(seed=0, text=SMALL_TEXT)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    save_tiny(model, processor, folder)
    return folder


def ragged_rows() -> list[dict[str, Any]]:
    """A row with one image, one with three, one with six."""
    rows = []
    for count in IMAGES:
        drawn = next(
            made
            for index in range(500)
            for made in [make_sample(FAMILY_OF[count], index=index, size=60)]
            if len(made.images) == count
        )
        prompt = render_chat(count, drawn.sample.query)
        rows.append({"prompt": prompt, "images": list(drawn.images), "sample": drawn.sample})
    return rows


def scripted_texts(row: dict[str, Any]) -> list[str]:
    """Four responses: perfect, shifted, without a box, with a thought of another length."""
    x1, y1, x2, y2 = row["sample"].boxes[0]
    shift = (x2 - x1) * (0.2 + 0.05 * len(row["images"]))
    moved = (min(x1 + shift, 0.99), y1, min(x2 + shift, 1.0), y2)
    return [
        render_response((x1, y1, x2, y2), "Here."),
        render_response(moved, "A little to the right."),
        "<think>Nowhere.</think><answer></answer>",
        render_response(moved, "Longer thoughts make longer rows."),
    ]


class ScriptedTrainer(GroundingGRPOTrainer):
    """Writes `scripted_texts` instead of sampling, and keeps advantages and gradient of its step."""

    rows: list[dict[str, Any]]
    advantages: list[float]
    places: list[int]

    def _generate_single_turn(self, prompt_ids: Any, *others: Any, **more: Any) -> Any:
        first = self.accelerator.process_index * len(prompt_ids)
        end = self._tokenizer.eos_token_id
        self.places = list(range(first, first + len(prompt_ids)))
        texts = [scripted_texts(self.rows[p // GENERATIONS])[p % GENERATIONS] for p in self.places]
        return [[*self._tokenizer.encode(text), end] for text in texts], None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        self.advantages = output["advantages"].tolist()
        return output


class KeepGradient(TrainerCallback):
    gradient: torch.Tensor

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        self.gradient = torch.cat(parts).clone()


def one_step(start: Path, out: Path, micro_batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
    """Advantages (weighted) of this process's rows and the gradient of one step on `ragged_rows`."""
    loaded: Loaded = load(start, dtype="float32", device="cpu")
    rows = ragged_rows()
    # `paper_arguments` deals whole groups to processes; here a group may be divided between two.
    arguments = paper_arguments(
        out,
        prompts_per_step=1,
        rollouts=GENERATIONS,
        processes=1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        max_steps=1,
        shuffle_dataset=False,
        save_strategy="no",
        max_grad_norm=0.0,
        disable_tqdm=True,
        use_cpu=True,
    )
    keep = KeepGradient()
    trainer = ScriptedTrainer(
        loaded.model, None, arguments, rows, processing_class=loaded.processor, callbacks=[keep], **more
    )
    trainer.rows = rows
    sent: list[int] = []
    gather = grpo_trainer.gather_object

    def gather_counted(objects: Any) -> Any:
        sent.append(len(pickle.dumps(objects)))
        return gather(objects)

    grpo_trainer.gather_object = gather_counted
    try:
        trainer.train()
    finally:
        grpo_trainer.gather_object = gather
    logged = trainer.state.log_history[0]
    return {
        "places": trainer.places,
        "advantages": trainer.advantages,
        "gradient": keep.gradient,
        "bytes_sent": sum(sent),
        "logged": {name: value for name, value in logged.items() if isinstance(value, float)},
    }


if __name__ == "__main__":
    start, out, micro_batch, accumulation = sys.argv[1:]
    torch.set_num_threads(1)
    found = one_step(Path(start), Path(out), int(micro_batch), int(accumulation))
    rank = torch.distributed.get_rank()
    torch.save(found, Path(out) / f"process-{rank}.pt")
    torch.distributed.destroy_process_group()
