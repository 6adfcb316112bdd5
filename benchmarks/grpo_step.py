"""A step of GRPO: TRL's own trainer and univg's, side by side, on the same model, prompts, rollouts and settings.

    python benchmarks/grpo_step.py                # the table, some twenty minutes on two cores
    python benchmarks/grpo_step.py --only 4:1100:8 4:2200:8

For each shape (images, prompt tokens, rollouts) both trainers take whole steps in one process, in turn: draw the
rollouts (128 tokens each; end marks are forbidden to both), compute the reference's log-probabilities, the policy's
with gradients, move the weights. What is learnt from is the same, scripted, in both. Seconds are medians; ratios are
taken step by step between neighbours, as the machine may be busy, and printed with the least and the most.

Peak memory is the resident set's, over two steps in a process for each trainer, without what the process holds once
the model is loaded (that is printed too). Model: a Qwen2-VL of 9.9 million parameters with random weights, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SHAPES = ((4, 1100, 8), (4, 2200, 8), (1, 1100, 8), (2, 1100, 8), (6, 1100, 8), (4, 1100, 4), (4, 1100, 16))
TEXT_TOKENS = 207  # of the prompt, beside its images
COMPLETION = 128
TEXT = {
    "hidden_size": 288,
    "intermediate_size": 1024,
    "num_hidden_layers": 7,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
}
PHASES = ("rollouts", "reference", "policy", "other", "step")


@dataclass(frozen=True)
class Shape:
    images: int
    tokens: int  # of the prompt, about
    rollouts: int

    @classmethod
    def read(cls, text: str) -> Shape:
        return cls(*(int(part) for part in text.split(":")))

    def side_px(self) -> int:
        """Each image is as many tokens as make the prompt about as long as it should be; a token is 28 px wide."""
        return 28 * round(((self.tokens - TEXT_TOKENS) / self.images) ** 0.5)

    def __str__(self) -> str:
        return f"{self.images}:{self.tokens}:{self.rollouts}"


def save_model(folder: Path) -> None:
    from univg.models.processor import PixelBudget
    from univg.models.tiny import build_tiny, save_tiny

    model, processor = build_tiny(seed=0, pixel_budget=PixelBudget(60 * 60, 2000 * 2000), text=TEXT)
    save_tiny(model, processor, folder)


def make_rows(shape: Shape) -> list[dict]:
    """Prompts whose images are noise, which takes as long as any other picture."""
    import numpy as np
    from PIL import Image

    from univg.grounding.prompts import render_chat
    from univg.grounding.samples import GroundingSample

    rng = np.random.default_rng(0)
    side = shape.side_px()
    rows = []
    for number in range(64):
        pixels = rng.integers(0, 255, (shape.images, side, side, 3), dtype=np.uint8)
        images = [Image.fromarray(each) for each in pixels]
        sample = GroundingSample(
            images=tuple(f"{number}-{at}.png" for at in range(shape.images)),
            query="Where is the red ball?",
            task="diff",
            boxes=((0.1, 0.2, 0.6, 0.7),),
            target_image=0,
        )
        rows.append({"prompt": render_chat(shape.images, sample.query), "images": images, "sample": sample})
    return rows


def make_trainer(kind: str, model_folder: Path, rows: list[dict], options: argparse.Namespace, rollouts: int):
    """`kind`: "trl", TRL's own, or "univg". Both with clocks around their phases."""
    import torch
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from univg.models.generation.generate import forbidden_ids
    from univg.models.loading import load
    from univg.training.grpo.arguments import RowTable
    from univg.training.grpo.trainer import GroundingGRPOTrainer

    loaded = load(model_folder, dtype="float32", device="cpu")
    if not options.train_vision:
        loaded.model.model.visual.requires_grad_(False)
    vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
    never = forbidden_ids(loaded.processor.tokenizer, vocabulary, frozenset())
    arguments = GRPOConfig(
        output_dir=str(model_folder / kind),
        loss_type="grpo",
        beta=0.04,
        num_generations=rollouts,
        per_device_train_batch_size=rollouts * options.prompts,
        gradient_accumulation_steps=1,
        max_completion_length=COMPLETION,
        generation_kwargs={"suppress_tokens": never},
        max_steps=1,
        logging_steps=10**6,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=options.gradient_checkpointing,
        disable_tqdm=True,
        seed=1,
    )
    plain = torch.tensor(sorted(set(range(vocabulary)) - set(never)))
    chance = torch.Generator().manual_seed(0)
    places = torch.randint(len(plain), (rollouts * options.prompts, COMPLETION), generator=chance)
    scripted = plain[places].tolist()
    base = GRPOTrainer if kind == "trl" else GroundingGRPOTrainer

    class Timed(base):
        """Clocks, and the same rollouts for both once they have been drawn."""

        seconds: dict[str, float]

        @contextmanager
        def clock(self, phase: str):
            started = time.perf_counter()
            yield
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            with self.clock("rollouts"):
                drawn, _ = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            assert all(len(each) == COMPLETION for each in drawn)
            self.prompt_tokens = len(prompt_ids[0])
            return scripted, None

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            if torch.is_grad_enabled():
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)
            with self.clock("reference"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def _prepare_inputs(self, batch):
            with self.clock("prepared"):
                return super()._prepare_inputs(batch)

        def training_step(self, *args, **kwargs):
            with self.clock("trained"):
                return super().training_step(*args, **kwargs)

        def one_step(self) -> dict[str, float]:
            self.seconds = {}
            self.train()
            got = self.seconds
            optimizer = self.step_seconds.seconds - got["trained"]
            drawn, reference = got["rollouts"], got.get("reference", 0.0)
            return {
                "rollouts": drawn,
                "reference": reference,
                "policy": got["trained"] - got["prepared"],
                "other": got["prepared"] - drawn - reference + optimizer,
                "step": self.step_seconds.seconds,
            }

    def some_reward(completions, **_):
        return [float(at % 3) for at in range(len(completions))]

    data = RowTable.of(rows)
    trainer = Timed(loaded.model, [some_reward], arguments, data, processing_class=loaded.processor)
    trainer.remove_callback(PrinterCallback)
    trainer.step_seconds = step_clock()
    trainer.add_callback(trainer.step_seconds)
    return trainer


def step_clock():
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        seconds = 0.0

        def on_step_begin(self, args, state, control, **_):
            self._started = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            self.seconds = time.perf_counter() - self._started

    return StepClock()


def memory(kind: str, model_folder: Path, shape: Shape, options: argparse.Namespace) -> dict[str, float]:
    """(peak over two steps, before them) in MB, of a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--peak-of",
        kind,
        "--model",
        str(model_folder),
        "--only",
        str(shape),
    ]
    command += ["--threads", str(options.threads), "--prompts", str(options.prompts)]
    command += ["--train-vision"] * options.train_vision
    command += ["--gradient-checkpointing"] * options.gradient_checkpointing
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{kind}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def print_peak(kind: str, model_folder: Path, shape: Shape, options: argparse.Namespace) -> None:
    trainer = make_trainer(kind, model_folder, make_rows(shape), options, shape.rollouts)
    before = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        trainer.one_step()
    print(json.dumps({"peak": resident_mb("VmHWM"), "before": before}))


def operations(shape: Shape, prompt: int, shared: bool, vision: float) -> float:
    """GFLOP of a step, counted: 2 a weight and token forward, twice that backward; rollouts, reference, policy.

    `vision`: GFLOP of one prompt's images through the frozen tower. Head and embedding are counted at completions.
    """
    h, inner, layers = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["num_hidden_layers"]
    a_token = layers * (4 * h * h + 3 * h * inner) * 2
    head = 2 * h * 1100
    rows, c = shape.rollouts, COMPLETION
    prompts = 1 if shared else rows

    def attention(queries: float, keys: float) -> float:
        return 4 * queries * keys * h * layers

    read = prompts * (prompt * a_token + attention(prompt, prompt / 2))
    write = rows * (c * (a_token + head) + attention(c, prompt + c / 2))
    return ((read + write) * (1 + 1 + 3) + (1 if shared else 3 * rows) * vision * 1e9) / 1e9


def vision_operations(shape: Shape) -> float:
    depth, width, patch = 4, 160, 1176
    patches = (shape.side_px() // 14) ** 2
    a_patch = 2 * (patch * width + depth * 12 * width * width + width * 4 * (width * 4 + 288) / 4)
    return shape.images * (patches * a_patch + 4 * patches * patches * width * depth) / 1e9


def spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def measure(shape: Shape, model_folder: Path, options: argparse.Namespace) -> dict:
    rows = make_rows(shape)
    trainers = {
        kind: make_trainer(kind, model_folder, rows, options, shape.rollouts) for kind in ("trl", "univg")
    }
    for trainer in trainers.values():
        trainer.one_step()  # the first calls of a process are slower than the rest
    taken: dict[str, list[dict]] = {kind: [] for kind in trainers}
    for _ in range(options.rounds):
        for kind, trainer in trainers.items():
            taken[kind].append(trainer.one_step())
    result: dict = {
        "shape": str(shape),
        "prompt": trainers["univg"].prompt_tokens,
        "seconds": {},
        "ratio": {},
    }
    for phase in PHASES:
        pairs = [(a[phase], b[phase]) for a, b in zip(taken["trl"], taken["univg"], strict=True)]
        result["seconds"][phase] = [statistics.median(side) for side in zip(*pairs, strict=True)]
        result["ratio"][phase] = [a / b for a, b in pairs]
    vision = vision_operations(shape)
    counted = [
        options.prompts * operations(shape, result["prompt"], shared, vision) for shared in (False, True)
    ]
    result["gflop"] = counted
    if options.memory:
        result["memory"] = [memory(kind, model_folder, shape, options) for kind in ("trl", "univg")]
    return result


def matmul_gflops() -> float:
    """What this machine's matrix product reaches just now, in float32."""
    import torch

    one = torch.randn(2048, 1024)
    two = torch.randn(1024, 1024)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        one @ two
        best = max(best, 2 * 2048 * 1024 * 1024 / (time.perf_counter() - started) / 1e9)
    return best


def show(result: dict, peak_gflops: float) -> None:
    images, _, rollouts = result["shape"].split(":")
    print(f"\n{images} images, {result['prompt']} prompt tokens, {rollouts} rollouts of {COMPLETION} tokens")
    print(f"  {'':10}{'TRL':>8}{'univg':>8}   ratio (least–most)")
    for phase in PHASES:
        theirs, ours = result["seconds"][phase]
        print(f"  {phase:10}{theirs:7.2f}s{ours:7.2f}s   {spread(result['ratio'][phase])}")
    theirs, ours = result["gflop"]
    print(f"  counted   {theirs:6.0f} {ours:7.0f} GFLOP  {theirs / ours:.1f}")
    floor = ours / peak_gflops
    print(
        f"  {'floor':10}{'':8}{floor:7.2f}s   at this machine's {peak_gflops:.0f} GFLOP/s of matrix products"
    )
    if "memory" in result:
        theirs, ours = (each["peak"] - each["before"] for each in result["memory"])
        whole = [each["peak"] for each in result["memory"]]
        print(f"  memory    {theirs:6.0f} {ours:7.0f} MB     {theirs / ours:.1f}", end="")
        print(f"  (whole process {whole[0]:.0f}, {whole[1]:.0f} MB: {whole[0] / whole[1]:.1f})", flush=True)


def processor() -> str:
    """Name the processor, and what torch's kernels use of it."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'processor unknown'}, {torch.backends.cpu.get_cpu_capability()}"


def table(results: list[dict]) -> str:
    head = [
        "processor",
        "images",
        "prompt",
        "G",
        "TRL, s",
        "univg, s",
        "step",
        "rollouts",
        "reference",
        "policy",
    ]
    head += ["memory, MB", "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for result in results:
        images, _, rollouts = result["shape"].split(":")
        ratios = [
            f"{spread(result['ratio'][phase])}" for phase in ("step", "rollouts", "reference", "policy")
        ]
        theirs, ours = result["seconds"]["step"]
        cells = [
            processor(),
            images,
            str(result["prompt"]),
            rollouts,
            f"{theirs:.2f}",
            f"{ours:.2f}",
            *ratios,
        ]
        if "memory" in result:
            peaks = [each["peak"] - each["before"] for each in result["memory"]]
            cells += [f"{peaks[0]:.0f} → {peaks[1]:.0f}", f"{peaks[0] / peaks[1]:.1f}"]
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(results: list[dict], path: Path) -> None:
    """Seconds of a step by phase, and ratios, shape by shape."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    bars, points = figure.subplots(1, 2)
    colours = dict(zip(PHASES, ("#1f6feb", "#2b8a3e", "#d9480f", "#868e96"), strict=False))
    labels = []
    for at, result in enumerate(results):
        images, _, rollouts = result["shape"].split(":")
        labels.append(f"{images} im.\n{result['prompt']} tok.\nG={rollouts}")
        for side, offset in ((0, -0.2), (1, 0.2)):
            bottom = 0.0
            for phase in PHASES[:-1]:
                height = result["seconds"][phase][side]
                name = phase if at == side == 0 else None
                bars.bar(at + offset, height, 0.36, bottom=bottom, color=colours[phase], label=name)
                bottom += height
        marks = (("step", "o"), ("rollouts", "^"), ("reference", "s"), ("policy", "D"))
        for beside, (phase, mark) in zip((-0.18, -0.06, 0.06, 0.18), marks, strict=True):
            values = result["ratio"][phase]
            middle = statistics.median(values)
            error = [[middle - min(values)], [max(values) - middle]]
            colour = colours.get(phase, "black")
            points.errorbar(
                at + beside, middle, error, fmt=mark, color=colour, ms=4, label=None if at else phase
            )
    bars.set(ylabel="seconds a step (left TRL, right univg)", xticks=range(len(labels)))
    points.set(ylabel="TRL / univg", xticks=range(len(labels)), ylim=(0, None))
    for axes in (bars, points):
        axes.set_xticklabels(labels, fontsize=7)
        axes.legend(frameon=False, fontsize=8)
        axes.grid(axis="y", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", type=Shape.read, help="images:prompt tokens:rollouts")
    parser.add_argument(
        "--rounds", type=int, default=3, help="steps of each trainer, after one that is not counted"
    )
    parser.add_argument("--prompts", type=int, default=1, help="a step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train-vision", action="store_true", help="both train the vision tower too")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    parser.add_argument("--peak-of", choices=("trl", "univg"), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")

    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shapes = options.only or [Shape(*each) for each in SHAPES]
    if options.peak_of:
        print_peak(options.peak_of, options.model, shapes[0], options)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        results = []
        for shape in shapes:
            results.append(measure(shape, Path(folder), options))
            show(results[-1], matmul_gflops())
    print("\n" + table(results))
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
