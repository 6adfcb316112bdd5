"""How much of a gradient is signal: do gradients of different batches point the same way?

    python benchmarks/gradient_noise.py --model embedded --batches 12

The weights stay as they are. Each batch gives one gradient; g = signal + noise, so the mean cosine c of two batches is
|signal|² / (|signal|² + |noise|²), and a batch 1/c - 1 times as large would hold as much signal as noise. Compared are
the policy gradient of GRPO, with the reward of a group divided by its spread and not, at several shapes of a step, and
that of CoT-SFT on the exact thoughts of as many samples.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

FAMILIES = ("diff", "view_diff", "common_object", "group_grounding", "reasoning")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--difficulty", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    import torch

    torch.set_num_threads(options.threads)
    print(f"{options.model}, {options.batches} batches, families {', '.join(FAMILIES)}")
    print(f"{'gradient':44} {'cosine':>16}  batch with as much signal as noise")
    for prompts, rollouts, scale in ((8, 8, "group"), (8, 8, "none"), (16, 4, "none")):
        gradients = policy_gradients(options, prompts, rollouts, scale)
        show(f"GRPO, {prompts} prompts x {rollouts}, scale_rewards {scale}", gradients, f"{prompts} prompts")
    show("CoT-SFT, 8 samples", sft_gradients(options, 8), "8 samples")


def show(name: str, gradients: Sequence[Any], unit: str) -> None:
    """The mean cosine of all pairs, with its spread over batches left out one at a time (jackknife)."""
    normed = np.stack([gradient / np.linalg.norm(gradient) for gradient in gradients])
    cosines = normed @ normed.T
    count = len(cosines)

    def mean_without(left_out: Sequence[int]) -> float:
        kept = np.delete(np.delete(cosines, left_out, 0), left_out, 1)
        return float((kept.sum() - np.trace(kept)) / (len(kept) * (len(kept) - 1)))

    mean = mean_without([])
    parts = np.array([mean_without([one]) for one in range(count)])
    error = float(np.sqrt((count - 1) / count * ((parts - parts.mean()) ** 2).sum()))
    enough = f"{1 / mean - 1:.0f} times {unit}" if mean > error else "not told by so few"
    print(f"{name:44} {mean:7.4f} ± {error:.4f}  {enough}", flush=True)


def settings(options: argparse.Namespace, **changes: Any) -> Any:
    from univg.training.config import DataSource, GrpoConfig

    level = options.difficulty
    data = (DataSource(families=FAMILIES, difficulty=(level, level), seed=7),)
    return GrpoConfig(model=options.model, data=data, **changes)


def policy_gradients(
    options: argparse.Namespace, prompts: int, rollouts: int, scale: str
) -> Sequence[np.ndarray]:
    from transformers import PrinterCallback, TrainerCallback

    from univg.training.grpo.arguments import paper_arguments
    from univg.training.grpo.stage import TrainingRows
    from univg.training.grpo.trainer import GroundingGRPOTrainer
    from univg.training.run.rows import StageRows
    from univg.training.run.start import load_start

    found: list[np.ndarray] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.append(flat_gradient(kwargs["model"]))

    config = settings(options, prompts_per_step=prompts, rollouts=rollouts)
    with tempfile.TemporaryDirectory() as folder:
        arguments = paper_arguments(
            folder,
            prompts_per_step=prompts,
            rollouts=rollouts,
            micro_batch=32,
            learning_rate=0.0,
            max_steps=options.batches,
            beta=0.0,
            scale_rewards=scale,
            max_completion_length=160,
            shuffle_dataset=False,
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=options.batches + 1,
        )
        loaded = load_start(config)
        rows = StageRows(config, loaded.processor, total=prompts * options.batches, teach=False)
        trainer = GroundingGRPOTrainer(
            loaded.model,
            args=arguments,
            train_dataset=TrainingRows(rows),
            processing_class=loaded.processor,
            weighting="none",
            callbacks=[Keep()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return found


def sft_gradients(options: argparse.Namespace, samples: int) -> Sequence[np.ndarray]:
    from torch.nn import functional

    from univg.training.run.rows import StageRows
    from univg.training.run.start import load_start
    from univg.training.sft.stage import encode, join

    config = settings(options)
    loaded = load_start(config)
    rows = StageRows(config, loaded.processor, total=samples * options.batches)
    pad = loaded.processor.tokenizer.pad_token_id
    loaded.model.train()
    found = []
    for batch in range(options.batches):
        encoded = [
            encode(loaded.processor, rows[place]) for place in range(batch * samples, (batch + 1) * samples)
        ]
        inputs = dict(join(encoded, pad))
        labels = inputs.pop("labels")[:, 1:]
        logits = loaded.model(**inputs, use_cache=False).logits[:, :-1].float()
        loaded.model.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).backward()
        found.append(flat_gradient(loaded.model))
    return found


def flat_gradient(model: Any) -> np.ndarray:
    import torch

    parts = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return torch.cat(parts).float().cpu().numpy().copy()


if __name__ == "__main__":
    main()
