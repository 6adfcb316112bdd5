"""Estimate the peak memory of a training run from its config and its model's shapes, before anything is loaded.

    estimate = estimate_training(config, read_shapes(config.model), Machine(), asked_by(config, images=4))
    estimate.total, estimate.parts, estimate.when

The peak is that of one process at the worst of a step's moments: while rollouts are drawn, at the end of the forward
pass, or at the end of the backward pass. What a layer keeps for its backward pass was counted in the tensors that
autograd saves (`saved` says of each kind of run what they are).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from univg.models.memory import Asked, Estimate, features, keys_and_values, reading
from univg.models.pixels import PixelBudget
from univg.models.shapes import Shapes
from univg.training.config import LANGUAGE_LINEAR, GrpoConfig, LoraSettings, SftConfig, StageConfig
from univg.training.grpo.plan import BatchPlan, batch_plan
from univg.training.run.launch import name_division

__all__ = ["Machine", "Sharding", "asked_by", "estimate_training", "sharding_of"]

Sharding = Literal["none", "zero2", "zero3", "fsdp2"]
NF4 = 0.516
"""Bytes a weight in 4 bits takes, with the doubly quantised scales of its blocks of 64: 0.5 + 1/64 + a little."""
VLLM_SHARE = 0.3
"""TRL's `vllm_gpu_memory_utilization`: the share of a card that colocated vLLM takes for itself."""
AT_WORK = 60 << 20
"""What libraries take once they work, on a processor: measured with a model of next to no size."""
HELD = 1.4
"""Times what a layer keeps, what a processor's heap grows by: between what is kept stand holes that were copies, and
nothing is given back before a process ends. Measured: 37.7 kB a token where 24 are kept (LoRA, bf16)."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""TRL's head scores at most so many tokens by so many words at once."""
SIDE_OF_THE_WORLD = 240
"""The procedural world's largest pictures, in pixels, where a config says nothing else."""


@dataclass(frozen=True)
class Machine:
    """Where a run is: its kind of device, whether it computes in bf16 there, and among how many processes what is
    divided. `memory`: the device's, in bytes, of which colocated vLLM takes a share."""

    device: Literal["cuda", "cpu"] = "cuda"
    bf16: bool = True
    processes: int = 1
    sharding: Sharding = "none"
    memory: int = 0


@dataclass(frozen=True)
class _Run:
    """What the moments of a step have in common."""

    config: StageConfig
    shapes: Shapes
    machine: Machine
    asked: Asked

    @property
    def bf16(self) -> bool:
        return self.config.bf16 and self.machine.bf16

    @property
    def size(self) -> int:
        """Bytes of a number that is computed with."""
        return 2 if self.bf16 else 4

    @property
    def lora(self) -> LoraSettings | None:
        return self.config.lora

    @property
    def trained(self) -> int:
        """Numbers that are learnt."""
        if self.lora is not None:
            targets = None if self.lora.target == LANGUAGE_LINEAR else _names(self.lora)
            return self.shapes.text.adapters(self.lora.r, targets)
        return self.shapes.text.parameters + (
            0 if self.config.freeze_vision else self.shapes.vision.parameters
        )

    @property
    def divided(self) -> int:
        """Among how many processes the weights are divided."""
        return self.machine.processes if self.machine.sharding in ("zero3", "fsdp2") else 1

    @property
    def prompt(self) -> int:
        limit = self.config.max_tokens
        return self.asked.prompt(self.shapes, None if limit is None else limit - self.asked.answer)

    @property
    def seen(self) -> int:
        """Tokens of a prompt's pictures."""
        return max(0, self.prompt - self.asked.text)


def asked_by(
    config: StageConfig, images: int = 4, answer: int = 256, stored: PixelBudget | None = None
) -> Asked:
    """Return what a config's longest rows hold, taken to have `images` pictures of the largest size that it allows.

    `stored`: the pixel budget that the model's folder states, for a config that states none.
    """
    limits = config.pixel_budget
    budget = PixelBudget(limits.min_pixels, limits.max_pixels) if limits else stored or PixelBudget()
    is_world = all(source.reader == "world" for source in config.data)
    sides = [source.image_px or SIDE_OF_THE_WORLD for source in config.data] if is_world else []
    side = max((max(one) if isinstance(one, tuple) else one for one in sides), default=None)
    if isinstance(config, GrpoConfig):
        answer = config.max_completion_tokens
    return Asked.largest(images, budget, side, answer)


def estimate_training(config: StageConfig, shapes: Shapes, machine: Machine, asked: Asked) -> Estimate:
    """Estimate the peak of one process of a run whose rows hold what is `asked`.

    Raises UnivgError for batches that cannot be dealt to the machine's processes.
    """
    run = _Run(config, shapes, machine, asked)
    moments = []
    if isinstance(config, GrpoConfig):
        plan = batch_plan(config.prompts_per_step, config.rollouts, config.micro_batch, machine.processes)
        moments.append(_drawing(run, config, plan))
        shared = config.shared_prefix != "off"
        prompts = max(plan.prompts_at_once) if shared else plan.micro_batch
        rows, accumulates = plan.micro_batch, plan.accumulation > 1
        tokens, answered = prompts * run.prompt + rows * asked.answer, rows * asked.answer
    else:
        rows = config.micro_batch if isinstance(config, SftConfig) else 1
        batch = config.batch if isinstance(config, SftConfig) else 1
        prompts, accumulates = rows, batch > rows * machine.processes
        tokens, answered = rows * (run.prompt + asked.answer), rows * asked.answer
    moments += _learning(run, tokens, answered, prompts, accumulates)
    fixed = _fixed(run)
    worst = max(moments, key=lambda moment: moment.total)
    return Estimate({name: size for name, size in {**fixed, **worst.parts}.items() if size}, worst.when)


def _fixed(run: _Run) -> dict[str, int]:
    """Return what is there all along: weights, optimizer, reference, what vLLM takes."""
    shapes, config = run.shapes, run.config
    deepspeed = run.machine.sharding in ("zero2", "zero3")
    held = run.size if run.lora is not None or deepspeed else 4
    weights = shapes.parameters * held / run.divided
    if run.lora is not None and run.lora.quantize == "nf4":
        weights -= shapes.text.linear * (held - NF4)
    optimizer = run.trained * (8 + (4 if deepspeed and run.bf16 else 0)) * _of_states(config)
    own = run.machine.processes if run.machine.sharding != "none" else 1
    fixed = {
        "weights": int(weights) + (run.trained * 4 if run.lora is not None else 0),
        "optimizer": int(optimizer / own),
        "libraries at work": AT_WORK if run.machine.device == "cpu" else 0,
    }
    if isinstance(config, GrpoConfig):
        if config.beta and run.lora is None:
            fixed["reference model"] = int(shapes.parameters * (run.size if deepspeed else 4) / run.divided)
        if config.vllm == "colocate":
            share = config.trainer.get("vllm_gpu_memory_utilization", VLLM_SHARE)
            fixed["vLLM"] = int(share * run.machine.memory)
    return fixed


def _of_states(config: StageConfig) -> float:
    """Return the share of AdamW's two numbers in float32 that the optimizer keeps of a weight."""
    name = str(config.trainer.get("optim", "adamw_torch_fused"))
    if "8bit" in name:
        return 0.25
    return {"sgd": 0.0, "adafactor": 0.01, "lion_32bit": 0.5, "adagrad": 0.5, "rmsprop": 0.5}.get(name, 1.0)


def _drawing(run: _Run, config: GrpoConfig, plan: BatchPlan) -> Estimate:
    """Return what rollouts take while they are drawn, beside what is there all along."""
    rows = plan.micro_batch * plan.accumulation
    at_once = min(rows, config.rows_at_once or rows)
    whole = run.divided > 1 and run.machine.sharding == "zero3"
    parts = {"pictures of a step": _pictures(run, -(-rows // config.rollouts))}
    if whole:
        parts["weights gathered"] = run.shapes.parameters * run.size
    if config.vllm == "off":
        prompts = -(-at_once // config.rollouts) if config.shared_prefix != "off" else at_once
        tokens = prompts * run.prompt + at_once * (run.asked.answer + 64)
        parts["rollouts' keys and values"] = keys_and_values(run.shapes, tokens, run.size)
        words = at_once * run.shapes.text.vocabulary
        parts["reading and logits"] = max(
            reading(run.shapes, prompts * run.prompt, run.size),
            words * (run.size + 4 * 4),
            features(run.shapes, prompts * run.seen, run.size),
        )
    if run.lora is None and run.bf16 and run.machine.sharding == "none":
        parts["weights cast to bfloat16"] = 2 * _cast(run)
    return Estimate(parts, "while rollouts are drawn")


def _pictures(run: _Run, prompts: int) -> int:
    """Return the bytes of the pictures of so many prompts, cut into patches in float32."""
    vision = run.shapes.vision
    return prompts * run.seen * vision.merge**2 * 6 * vision.side**2 * 4


def _cast(run: _Run) -> int:
    """Return how many numbers autocast keeps a copy of in a forward pass: those of trained matrices."""
    text = run.shapes.text
    return text.linear + text.vocabulary * text.hidden


def _learning(run: _Run, tokens: int, answered: int, prompts: int, accumulates: bool) -> list[Estimate]:
    """Return what the end of the forward and of the backward pass take, beside what is there all along."""
    shapes, config, layers = run.shapes, run.config, run.shapes.text.layers
    a_layer, casts = saved(run) * tokens, 0
    if run.machine.device == "cpu":
        a_layer = int(a_layer * HELD)
    if run.lora is None and run.bf16 and run.machine.sharding == "none":
        casts = 2 * _cast(run)
    if config.gradient_checkpointing:
        residual = run.size if run.lora is not None else 4
        activations = layers * tokens * shapes.text.hidden * residual
        at_work = a_layer + tokens * (3 * shapes.text.inner + 4 * shapes.text.hidden) * run.size
    else:
        activations, at_work = layers * a_layer, 0
    if not config.freeze_vision and run.lora is None:
        activations += _tower(run, prompts)
    own = run.machine.processes if run.machine.sharding != "none" else 1
    gradients = run.trained * (2 if run.machine.sharding in ("zero2", "zero3") and run.bf16 else 4) // own
    pictures = 2 * _pictures(run, prompts)
    gathered = 0
    if run.divided > 1:
        one = shapes.text.linear // layers * 2 + shapes.text.vocabulary * shapes.text.hidden
        gathered = one * run.size
    head = _head(run, answered)
    # The head's gradient waits until that of the same matrix as embeddings, which is whole too, comes and is added.
    copies = (3 if shapes.text.tied else 1) - (0 if accumulates else 1)
    embedding = 4 * copies * shapes.text.vocabulary * shapes.text.hidden if run.lora is None else 0
    common = {"pictures": pictures, "weights gathered": gathered}
    forward = {
        **common,
        "gradients": gradients if accumulates else 0,
        "weights cast to bfloat16": casts,
        "activations": activations + (at_work if run.divided > 1 else 0),
        ("a layer at work" if at_work > head else "logits"): max(head, at_work),
    }
    backward = {
        **common,
        "gradients": gradients,
        "gradient of the embeddings": embedding // (own if run.divided > 1 else 1),
        "activations": at_work + activations // layers,
    }
    return [
        Estimate(forward, "at the end of a forward pass"),
        Estimate(backward, "at the end of a backward pass"),
    ]


def saved(run: _Run) -> int:
    """Return the bytes that one layer of the language model keeps of a token for its backward pass.

    Counted by `torch.autograd.graph.saved_tensors_hooks`, of Qwen2-VL and Qwen3-VL, the weights' casts apart. Under
    autocast each linear layer keeps a copy of its input of its own; the residual stream stays float32 unless the
    weights are bfloat16 (LoRA).
    """
    text = run.shapes.text
    h, f, q, k = text.hidden, text.inner, text.queries, text.keys
    heads = (10 * q + 10 * k) if not text.has_biases else (4 * q + 4 * k)
    if run.lora is not None and run.bf16:
        count = 8 * f + 18 * h + (heads - 2 * k if not text.has_biases else 6 * q + 4 * k)
    elif run.bf16:
        on_cpu = run.machine.device == "cpu" and isinstance(run.config, SftConfig)
        count = 8 * f + 26 * h + heads + (6 * q + 4 * k if on_cpu else 0)  # attention in float32 there
    else:
        normed = 0 if text.has_biases else 1 if run.lora is not None else 2
        count = 4 * (4 * f + (4 if run.lora is not None else 6) * h + (2 + normed) * (q + k))
    if run.lora is not None and run.lora.dropout:
        count += 5 * h + q + f  # which inputs were dropped
    return count


def _tower(run: _Run, prompts: int) -> int:
    """Return the bytes that a vision tower which is trained keeps for its backward pass."""
    vision = run.shapes.vision
    a_patch = (4 * vision.inner + 14 * vision.hidden) * run.size + 8 * vision.hidden
    patches = prompts * run.seen * vision.merge**2
    if run.config.gradient_checkpointing:
        return patches * (vision.layers * 4 * vision.hidden + a_patch)
    return patches * vision.layers * a_patch


def _head(run: _Run, answered: int) -> int:
    """Return the bytes of logits, probabilities and their gradients of so many tokens."""
    on_cpu = run.machine.device == "cpu"
    words = run.shapes.text.vocabulary
    learnt = words * run.shapes.text.hidden if run.lora is None else 0
    if on_cpu and isinstance(run.config, SftConfig) and run.machine.processes == 1:
        return answered * words * 10 + max(answered * words * 10, learnt * 6)
    scored = answered if not on_cpu or isinstance(run.config, GrpoConfig) else answered * 4
    tile = min(scored, TILE_TOKENS) * min(words, TILE_WORDS)
    return tile * (run.size + (32 if on_cpu else 0)) + 4 * learnt


def _names(lora: LoraSettings) -> tuple[str, ...]:
    names = (lora.target,) if isinstance(lora.target, str) else lora.target
    return tuple(name.rpartition(".")[2] for name in names)


def sharding_of(config: StageConfig) -> Sharding:
    """Return how a run that was launched is divided."""
    # ZeRO-1 keeps gradients whole: it takes more than is said, and so nothing is refused that could run.
    named: dict[str, Sharding] = {"ZeRO-1": "zero2", "ZeRO-2": "zero2", "ZeRO-3": "zero3", "FSDP": "fsdp2"}
    return named.get(name_division(config), "none")
