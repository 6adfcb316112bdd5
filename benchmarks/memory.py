"""Compare the memory that `univg fit` estimates with what runs really take: estimate, measured peak, their ratio.

    OMP_NUM_THREADS=1 python benchmarks/memory.py              # all settings, each in a process of its own
    OMP_NUM_THREADS=1 python benchmarks/memory.py sft-full     # some, by name

Models have random weights (memory does not depend on what they are) and the embedded model's tokenizer, so that nothing
is fetched. On a CPU the measured peak is the process's private memory (`RssAnon`: files that are mapped and can be
dropped do not count) above what it had once everything was imported, read every 2 ms; on a GPU it is
`torch.cuda.max_memory_allocated`. A random model ends no rollout: each has `max_completion_tokens`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WORDS = 151936
TEXTS: dict[str, dict[str, Any]] = {
    "100M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 10, "num_attention_heads": 8},
    "300M": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16},
    "2B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
SFT = ("batch=4", "micro_batch=2")
GRPO = ("prompts_per_step=2", "rollouts=4", "micro_batch=4", "max_completion_tokens=48", "rollout_page_every=0")
SETTINGS: dict[str, tuple[str, str, str, int, int, tuple[str, ...]]] = {
    # name: stage, family, size, images, pixels of an image, keys
    "sft-full": ("sft", "qwen2_vl", "100M", 4, 100352, SFT),
    "sft-full-checkpointing": ("sft", "qwen2_vl", "100M", 4, 100352, (*SFT, "gradient_checkpointing=true")),
    "sft-lora": ("sft", "qwen2_vl", "100M", 4, 100352, (*SFT, "lora.r=16")),
    "grpo-full": ("grpo", "qwen2_vl", "100M", 4, 100352, GRPO),
    "grpo-lora": ("grpo", "qwen2_vl", "100M", 4, 100352, (*GRPO, "lora.r=16")),
    "sft-large-pictures": ("sft", "qwen2_vl", "100M", 4, 401408, ("batch=2", "lora.r=16")),
    "answer": ("answer", "qwen2_vl", "300M", 1, 401408, ()),
    "answer-qwen2.5": ("answer", "qwen2_5_vl", "300M", 4, 200704, ()),
    "answer-qwen3-8-rows": ("answer", "qwen3_vl", "100M", 4, 200704, ("rows=8",)),
    "sft-full-qwen3": ("sft", "qwen3_vl", "100M", 4, 100352, SFT),
    "sft-full-float32": ("sft", "qwen2_vl", "100M", 4, 100352, ("batch=2", "bf16=false")),
    "sft-tower": ("sft", "qwen2_vl", "100M", 1, 100352, ("batch=2", "freeze_vision=false")),
    "grpo-full-qwen3": ("grpo", "qwen3_vl", "100M", 4, 100352, GRPO),
    "grpo-separate": ("grpo", "qwen2_vl", "100M", 1, 100352, (*GRPO, "shared_prefix=off")),
    "sft-300M": ("sft", "qwen2_vl", "300M", 2, 100352, ("batch=2",)),
    "answer-2B": ("answer", "qwen2_vl", "2B", 2, 200704, ("dtype=bfloat16",)),
}


def make(out: Path, family: str, size: str) -> None:
    """Write a checkpoint of a family with random weights in bfloat16 and the embedded model's processor."""
    import shutil

    import torch
    import transformers
    from transformers import CONFIG_MAPPING

    from univg.models.loading import MODEL_FAMILIES
    from univg.models.checkpoint import locate

    out.mkdir(parents=True, exist_ok=True)
    assets = locate("embedded").folder
    for file in assets.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            shutil.copyfile(file, out / file.name)
    known = json.loads((assets / "config.json").read_text())
    text = {**TEXTS[size], "num_key_value_heads": 2, "vocab_size": WORDS, "tie_word_embeddings": True}
    text |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    head = text["hidden_size"] // text["num_attention_heads"]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [head // 8, head // 8, head // 4]}
    deep = size == "2B"
    wide = {"depth": 32 if deep else 8, "num_heads": 16 if deep else 8}
    vision: dict[str, Any] = {
        "qwen2_vl": {**wide, "embed_dim": 1280 if deep else 512, "hidden_size": text["hidden_size"]},
        "qwen2_5_vl": {**wide, "hidden_size": 512, "intermediate_size": 1368, "fullatt_block_indexes": [3, 7]},
        "qwen3_vl": {**wide, "hidden_size": 512, "intermediate_size": 2048, "deepstack_visual_indexes": [2, 4, 6]},
    }[family]
    if family != "qwen2_vl":
        vision["out_hidden_size"] = text["hidden_size"]
    if family == "qwen3_vl":
        text["head_dim"] = head
        rope["mrope_interleaved"] = True
        path = out / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "patch_size": 16}))
    marks = {name: known[name] for name in known if name.endswith("_token_id") and "vi" in name}
    marks["image_token_id"] = known["image_token_id"]
    config = CONFIG_MAPPING[family](
        text_config={**text, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=True, **marks
    )
    torch.manual_seed(0)
    model = getattr(transformers, MODEL_FAMILIES[family].architecture)._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(out)


class Peak:
    """The highest private memory of this process since it began to watch, in bytes above `base`."""

    def __init__(self) -> None:
        import torch

        self.cuda = torch.cuda.is_available()
        self.base, self.highest, self.ends = _private(), 0, False
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ends:
            self.highest = max(self.highest, _private())
            time.sleep(0.002)

    def read(self) -> int:
        self.ends = True
        self.thread.join()
        if self.cuda:
            import torch

            return int(torch.cuda.max_memory_allocated())
        return self.highest - self.base


def _private() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def run(name: str, model: Path) -> dict[str, Any]:
    """Estimate and measure one setting, in this process."""
    stage, family, size, images, pixels, keys = SETTINGS[name]
    estimated, measured = (_answer if stage == "answer" else _train)(stage, model, images, pixels, keys)
    return {
        "setting": name,
        "stage": stage,
        "model": f"{family}, {size}",
        "estimate": estimated.total,
        "measured": measured,
        "when": estimated.when,
        "parts": dict(estimated.parts),
    }


def _answer(stage: str, model: Path, images: int, pixels: int, keys: tuple[str, ...]) -> tuple[Any, int]:
    import torch
    from PIL import Image

    from univg.models.generation.generate import Chat, generate
    from univg.models.loading import load
    from univg.models.memory import Asked, estimate_answering
    from univg.models.pixels import PixelBudget
    from univg.models.shapes import read_shapes

    asked_for = dict(key.split("=") for key in keys)
    rows, dtype = int(asked_for.get("rows", 1)), asked_for.get("dtype", "float32")
    side = int(pixels**0.5)
    torch.ones(64, 64) @ torch.ones(64, 64)
    peak = Peak()
    loaded = load(model, dtype=dtype, pixel_budget=PixelBudget(3136, pixels))
    pictures = [Image.new("RGB", (side, side), (i * 20, 99, 7)) for i in range(images)]
    chats = [Chat.ask(pictures, "Where is it?") for _ in range(rows)]
    generate(loaded, chats, max_new_tokens=24)
    measured = peak.read()
    asked = Asked(images, pixels, answer=24)
    return estimate_answering(read_shapes(model), asked, rows, 2 if dtype == "bfloat16" else 4), measured


def _train(stage: str, model: Path, images: int, pixels: int, keys: tuple[str, ...]) -> tuple[Any, int]:
    import torch

    from univg.config import load_config
    from univg.models.memory import Asked
    from univg.models.shapes import read_shapes
    from univg.training.config import GrpoConfig, SftConfig
    from univg.training.grpo import stage as grpo
    from univg.training.memory import Machine, estimate_training
    from univg.training.run.precision import has_bf16
    from univg.training.sft import stage as sft

    for module, trainer in ((sft, sft.SftTrainer), (grpo, grpo.GroundingGRPOTrainer)):
        trainer._save_checkpoint = lambda *_: None  # what is measured are steps
        module.write_model = lambda *_: None
    family = "{referring: 1}" if images == 1 else "{multi_view: 1}"
    fixed = (
        *(f"model={model}", "max_steps=2", "workers=0", f"data.0.families={family}", "data.0.image_px=700"),
        f"pixel_budget={{min_pixels: {pixels * 9 // 10}, max_pixels: {pixels}}}",
    )
    config: Any = load_config(SftConfig if stage == "sft" else GrpoConfig, overrides=[*fixed, *keys])
    torch.ones(64, 64) @ torch.ones(64, 64)
    with tempfile.TemporaryDirectory() as folder:
        peak = Peak()
        train: Any = sft.train_sft if stage == "sft" else grpo.train_grpo
        train(config, Path(folder) / "run")
        measured = peak.read()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = Asked(images, pixels, answer=config.max_completion_tokens if stage == "grpo" else 100)
    machine = Machine(device, has_bf16())
    return estimate_training(config, read_shapes(model), machine, asked), measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="names (default: all)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help="print the estimate's parts as well")
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(run(chosen.settings[0], Path(chosen.child))))
        return
    print("| setting | model | estimate, GiB | measured, GiB | ratio |\n|---|---|---:|---:|---:|", flush=True)
    for name in chosen.settings or SETTINGS:
        _, family, size, *_ = SETTINGS[name]
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), family, size)
            command = [sys.executable, __file__, name, "--child", folder]
            ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            print(f"{name}: failed: {ended.stderr.strip()[-400:]}", flush=True)
            continue
        found = json.loads(ended.stdout.strip().splitlines()[-1])
        estimate, measured = found["estimate"] / 2**30, found["measured"] / 2**30
        print(
            f"| `{name}` | {found['model']} | {estimate:.2f} | {measured:.2f} | {estimate / measured:.2f} |",
            flush=True,
        )
        if chosen.parts:
            parts = ", ".join(f"{part} {size / 2**30:.2f}" for part, size in found["parts"].items())
            print(f"{found['when']}: {parts}", flush=True)


if __name__ == "__main__":
    main()
