"""Define the arms of the study, and keep a row of each: one small JSON file an arm and seed.

A row is enough to draw every table and picture again, on any machine; it holds the IoU of every evaluated sample,
so that arms can be compared sample by sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from univg.errors import UnivgError, offer
from univg.files import canonical, write_whole
from univg.study.config import StudyConfig
from univg.study.thoughts import name_file
from univg.training.config import DataSource, GrpoConfig, SftConfig
from univg.world.telling import THOUGHTS_VERSION

__all__ = [
    "ARMS",
    "CLAIMS",
    "Arm",
    "ArmRow",
    "choose_arms",
    "configure_stage",
    "fingerprint",
    "list_arms",
    "list_stages",
    "read_row",
    "read_rows",
    "row_path",
    "write_row",
]

ArmRow: TypeAlias = Mapping[str, Any]
"""What is kept of one arm and seed, as its JSON file holds it."""

SFT_ANSWERS, SFT_THOUGHTS, MORE_SFT = "sft-answers", "sft-thoughts", "more-sft"
EVEN = "even"  # after a stage's weighting: the weights of a step divided by their mean
SFT_ON = "sft-on-"  # and a source of `univg.study.thoughts`


@dataclass(frozen=True)
class Arm:
    """`stages` are run one after another from the study's model; arms that begin alike share those stages."""

    title: str
    stages: tuple[str, ...]


ARMS: Mapping[str, Arm] = {
    "base": Arm("base", ()),
    "rl": Arm("pure RL (GRPO from the base)", ("grpo-none",)),
    "sft": Arm("SFT without thinking", (SFT_ANSWERS,)),
    "cot-sft": Arm("CoT-SFT", (SFT_THOUGHTS,)),
    "cot-sft-more": Arm("CoT-SFT + more SFT", (SFT_THOUGHTS, MORE_SFT)),
    "cot-sft-grpo": Arm("CoT-SFT + GRPO", (SFT_THOUGHTS, "grpo-none")),
    "cot-sft-grpo-exp": Arm("CoT-SFT + GRPO, weights exp", (SFT_THOUGHTS, "grpo-exp")),
    "cot-sft-grpo-power": Arm("CoT-SFT + GRPO, weights power", (SFT_THOUGHTS, "grpo-power")),
    "cot-sft-grpo-log": Arm("CoT-SFT + GRPO, weights log", (SFT_THOUGHTS, "grpo-log")),
    "cot-sft-grpo-exp-even": Arm("CoT-SFT + GRPO, weights exp of mean 1", (SFT_THOUGHTS, "grpo-exp-even")),
    "cot-sft-grpo-power-even": Arm(
        "CoT-SFT + GRPO, weights power of mean 1", (SFT_THOUGHTS, "grpo-power-even")
    ),
    "cot-sft-grpo-log-even": Arm("CoT-SFT + GRPO, weights log of mean 1", (SFT_THOUGHTS, "grpo-log-even")),
    # Of a study of thoughts: the same stage on the same samples, taught by several sources.
    "thoughts-none": Arm("the start", ()),
    "thoughts-unverified": Arm("CoT-SFT on the teacher's first chain", (SFT_ON + "unverified",)),
    "thoughts-verified": Arm("CoT-SFT on its first verified chain", (SFT_ON + "verified",)),
    "thoughts-selected": Arm("CoT-SFT on its best verified chain", (SFT_ON + "selected",)),
    "thoughts-exact": Arm("CoT-SFT on exact thoughts", (SFT_ON + "exact",)),
    "thoughts-own-unverified": Arm("CoT-SFT on the start's own first chain", (SFT_ON + "own-unverified",)),
    "thoughts-own": Arm("CoT-SFT on the start's own best verified chain", (SFT_ON + "own",)),
}

#: What is claimed, by the paper or of constructed thoughts: each (what it says, arm, the arm it should beat).
CLAIMS: Sequence[tuple[str, str, str]] = (
    ("A cold start helps RL", "cot-sft-grpo", "rl"),
    ("Reasoning beats answering at once (SFT)", "cot-sft", "sft"),
    ("RL adds to the cold start", "cot-sft-grpo", "cot-sft"),
    ("Difficulty-weighted RL (exp) adds to the cold start", "cot-sft-grpo-exp", "cot-sft"),
    ("Further SFT adds to the cold start", "cot-sft-more", "cot-sft"),
    ("RL adds more than further SFT", "cot-sft-grpo", "cot-sft-more"),
    ("Difficulty weights (exp) add to RL", "cot-sft-grpo-exp", "cot-sft-grpo"),
    ("Difficulty weights (power) add to RL", "cot-sft-grpo-power", "cot-sft-grpo"),
    ("Difficulty weights (log) add to RL", "cot-sft-grpo-log", "cot-sft-grpo"),
    ("So do those of mean 1 (exp)", "cot-sft-grpo-exp-even", "cot-sft-grpo"),
    ("So do those of mean 1 (power)", "cot-sft-grpo-power-even", "cot-sft-grpo"),
    ("So do those of mean 1 (log)", "cot-sft-grpo-log-even", "cot-sft-grpo"),
    ("Their greater scale (exp) adds to that", "cot-sft-grpo-exp", "cot-sft-grpo-exp-even"),
    ("The whole recipe beats SFT without thinking", "cot-sft-grpo-exp", "sft"),
    ("A teacher's chains help at all", "thoughts-unverified", "thoughts-none"),
    ("Verification helps", "thoughts-verified", "thoughts-unverified"),
    ("Selection adds to verification", "thoughts-selected", "thoughts-verified"),
    ("Exact thoughts beat the teacher's best", "thoughts-exact", "thoughts-selected"),
    ("A checkpoint teaches itself", "thoughts-own", "thoughts-none"),
    ("Verification and selection help it", "thoughts-own", "thoughts-own-unverified"),
)


def choose_arms(config: StudyConfig) -> list[str]:
    """Return the names of the arms to run, in the table's order; UnivgError for one that this study does not have."""
    arms = list_arms(config)
    unknown = [name for name in config.arms if name not in arms]
    if unknown:
        left_out = unknown[0] in ARMS and config.thoughts is None  # for it has no cold start
        why = "cold_start=false leaves only arms that begin with one" if left_out else ""
        raise UnivgError(f"no arm {unknown[0]!r}", why, remedy=offer(str(unknown[0]), arms))
    return [name for name in arms if not config.arms or name in config.arms]


def list_arms(config: StudyConfig) -> list[str]:
    """List all arms of a study: the ablation's, or, where thoughts are given, those of their sources. Where the start
    has its cold start behind it, those that begin with it."""
    if config.thoughts is not None:
        return [name for name in ARMS if name.startswith("thoughts-")]
    ablation = [name for name in ARMS if not name.startswith("thoughts-")]
    return [name for name in ablation if config.cold_start or ARMS[name].stages[:1] == (SFT_THOUGHTS,)]


def list_stages(config: StudyConfig, arm: str) -> tuple[str, ...]:
    """List the stages of an arm that the study runs."""
    return tuple(stage for stage in ARMS[arm].stages if config.cold_start or stage != SFT_THOUGHTS)


def configure_stage(
    config: StudyConfig, stage: str, seed: int, model: str, thoughts: Path = Path()
) -> SftConfig | GrpoConfig:
    """Return the config of one stage of one seed, started from checkpoint `model`.

    `thoughts` is the folder of their sources.

    The second stage draws other samples than the first, the same for every arm.
    """
    if stage.startswith(SFT_ON):
        file = name_file(thoughts, stage.removeprefix(SFT_ON))
        source = DataSource(reader="univg", path=str(file), images=str(thoughts / "world"))
        return config.sft.model_copy(update={"model": model, "seed": seed, "data": (source,)})
    if stage.startswith("grpo-"):
        weighting, _, even = stage.removeprefix("grpo-").partition("-")
        return _seed_stage(config.grpo, seed, 1, model, weighting=weighting, even_weights=even == EVEN)
    if stage == MORE_SFT:
        return _seed_stage(config.sft, seed, 1, model, max_steps=config.more_sft_steps)
    style = "direct" if stage == SFT_ANSWERS else "think"
    return _seed_stage(config.sft, seed, 0, model, prompt_style=style)


def _seed_stage(
    stage: SftConfig | GrpoConfig, seed: int, part: int, model: str, **changes: Any
) -> SftConfig | GrpoConfig:
    sources = tuple(
        source.model_copy(update={"seed": source.seed + 2 * seed + part}) for source in stage.data
    )
    return stage.model_copy(update={"model": model, "seed": seed, "data": sources, **changes})


ADDED_LATER = {"validation": None, "matrix_learning_rate": None, "mirror": False, "even_weights": False}
"""Settings that rows of before do not name, and what they then were."""

THINKING_STAGES = (SFT_THOUGHTS, MORE_SFT)  # taught by the world's own thoughts


def fingerprint(config: StudyConfig, arm: str, seed: int, model_digest: str) -> str:
    """Return a digest of all that decides an arm's numbers: the start's weights, its stages, what is evaluated."""
    stages = []
    for stage in list_stages(config, arm):
        settings = configure_stage(config, stage, seed, "")
        free = {"rollout_page_every", "workers", "rows_at_once", "max_dropped", "check_memory"}
        free |= {key for key, value in ADDED_LATER.items() if getattr(settings, key, value) == value}
        stages.append(settings.model_dump(mode="json", exclude=free))
    asked = config.model_dump(mode="json", include={"samples", "splits", "families", "max_new_tokens"})
    if config.thoughts is not None:
        asked["thoughts"] = config.thoughts.model_dump(mode="json")
    if set(THINKING_STAGES) & set(list_stages(config, arm)):
        asked["thoughts_version"] = THOUGHTS_VERSION
    return hashlib.sha256(canonical([model_digest, stages, asked]).encode()).hexdigest()[:16]


def _count_questions(row: ArmRow) -> dict[str, dict[str, int]]:
    return {
        split: {family: len(ious) for family, ious in found.items()} for split, found in row["ious"].items()
    }


def row_path(folder: Path, arm: str, seed: int) -> Path:
    """Return where the row of an arm and seed lies."""
    return folder / f"{arm}-seed{seed}.json"


def read_row(path: Path) -> dict[str, Any] | None:
    """Read the row in a file; None where there is none. Raises UnivgError for a file that is no row."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(row, dict) or not {"arm", "seed", "fingerprint", "ious"} <= row.keys():
            raise ValueError("it lacks an arm, a seed, a fingerprint or IoUs")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnivgError(
            f"not a row of the study ({error})", path, "delete it to run that arm again"
        ) from None
    return row


def write_row(path: Path, row: ArmRow) -> None:
    """Write a row, whole or not at all."""
    write_whole(path, json.dumps(row, indent=None, ensure_ascii=False) + "\n")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Read all rows of a folder, in the table's order of arms, then by seed.

    Raises UnivgError where not all were asked the same numbers of questions: those of two studies.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*-seed*.json")):
        if (row := read_row(file)) is None:
            continue
        if rows and _count_questions(row) != _count_questions(rows[0]):
            raise UnivgError(
                "a row of another study than the others here: it answers other questions",
                file,
                "keep each study's rows in a folder of their own",
            )
        rows.append(row)
    order = {name: number for number, name in enumerate(ARMS)}
    return sorted((row for row in rows if row["arm"] in order), key=lambda r: (order[r["arm"]], r["seed"]))
