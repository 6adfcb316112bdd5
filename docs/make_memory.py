"""Write the table of what the LoRA presets take into docs/training.md: python docs/make_memory.py."""

from __future__ import annotations

from pathlib import Path

from univg.cli.presets import PRESETS
from univg.config import load_config
from univg.models.memory import GIB
from univg.models.shapes import read_shapes
from univg.training.memory import Machine, asked_by, estimate_training

HEAD = "| preset | model | SFT, LoRA | SFT, QLoRA | GRPO, LoRA | GRPO, QLoRA |"
RULE = "|---|---|---:|---:|---:|---:|"
TRAINING = Path(__file__).parent / "training.md"


def write_rows() -> list[str]:
    """Return the table's lines: of each model with LoRA presets, GiB with the base as it is and in 4 bits."""
    rows = [HEAD, RULE]
    for name in PRESETS:
        stem, _, stage = name.rpartition("-")
        if "lora" not in stem or stage != "sft":
            continue
        model = load_config(PRESETS[name], name).model
        cells = []
        for stage in ("sft", "grpo"):
            for kind in ("none", "nf4"):
                preset = f"{stem}-{stage}"
                config = load_config(PRESETS[preset], preset, [f"lora.quantize={kind}"])
                machine = Machine("cuda", bf16="16gb" not in stem)
                estimate = estimate_training(config, read_shapes(model), machine, asked_by(config))
                cells.append(f"{estimate.total / GIB:.1f}")
        rows.append(f"| `{stem}-sft`, `-grpo` | {model.removeprefix('Qwen/')} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    lines = TRAINING.read_text().split("\n")
    start = lines.index(HEAD)
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    TRAINING.write_text("\n".join([*lines[:start], *write_rows(), *lines[end:]]))
