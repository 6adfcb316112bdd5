"""Let ms-swift read its own kind of file, tell what its template makes of each row, and train on it.

`python in_ms_swift.py MODEL TYPE FILE STEPS OUT`; MAX_PIXELS, MIN_PIXELS and ROOT_IMAGE_DIR are ms-swift's own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from seen import describe, tell


def read_rows(model: str, model_type: str, file: str) -> list[dict[str, Any]]:
    from swift import get_processor, get_template, load_dataset

    processor = get_processor(model, model_type=model_type)
    template = get_template(processor, template_type=model_type, max_pixels=int(os.environ["MAX_PIXELS"]))
    template.set_mode("train")
    rows, _ = load_dataset(file, split_dataset_ratio=0, num_proc=1)
    found = []
    for row in rows:
        made = template.encode(row)
        grids = made["image_grid_thw"].tolist()
        found.append(
            describe(list(made["input_ids"]), list(made["labels"]), made["pixel_values"], grids, processor)
        )
    return found


def train(model: str, model_type: str, file: str, steps: int, out: str) -> list[float]:
    """Return the loss of each step."""
    from swift import sft_main

    arguments = {
        "model": model,
        "model_type": model_type,
        "template": model_type,
        "dataset": file,
        "tuner_type": "full",
        "torch_dtype": "float32",
        "max_steps": steps,
        "logging_steps": 1,
        "output_dir": out,
        "add_version": "false",
        "report_to": "none",
        "split_dataset_ratio": 0,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "use_cpu": "true",
        "bf16": "false",
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,
        "attn_impl": "sdpa",
        "gradient_checkpointing": "false",
        "save_strategy": "no",
        "max_length": 4096,
    }
    sft_main([text for name, value in arguments.items() for text in (f"--{name}", str(value))])
    lines = [json.loads(line) for line in (Path(out) / "logging.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


if __name__ == "__main__":
    checkpoint, family, lines_file, n_steps, results = sys.argv[1:]
    told: dict[str, Any] = {"rows": read_rows(checkpoint, family, lines_file)}
    if int(n_steps):
        told["losses"] = train(checkpoint, family, lines_file, int(n_steps), results)
    tell(**told)
