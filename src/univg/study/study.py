"""Run the paper's ablation in miniature: arms are trained stage by stage, evaluated, and kept as rows.

Killed at any moment, the same call goes on: an arm with a row is done, a stage resumes from its checkpoint, and the
rows alone carry the study to another machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.config import load_config
from univg.errors import UnivgError
from univg.files import write_whole
from univg.study.config import StudyConfig
from univg.study.rows import (
    ARMS,
    THINKING_STAGES,
    choose_arms,
    configure_stage,
    fingerprint,
    list_arms,
    list_stages,
    read_row,
    read_rows,
    row_path,
    write_row,
)
from univg.study.thoughts import make_thoughts
from univg.terminal import notes
from univg.training.config import GrpoConfig, PretrainConfig, SftConfig
from univg.world.telling import THOUGHTS_VERSION

if TYPE_CHECKING:
    from rich.console import Console

    from univg.data.dataset import Dataset
    from univg.report.tables import Table

__all__ = ["run_study", "write_results"]

THOUGHTS = "thoughts"  # the folder of a seed's sources of thoughts
STAMP = "study-stage.json"  # in a stage's folder: what was asked, and whether it is done
#: What is kept of a stage's log, under which name.
CURVES = {
    "iou": "iou",
    "format": "format",
    "length": "completions/mean_length",
    "easy": "groups/easy",
    "medium": "groups/medium",
    "hard": "groups/hard",
    "weight": "groups/weight",
    "no_spread": "groups/no_spread",
    "kl": "kl",
    "entropy": "entropy",
}


def run_study(
    config: StudyConfig, out: Path, rows: Path, *, keep: bool = False, console: Console | None = None
) -> None:
    """Train and evaluate every arm of every seed that has no row in the folder `rows` yet.

    Checkpoints and evaluations lie under `out`; those of a seed are removed once all its arms are done, unless
    `keep` or where the study has only some of the arms, for others may begin with the same stages.
    Raises UnivgError, before anything is trained where `rows` holds a row of another study.
    """
    from univg.models.checkpoint import weights_digest

    console = console or notes()
    names = choose_arms(config)
    asked = config.model_dump(mode="json", exclude={"seeds", "arms"})  # rows name no folder of this machine
    read_rows(rows)
    for split in config.splits:
        _open_split(config, split)
    if config.prologue is not None:
        config = config.model_copy(update={"model": _train_start(config, out / "start", console)})
    digest = weights_digest(config.model)  # rows of an older base are not mixed with a new one's
    todo = {
        seed: [name for name in names if not _is_done(config, name, seed, digest, rows)]
        for seed in config.seeds
    }
    for seed, missing in todo.items():
        console.print(f"seed {seed}: {len(names) - len(missing)} of {len(names)} arms have their row")
        place = out / f"seed{seed}"
        if missing and config.thoughts is not None:
            console.print(f"── seed {seed}: thoughts")
            made = make_thoughts(config, seed, config.model, place / THOUGHTS)
            console.print(", ".join(f"{count} {source}" for source, count in made.items()))
        for name in missing:
            console.print(f"── seed {seed}: {ARMS[name].title}")
            asked_of = fingerprint(config, name, seed, digest)
            row = {
                "arm": name,
                "seed": seed,
                "fingerprint": asked_of,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": _describe_machine(),
                **(_find_twin(rows, name, asked_of) or _run_arm(config, name, seed, place)),
                "config": asked,
            }
            write_row(row_path(rows, name, seed), row)
        if not keep and names == list_arms(config):
            shutil.rmtree(place, ignore_errors=True)


def _is_done(config: StudyConfig, name: str, seed: int, digest: str, rows: Path) -> bool:
    """Tell whether an arm and seed has its row; UnivgError where it is one of another study."""
    path = row_path(rows, name, seed)
    row = read_row(path)
    if row is not None and row["fingerprint"] != fingerprint(config, name, seed, digest):
        raise UnivgError(
            "a row of another study, or of another base, is here",
            path,
            "choose another --out or --rows, or delete it to run that arm again",
        )
    return row is not None


def _find_twin(rows: Path, name: str, asked: str) -> dict[str, Any] | None:
    """Return the numbers of an arm for which nothing is trained, if another seed has them: greedy answers are equal."""
    for row in read_rows(rows):
        if row["arm"] == name and row["fingerprint"] == asked:
            return {key: row[key] for key in ("stages", "evaluation_seconds", "ious", "faults", "curve")}
    return None


def write_results(rows: Path) -> tuple[list[Table], list[Path]]:
    """Write `table.md` and pictures into a folder of rows; return the tables and the pictures' paths."""
    from univg.report.tables import render_markdown
    from univg.study.tables import build_study_tables, write_pictures

    found = read_rows(rows)
    if not found:
        raise UnivgError(
            "no rows of the study",
            rows,
            "give the folder of its rows (ARM-seedN.json); without --tables it is run",
        )
    tables = build_study_tables(found)
    write_whole(rows / "table.md", "\n".join(map(render_markdown, tables)))
    return tables, write_pictures(found, rows)


def _train_start(config: StudyConfig, folder: Path, console: Console) -> str:
    """Train the checkpoint that the arms start from, the study's model after the prologue, unless it is there."""
    from univg.training.pretrain.stage import pretrain

    settings = load_config(PretrainConfig, config.prologue).model_copy(update={"start": config.model})
    stamp, asked = folder / STAMP, settings.model_dump(mode="json")
    found = _read_stamp(stamp)
    if not (found.get("done") and found.get("config") == asked):
        console.print(f"── the common start: {config.model} after {config.prologue}")
        pretrain(settings, folder, resume=True, console=console)
        _give_back_memory()
        write_whole(stamp, json.dumps({"done": True, "config": asked}))
    return str(folder)


def _run_arm(config: StudyConfig, name: str, seed: int, place: Path) -> dict[str, Any]:
    """Train an arm's stages one after another, evaluate the last checkpoint, and return the arm's numbers."""
    model, stages, curve = config.model, [], []
    chain = list_stages(config, name)
    for depth in range(len(chain)):
        trained = _train_stage(config, chain[: depth + 1], seed, model, place)
        model, curve = trained["model"], trained["curve"]
        stages.append({key: trained[key] for key in ("name", "steps", "samples", "seconds")})
    started = time.perf_counter()
    scores = _evaluate_arm(config, model, place / "evaluated" / name)
    _give_back_memory()
    seconds = round(time.perf_counter() - started, 1)
    return {"stages": stages, "evaluation_seconds": seconds, **scores, "curve": curve}


def _train_stage(
    config: StudyConfig, chain: tuple[str, ...], seed: int, model: str, out: Path
) -> dict[str, Any]:
    """Train the last stage of `chain` from `model`, unless it is there; return its checkpoint, cost and curve."""
    folder = out / "-then-".join(chain)
    settings = configure_stage(config, chain[-1], seed, model, out / THOUGHTS)
    for source in settings.data:
        if source.path is not None and not Path(source.path).stat().st_size:
            raise UnivgError(
                "no chain passed verification",
                f"{source.path} is empty",
                "give thoughts.samples more, or leave its arm out",
            )
    stamp, asked = folder / STAMP, settings.model_dump(mode="json")
    if chain[-1] in THINKING_STAGES:
        asked["thoughts_version"] = THOUGHTS_VERSION
    found = _read_stamp(stamp)
    if found.get("done") and found.get("config") == asked:
        return dict(found)
    if found and found.get("config") != asked:
        shutil.rmtree(folder)  # another study's checkpoint, made by this command
        found = {}
    spent = float(found.get("seconds", 0.0))
    write_whole(stamp, json.dumps({"config": asked, "seconds": spent}))
    started = time.perf_counter()
    _run_stage(settings, folder)
    _give_back_memory()
    done = {
        "done": True,
        "config": asked,
        "name": chain[-1],
        "model": str(folder),
        "steps": settings.max_steps,
        "samples": _count_samples(settings),
        "seconds": round(spent + time.perf_counter() - started, 1),
        "curve": _read_curve(folder),
    }
    write_whole(stamp, json.dumps(done))
    return done


def _run_stage(settings: SftConfig | GrpoConfig, folder: Path) -> None:
    from univg.training.grpo.stage import train_grpo
    from univg.training.run.checkpoints import find_checkpoints
    from univg.training.sft.stage import train_sft

    begun = bool(find_checkpoints(folder))
    if isinstance(settings, SftConfig):
        train_sft(settings, folder, resume=begun)
    else:
        train_grpo(settings, folder, resume=begun)


def _give_back_memory() -> None:
    """Give the system what a stage has left: trainers hang in cycles, and the C library keeps the pages of its heap."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def _count_samples(settings: SftConfig | GrpoConfig) -> int:
    a_step = settings.batch if isinstance(settings, SftConfig) else settings.prompts_per_step
    return a_step * (settings.max_steps or 0)


def _read_stamp(path: Path) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _evaluate_arm(config: StudyConfig, model: str, out: Path) -> dict[str, Any]:
    """Return IoUs by split and family in the samples' order, and the share of answers with a fault by split."""
    from univg.evaluate.engines import load_local
    from univg.evaluate.runner import evaluate
    from univg.evaluate.runs import OtherRun
    from univg.models.answering import Decoding

    ious: dict[str, dict[str, list[float]]] = {}
    faults: dict[str, float] = {}
    for split in config.splits:
        benchmark = _open_split(config, split)
        engine = load_local(model, split)
        decoding = Decoding(1, 0.0, config.max_new_tokens, 0)
        folder = out / split
        try:
            outcome = evaluate(benchmark, engine, folder, decoding)
        except OtherRun:  # rows of an earlier training of this arm
            shutil.rmtree(folder)
            outcome = evaluate(benchmark, engine, folder, decoding)
        of_family: dict[str, list[float]] = {}
        for case in benchmark.items():
            of_family.setdefault(case.sample.task, []).append(round(outcome.rows[case.key]["iou"], 4))
        ious[split] = {name: of_family[name] for name in config.families if name in of_family}
        rows = outcome.rows.values()
        faults[split] = round(sum(row["fault"] is not None for row in rows) / len(rows), 4)
    return {"ious": ious, "faults": faults}


def _open_split(config: StudyConfig, split: str) -> Dataset:
    """Open what is evaluated of a split: the families that it has. Raises UnivgError for one that none has."""
    from univg.evaluate.benchmarks import open_world
    from univg.world import DRAWN_FAMILIES

    known = [name for name in config.families if split != "world_drawn" or name in DRAWN_FAMILIES]
    return open_world(split, config.samples, tasks=known)


def _read_curve(folder: Path) -> list[dict[str, float]]:
    """Read what the stage logged at each step of the numbers that the study draws."""
    log = folder / "log.jsonl"
    if not log.exists():
        return []
    points = []
    for line in log.read_text(encoding="utf-8").splitlines():
        logged = json.loads(line)
        point = {
            key: round(float(logged[name]), 4) for key, name in CURVES.items() if logged.get(name) is not None
        }
        if point:
            points.append({"step": logged["step"], **point})
    return points


def _describe_machine() -> str:
    import torch

    return f"{os.cpu_count()} x {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
