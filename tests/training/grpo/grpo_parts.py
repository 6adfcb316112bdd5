"""What the GRPO tests share: a tiny start model, rows with one, three and six images, and scripted rollouts.

Run as a program (by `torchrun`), it takes one step on several processes and writes what came of it.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    TrainerCallback,
)
from trl.trainer import grpo_trainer

from univg.grounding.prompts import render_chat, render_response
from univg.models.loading import Loaded, load
from univg.models.tiny import PATCH_SIZE, build_tiny, save_tiny
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


OTHER_TEXT = {
    "vocab_size": 288,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 24,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 4, 4]},
}
VISION = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 48}
VISION |= {"patch_size": PATCH_SIZE, "spatial_merge_size": 2, "temporal_patch_size": 2}
OTHER_FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2_5_vl": (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        {"window_size": 4 * PATCH_SIZE, "fullatt_block_indexes": [1]},
    ),
    "qwen3_vl": (
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
    ),
}


def build_family(name: str, processor: Any) -> Any:
    """Build a tiny model of another family, with the embedded family's tokens and patches."""
    config_class, model_class, vision = OTHER_FAMILIES[name]
    tokens = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    tokens |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    ids = {key: processor.tokenizer.convert_tokens_to_ids(f"<|{token}|>") for key, token in tokens.items()}
    torch.manual_seed(0)
    model = model_class(config_class(text_config=OTHER_TEXT, vision_config=VISION | vision, **ids))
    scale_up(model)
    return model.eval()


def scale_up(model: Any) -> None:
    """Let responses differ from prompt to prompt (at the usual initial scale they hardly do)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)


def save_start(folder: Path) -> Path:
    model, processor = build_tiny(seed=0, text=SMALL_TEXT)
    scale_up(model)
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
    for kind in (False, True):
        found = one_step(Path(start), Path(out), int(micro_batch), int(accumulation), even_weights=kind)
        rank = torch.distributed.get_rank()
        torch.save(found, Path(out) / f"{'even' if kind else 'process'}-{rank}.pt")
    torch.distributed.destroy_process_group()
