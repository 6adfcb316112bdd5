"""Rollouts by vLLM: hand it prompts as it takes them, and believe it once it has read what the model reads.

TRL expands each image's mark to as many tokens as the image takes before it asks for rollouts. A server wants
them so. vLLM in this process expands marks itself, the first token of a run as any mark, and without an error
reads other images at other places: there a run is collapsed to one mark first.

Whatever the reason, an engine that reads other prompts, or has other weights, draws rollouts that teach nothing,
and TRL's correction by importance ratios hides it. So what is read is compared with what was sent for every
generation, and for the first one, before any update, the engine's log-probabilities with the trainer's own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.loading import plain_model

__all__ = [
    "Agreement",
    "EngineCheck",
    "Prompts",
    "collapse",
    "engine_folder",
    "server_faults",
]

TOLERANCE = 0.1
"""Of the mean |Δ log p|. Rounding to bf16 leaves 0.001 to 0.004, and images at other places 0.6 and more."""
SETTINGS = ("preprocessor_config.json", "processor_config.json")
"""Where a checkpoint says how images are resized; the second, of newer ones, counts before the first."""


def collapse(ids: Sequence[int], mark: int) -> list[int]:
    """Return a prompt with one `mark` for every run of them.

    >>> collapse([5, 9, 9, 9, 6, 5, 9, 6], mark=9)
    [5, 9, 6, 5, 9, 6]
    """
    return [token for at, token in enumerate(ids) if token != mark or at == 0 or ids[at - 1] != mark]


def find_runs_of(mark: int, ids: Sequence[int]) -> list[int]:
    """Return how long each run of `mark` is.

    >>> find_runs_of(9, [5, 9, 9, 9, 6, 5, 9, 6])
    [3, 1]
    """
    runs: list[int] = []
    for at, token in enumerate(ids):
        if token == mark:
            if at == 0 or ids[at - 1] != mark:
                runs.append(0)
            runs[-1] += 1
    return runs


@dataclass
class Prompts:
    """How many prompts of a generation an engine was sent, how many it read otherwise, and the tokens of both."""

    count: int = 0
    differing: int = 0
    sent: int = 0
    read: int = 0

    def add(self, sent: int, read: int, same: bool) -> None:
        """Count one prompt of `sent` tokens, of which the engine made `read`."""
        self.count, self.differing = self.count + 1, self.differing + (not same)
        self.sent, self.read = self.sent + sent, self.read + read


class _Engine:
    """vLLM in this process to TRL, except that it is handed one mark an image."""

    def __init__(self, llm: Any, mark: int, prompts: Prompts) -> None:
        self._llm, self._mark, self._prompts = llm, mark, prompts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompts: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """Draw as vLLM does, and count what it has read."""
        sent = [list(each["prompt_token_ids"]) for each in prompts]
        marked = [
            {**each, "prompt_token_ids": collapse(ids, self._mark)}
            for each, ids in zip(prompts, sent, strict=True)
        ]
        outputs = self._llm.generate(marked, **settings)
        for ids, output in zip(sent, outputs, strict=True):
            self._prompts.add(len(ids), len(output.prompt_token_ids), ids == list(output.prompt_token_ids))
        return outputs


@dataclass(frozen=True)
class Agreement:
    """What an engine and the model make of the same rollouts, over all processes.

    `difference` is the mean of |Δ log p| over the sampled tokens, `ratio` the mean importance ratio, the factor
    that TRL gives a rollout in the loss; both None where only prompts were compared.
    """

    prompts: Prompts
    difference: float | None = None
    ratio: float | None = None

    def __str__(self) -> str:
        return f"{self.prompts.sent} prompt tokens sent, {self.prompts.read} read" + (
            ""
            if self.difference is None
            else f"; mean |Δ log p| {self.difference:.3f}, importance ratio {self.ratio:.2f}"
        )

    def check(self, mode: str, tolerance: float, server_needs: str = "") -> None:
        """Raise UnivgError unless prompts are the same and log-probabilities are within `tolerance`."""
        if self.prompts.differing:
            raise UnivgError(
                f"vLLM reads other prompts than the model: {self.prompts.differing} of {self.prompts.count} "
                f"differ; {self}",
                f"vllm: {mode}",
                f"start the server with {server_needs}"
                if mode == "server"
                else "use vllm=off, or a version of vLLM that TRL supports",
            )
        if self.difference is not None and not self.difference <= tolerance:
            raise UnivgError(
                f"vLLM's log-probabilities are not the model's: {self}; at most {tolerance:g} is rounding",
                f"vllm: {mode}",
                f"start the server with this checkpoint, --logprobs-mode processed_logprobs and {server_needs}"
                if mode == "server"
                else "use vllm=off",
            )


class EngineCheck:
    """Watch what TRL's `VLLMGeneration` sends and what the engine reads, and judge each generation."""

    def __init__(self, generation: Any, model: Any, processor: Any, tolerance: float) -> None:
        self.mode, self.tolerance = str(generation.mode), tolerance
        self.prompts, self.compared = Prompts(), False
        # TRL sends pictures to the process that asks a server, or to all that share an engine.
        self.gathers_images = self.mode == "server" or getattr(generation, "tensor_parallel_size", 1) > 1
        mark = int(plain_model(model).config.image_token_id)
        budget = getattr(processor, "pixel_budget", None)
        pixels = budget and {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
        self._server_needs = f"--mm-processor-kwargs '{json.dumps(pixels)}'" if pixels else "its pixel budget"
        if self.mode == "colocate":
            _check_takes_weights(generation.llm)
            generation.llm = _Engine(generation.llm, mark, self.prompts)
        elif hasattr(generation, "vllm_client"):  # in the first process only
            generation.vllm_client = _Client(generation.vllm_client, mark, self)

    def judge(self, output: Mapping[str, Any], accelerator: Any) -> Agreement | None:
        """Return the first generation's agreement (None for those after it). Raises UnivgError, in every process,
        if any generation's prompts, or the first one's log-probabilities, are not the model's."""
        seen, first = self.prompts, not self.compared
        numbers = [float(each) for each in (seen.count, seen.differing, seen.sent, seen.read)]
        numbers += _compare(output) if first else [0.0, 1.0, 0.0, 1.0]
        seen.__init__()  # type: ignore[misc]
        sums = torch.tensor([numbers], dtype=torch.float64, device=accelerator.device)
        total = accelerator.gather(sums).sum(dim=0).tolist()
        prompts = Prompts(*(round(each) for each in total[:4]))
        agreement = (
            Agreement(prompts, total[4] / total[5], total[6] / total[7]) if first else Agreement(prompts)
        )
        self.refuse(agreement)
        self.compared = True
        return agreement if first else None

    def refuse(self, agreement: Agreement) -> None:
        """Raise UnivgError if an engine and the model do not agree."""
        agreement.check(self.mode, self.tolerance, self._server_needs)


class _Client:
    """TRL's client of a server, except that it compares how many tokens the server makes of each image.

    The server is sent a prompt's tokens and, apart, its own features of the images. It answers with the tokens it was
    sent, and where there are more or fewer features it fails without saying why: so this is judged beforehand.
    """

    def __init__(self, client: Any, mark: int, check: EngineCheck) -> None:
        self._client, self._mark, self._check = client, mark, check
        self._runs: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def image_features(self, images: Any, *others: Any, **settings: Any) -> Any:
        """Ask the server as TRL does, and keep the number of tokens of each image."""
        with server_faults():
            features = self._client.image_features(images, *others, **settings)
        self._runs = [
            [place["length"] for place in each["mm_placeholders"]["image"]] if each else []
            for each in features
        ]
        return features

    def generate(self, prompts: Sequence[Sequence[int]], **settings: Any) -> Any:
        """Draw as the server does. Raises UnivgError where it has made another number of tokens of an image."""
        runs, self._runs = self._runs or [[] for _ in prompts], []
        for ids, made in zip(prompts, runs, strict=True):
            own = find_runs_of(self._mark, ids)
            self._check.prompts.add(len(ids), len(ids) - sum(own) + sum(made), own == made)
        self._check.refuse(Agreement(self._check.prompts))
        return self._client.generate(prompts=prompts, **settings)


@contextmanager
def server_faults() -> Iterator[None]:
    """Say what TRL says of a server that is not there, or cannot do what training needs, as a UnivgError."""
    try:
        yield
    except (OSError, NotImplementedError, RuntimeError) as error:  # ConnectionError is that of requests
        if "vLLM" not in str(error):
            raise
        raise UnivgError(
            " ".join(str(error).split()).rstrip("."),
            "vllm: server",
            "start it as docs/training.md, Rollouts, says",
        ) from error


def _compare(output: Mapping[str, Any]) -> list[float]:
    """Return sum and count of |Δ log p| over tokens, and of importance ratios over rollouts (or tokens)."""
    mask = output["completion_mask"].bool()
    apart = (output["old_per_token_logps"] - output["sampling_per_token_logps"]).abs()
    apart = apart[mask & ~apart.isnan()]  # vLLM could not score a token: TRL leaves it out too
    ratios = output["importance_sampling_ratio"]
    ratios = ratios[mask] if ratios.shape == mask.shape else ratios
    return [float(apart.sum()), max(1, apart.numel()), float(ratios.sum()), max(1, ratios.numel())]


def _check_takes_weights(llm: Any) -> None:
    """Raise UnivgError for an engine that has packed its weights away: it cannot be given the trained ones."""
    model = llm.llm_engine.model_executor.driver_worker.model_runner.model
    if any(weight.numel() == 0 for weight in model.parameters()):
        raise UnivgError(
            "this vLLM has packed its weights away, as its build for CPUs does, and takes no trained ones",
            "vllm: colocate",
            "use vLLM on a GPU, or vllm=off",
        )


@contextmanager
def engine_folder(
    model: Any, processor: Any, wanted: bool = True
) -> Iterator[tempfile.TemporaryDirectory[str] | None]:
    """Let the engine read its checkpoint with the pixel budget of `processor`; around its start.

    TRL gives vLLM the name of the model and no setting of the image processor. Where the checkpoint's own budget is
    another, the name is meanwhile that of a folder of links, with the settings of the image processor replaced.
    Keep what is yielded as long as the engine: the folder goes with it.
    """
    budget = getattr(processor, "pixel_budget", None)
    name = getattr(model, "name_or_path", "")
    stated = wanted and budget and name and Path(name).is_dir()
    changed = _find_other_settings(Path(name), budget) if stated else {}
    if not changed:
        yield None
        return
    plain = plain_model(model)
    temporary = tempfile.TemporaryDirectory(prefix="univg-vllm-")
    folder = Path(temporary.name) / Path(name).absolute().name
    folder.mkdir()
    for file in Path(name).iterdir():
        if file.name in changed:
            (folder / file.name).write_text(json.dumps(changed[file.name]))
        else:
            (folder / file.name).symlink_to(file.absolute())
    plain.name_or_path = str(folder)
    try:
        yield temporary
    finally:
        plain.name_or_path = name


def _find_other_settings(folder: Path, budget: Any) -> dict[str, Any]:
    """Return the files of `folder` that state another budget, with `budget` in its place."""
    size = {"shortest_edge": budget.min_pixels, "longest_edge": budget.max_pixels}
    stated = {"size": size, "min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
    changed = {}
    for name in SETTINGS:
        if not (folder / name).is_file():
            continue
        settings = checkpoint.read_json(folder / name)
        inner = settings.get("image_processor", settings)
        states = name == SETTINGS[0] or inner is not settings
        if states and any(inner.get(key) != value for key, value in stated.items()):
            inner |= stated
            changed[name] = settings
    return changed
