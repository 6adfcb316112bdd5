"""Let LLaMA-Factory read its own kind of data set, tell what its model would be given, and train on it.

`python in_llamafactory.py ARGUMENTS.json`, the arguments being those of `llamafactory-cli train`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from seen import describe, tell


def read_rows(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    from llamafactory.data import (
        SFTDataCollatorWith4DAttentionMask,
        get_dataset,
        get_template_and_fix_tokenizer,
    )
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, *_ = get_train_args(dict(arguments))
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)["train_dataset"]
    collate = SFTDataCollatorWith4DAttentionMask(template=template, **loaded)
    found = []
    for row in rows:
        batch = collate([row])
        [tokens], [taught] = batch["input_ids"].tolist(), batch["labels"].tolist()
        pixels, grids = batch["pixel_values"], batch["image_grid_thw"].tolist()
        found.append(describe(tokens, taught, pixels, grids, loaded["processor"]))
    return found


def train(arguments: dict[str, Any]) -> list[float]:
    """Return the loss of each step."""
    from llamafactory.train.tuner import run_exp

    run_exp(dict(arguments))
    state = json.loads((Path(arguments["output_dir"]) / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    told: dict[str, Any] = {"rows": read_rows(given)}
    if given["max_steps"] > 0:
        told["losses"] = train(given)
    tell(**told)
