"""Steps of real size on one GPU: seconds and memory of both stages, with weights that are random.

    python benchmarks/real_size.py make FILES checkpoints/2b --size 2b   # FILES: published configs and tokenizer files
    python benchmarks/real_size.py step grpo checkpoints/2b micro_batch=8
    python benchmarks/real_size.py compare checkpoints/2b                 # the table

FILES is a folder with Qwen2-VL's `config.json`, `preprocessor_config.json` and tokenizer files; nothing else is
needed, as speed and memory do not depend on what the weights are. Each step answers questions on three or four
images of about 400,000 pixels (the paper's limit). A random model never ends a response, so that every rollout has
`max_completion_tokens`: the longest case. Seconds are the median of the steps after the first.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "2b": {},
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}
COMMON = (
    *("data.0.image_px=640", "data.0.families={multi_view: 1, common_object: 1}"),
    *("max_steps=3", "workers=0", "max_tokens=6000", "gradient_checkpointing=true", "save_every=1000"),
)
STAGES = {
    "sft": ("batch=8", "micro_batch=1"),
    "grpo": ("prompts_per_step=2", "rollouts=8", "micro_batch=8", "rollout_page_every=0"),
}
COMPARED = (
    ("grpo", "micro_batch=2"),
    ("grpo", "micro_batch=8"),
    ("grpo", "micro_batch=8 shared_prefix=off"),
    ("grpo", "micro_batch=8 lora.r=64 lora.alpha=128"),
    ("sft", "micro_batch=1"),
    ("sft", "micro_batch=2 lora.r=64 lora.alpha=128"),
)


def make(files: Path, out: Path, size: str) -> None:
    """Write a checkpoint of the published shape with random weights, in bfloat16."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    out.mkdir(parents=True, exist_ok=True)
    for file in files.iterdir():
        shutil.copyfile(file, out / file.name)
    settings = json.loads((files / "config.json").read_text())
    settings.pop("quantization_config", None)
    settings |= SIZES[size]
    settings["vision_config"]["hidden_size"] = settings["hidden_size"]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    model = Qwen2VLForConditionalGeneration._from_config(Qwen2VLConfig(**settings), dtype=torch.bfloat16)
    model.save_pretrained(out)
    print(f"{out}: {model.num_parameters() / 1e9:.2f} G parameters")


def step(stage: str, model: str, settings: list[str], out: Path) -> dict[str, Any]:
    """Take a few steps and return what they cost."""
    import torch

    from univg.config import load_config
    from univg.training.config import GrpoConfig, SftConfig
    from univg.training.grpo import stage as grpo
    from univg.training.run.log import LOG, read_rows
    from univg.training.sft import stage as sft

    for module, trainer in ((sft, sft.SftTrainer), (grpo, grpo.GroundingGRPOTrainer)):
        trainer._save_checkpoint = lambda *_: None  # tens of gigabytes that nobody wants
        module.write_model = lambda *_: None
    fixed = [f"model={model}", *COMMON, *STAGES[stage], *settings]
    if stage == "sft":
        sft.train_sft(load_config(SftConfig, overrides=fixed), out)
    else:
        grpo.train_grpo(load_config(GrpoConfig, overrides=fixed), out)
    rows = read_rows(out / LOG)
    seconds = [row["seconds"] for row in rows[1:]] or [rows[0]["seconds"]]
    on_gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    return {
        "stage": stage,
        "settings": " ".join(settings),
        "seconds a step": round(statistics.median(seconds), 2),
        "GPU, GB": on_gpu and round(on_gpu, 1),
        "host, GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
        "prompt tokens": rows[-1].get("num_tokens"),
        "loss": [round(row["loss"], 6) for row in rows],
        "kl": [row.get("kl") for row in rows],
    }


def compare(model: str, runs: list[tuple[str, str]]) -> None:
    """Measure each run in a process of its own and print a table."""
    found = []
    for stage, settings in runs:
        command = [sys.executable, __file__, "step", stage, model, *settings.split()]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            print(f"{stage} {settings}: failed: {ended.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        found.append(json.loads(ended.stdout.strip().splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    print("| stage | settings | seconds a step | GPU, GB | host, GB |\n|---|---|---|---|---|")
    for each in found:
        print("| " + " | ".join(str(each[name]) for name in list(each)[:5]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("files", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--size", choices=SIZES, default="2b")
    stepping = verbs.add_parser("step")
    stepping.add_argument("stage", choices=STAGES)
    stepping.add_argument("model")
    stepping.add_argument("settings", nargs="*")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("model")
    comparing.add_argument("runs", nargs="*", help="stage:settings, as grpo:'micro_batch=8 lora.r=64'")
    chosen = parser.parse_args()
    if chosen.verb == "make":
        make(chosen.files, chosen.out, chosen.size)
    elif chosen.verb == "step":
        with tempfile.TemporaryDirectory() as out:
            print(json.dumps(step(chosen.stage, chosen.model, chosen.settings, Path(out) / "run")))
    else:
        runs = [(stage, settings) for stage, _, settings in (run.partition(":") for run in chosen.runs)]
        compare(chosen.model, runs or list(COMPARED))


if __name__ == "__main__":
    main()
