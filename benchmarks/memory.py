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
import multiprocessing
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from univg.config import load_config
from univg.models.checkpoint import locate
from univg.models.generation.generate import Chat, generate
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.training.config import GrpoConfig, SftConfig
from univg.training.grpo import stage as grpo
from univg.training.sft import stage as sft

STEPS = 2
WORDS = 151936
TEXTS: dict[str, dict[str, Any]] = {
    "100M": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
    },
    "300M": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 16,
    },
    "2B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}
SFT = ("batch=4", "micro_batch=2")
GRPO = (
    "prompts_per_step=2",
    "rollouts=4",
    "micro_batch=4",
    "max_completion_tokens=48",
    "rollout_page_every=0",
)
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


def configure(family: str, size: str) -> Any:
    """Return transformers' configuration of a setting's model, for the embedded model's tokenizer."""
    from transformers import CONFIG_MAPPING

    known = json.loads((locate("embedded").folder / "config.json").read_text())
    text = {**TEXTS[size], "num_key_value_heads": 2, "vocab_size": WORDS, "tie_word_embeddings": True}
    text |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    head = text["hidden_size"] // text["num_attention_heads"]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [head // 8, head // 8, head // 4]}
    wide = {"depth": 32, "num_heads": 16} if size == "2B" else {"depth": 8, "num_heads": 8}
    vision: dict[str, Any] = {
        "qwen2_vl": {**wide, "embed_dim": 1280 if size == "2B" else 512, "hidden_size": text["hidden_size"]},
        "qwen2_5_vl": {
            **wide,
            "hidden_size": 512,
            "intermediate_size": 1368,
            "fullatt_block_indexes": [3, 7],
        },
        "qwen3_vl": {
            **wide,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "deepstack_visual_indexes": [2, 4, 6],
        },
    }[family]
    if family != "qwen2_vl":
        vision["out_hidden_size"] = text["hidden_size"]
    if family == "qwen3_vl":
        text["head_dim"] = head
        rope["mrope_interleaved"] = True
    marks = {name: known[name] for name in known if name.endswith("_token_id") and "vi" in name}
    marks["image_token_id"] = known["image_token_id"]
    texts = {**text, "rope_parameters": rope}
    return CONFIG_MAPPING[family](text_config=texts, vision_config=vision, tie_word_embeddings=True, **marks)


def make(out: Path, family: str, size: str) -> None:
    """Write a checkpoint with random weights in bfloat16 and the embedded model's processor."""
    import torch
    import transformers

    from univg.models.families import MODEL_FAMILIES

    for file in locate("embedded").folder.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            shutil.copyfile(file, out / file.name)
    if family == "qwen3_vl":
        path = out / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "patch_size": 16}))
    torch.manual_seed(0)
    architecture = getattr(transformers, MODEL_FAMILIES[family].architecture)
    architecture._from_config(configure(family, size), dtype=torch.bfloat16).save_pretrained(out)


class Peak:
    """The highest private memory of this process since it began to watch, in bytes above `base`."""

    def __init__(self) -> None:
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
            return int(torch.cuda.max_memory_allocated())
        return self.highest - self.base


def _private() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def estimate(name: str) -> Any:
    """Estimate a setting, from its model's configuration."""
    from univg.models.memory import Asked, estimate_answering
    from univg.models.shapes import shapes_of
    from univg.training.memory import Machine, estimate_training
    from univg.training.run.precision import has_bf16

    stage, family, size, images, pixels, keys = SETTINGS[name]
    shapes = shapes_of(configure(family, size).to_dict())
    if stage == "answer":
        asked_for = dict(key.split("=") for key in keys)
        size_of = 2 if asked_for.get("dtype") == "bfloat16" else 4
        return estimate_answering(
            shapes, Asked(images, pixels, answer=24), int(asked_for.get("rows", 1)), size_of
        )
    config = _read_keys(stage, Path("nowhere"), images, pixels, keys)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return estimate_training(config, shapes, Machine(device, has_bf16()), _find_longest(config, family))


def _find_longest(config: Any, family: str) -> Any:
    """Return what the rows hold that a setting's steps learn from at once, where these are longest: as the estimate is
    of a run whose rows are known. (The world's questions show two to six pictures.)"""
    from univg.models.memory import Asked
    from univg.models.processor import GroundingProcessor
    from univg.models.tokens import image_tokens
    from univg.training.run.rows import StageRows, render_prompt_text

    processor = GroundingProcessor.from_pretrained(locate("embedded").folder)
    if family == "qwen3_vl":
        processor.image_processor.patch_size = 16
    processor.set_pixel_budget(PixelBudget(config.pixel_budget.min_pixels, config.pixel_budget.max_pixels))
    learns = isinstance(config, SftConfig)
    count = STEPS * (config.batch if learns else config.prompts_per_step)
    rows, found = StageRows(config, processor, count, teach=learns), []
    for row in rows:
        sizes = [processor.pixel_budget.resized(image.size, processor.factor) for image in row.images]
        text = len(processor.tokenizer.encode(render_prompt_text(processor, row))) + len(row.images)
        answer = len(processor.tokenizer.encode(row.response)) + 1 if learns else config.max_completion_tokens
        found.append((image_tokens(sizes, processor.factor), text, answer))
    at_once = config.micro_batch if learns else 1
    size = config.batch if learns else config.prompts_per_step
    parts = []
    for first in range(0, count, size):
        ordered = sorted(found[first : first + size], key=sum)  # as a step is split into micro-batches
        parts += [ordered[i : i + at_once] for i in range(0, size, at_once)]
    longest = max(parts, key=lambda part: sum(map(sum, part)))
    seen, text, answer = (-(-sum(column) // len(longest)) for column in zip(*longest, strict=True))
    return Asked(1, (seen - 2) * processor.factor**2, text, answer)


def _read_keys(stage: str, model: Path, images: int, pixels: int, keys: tuple[str, ...]) -> Any:
    family = "{referring: 1}" if images == 1 else "{multi_view: 1}"
    fixed = (
        *(
            f"model={model}",
            f"max_steps={STEPS}",
            "workers=0",
            f"data.0.families={family}",
            "data.0.image_px=700",
        ),
        f"pixel_budget={{min_pixels: {pixels * 9 // 10}, max_pixels: {pixels}}}",
    )
    return load_config(SftConfig if stage == "sft" else GrpoConfig, overrides=[*fixed, *keys])


def measure(name: str, model: Path) -> int:
    """Run a setting in this process and return its peak."""
    stage, _, _, images, pixels, keys = SETTINGS[name]
    torch.ones(64, 64) @ torch.ones(64, 64)
    if stage == "answer":
        asked_for = dict(key.split("=") for key in keys)
        side = int(pixels**0.5)
        pictures = [Image.new("RGB", (side, side), (i * 20, 99, 7)) for i in range(images)]
        chats = [Chat.ask(pictures, "Where is it?") for _ in range(int(asked_for.get("rows", 1)))]
        peak = Peak()
        loaded = load(model, dtype=asked_for.get("dtype", "float32"), pixel_budget=PixelBudget(3136, pixels))
        generate(loaded, chats, max_new_tokens=24)
        return peak.read()
    for module, trainer in ((sft, sft.SftTrainer), (grpo, grpo.GroundingGRPOTrainer)):
        trainer._save_checkpoint = lambda *_: None  # what is measured are steps
        module.write_model = lambda *_: None
    config = _read_keys(stage, model, images, pixels, keys)
    peak = Peak()
    (sft.train_sft if stage == "sft" else grpo.train_grpo)(config, model / "run")
    measured = peak.read()
    return measured


def _apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, forked from this one, which has imported all there is to import."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def call() -> None:
        sending.send(function(*arguments))

    process = context.Process(target=call)
    process.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError:
        return None
    finally:
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", help=f"names (default: all): {', '.join(SETTINGS)}")
    parser.add_argument("--parts", action="store_true", help="print the estimates' parts as well")
    parser.add_argument("--estimate", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    print("| setting | model | estimate, GiB | measured, GiB | ratio |\n|---|---|---:|---:|---:|", flush=True)
    for name in chosen.settings or SETTINGS:
        _, family, size, *_ = SETTINGS[name]
        found, measured = estimate(name), None
        if not chosen.estimate:
            with tempfile.TemporaryDirectory() as folder:
                _apart(make, Path(folder), family, size)
                measured = _apart(measure, name, Path(folder))
        row = f"| `{name}` | {family}, {size} | {found.total / 2**30:.2f} |"
        if measured is not None:
            row += f" {measured / 2**30:.2f} | {found.total / measured:.2f} |"
        print(row, flush=True)
        if chosen.parts:
            parts = ", ".join(f"{part} {size / 2**30:.2f}" for part, size in found.parts.items())
            print(f"{found.when}: {parts}", flush=True)


if __name__ == "__main__":
    main()
