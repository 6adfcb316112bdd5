"""`univg study`: the paper's ablation in miniature. Arms are trained stage by stage, evaluated, and kept as rows.

Killed at any moment, the same command goes on: an arm with a row is done, a stage resumes from its checkpoint, and
the rows alone carry the study to another machine.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from univg.errors import UnivgError

if TYPE_CHECKING:
    from rich.console import Console

    from univg.training.config import GrpoConfig, SftConfig, StudyConfig

ROWS = Path("docs/experiments/study")
THOUGHT_ROWS = Path("docs/experiments/thoughts")
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


def study(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Checkpoints and evaluations of the arms.")] = Path(
        "runs/study"
    ),
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help=f"One JSON file an arm and seed, tables and pictures (default: {ROWS})."
        ),
    ] = None,
    config: Annotated[str, typer.Option("--config", metavar="FILE", help="YAML file or preset.")] = "study",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, one seed, in minutes: shows that all of it runs.")
    ] = False,
    seed: Annotated[list[int] | None, typer.Option(help="Only this seed; repeat for several.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; repeat for several.")] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Draw tables from the rows; train nothing.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the checkpoints of finished seeds.")] = False,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", show_default=False)] = None,
) -> None:
    """The paper's ablation (Table 4) on the procedural world: arms trained, evaluated and compared."""
    from univg.config import ConfigError, load_config
    from univg.study.rows import StudyError, choose_arms
    from univg.training.config import StudyConfig

    try:
        settings = load_config(StudyConfig, "study-quick" if quick else config, overrides or ())
        folder = rows or (out / "rows" if quick else ROWS if settings.thoughts is None else THOUGHT_ROWS)
        changes: dict[str, Any] = {}
        if seed:
            changes["seeds"] = tuple(seed)
        if arm:
            changes["arms"] = tuple(arm)
        settings = settings.model_copy(update=changes)
        names = choose_arms(settings)
        if not tables:
            with contextlib.nullcontext():
                _run_all(settings, names, out, folder, keep)
        _write_tables(folder)
    except (ConfigError, StudyError) as error:
        raise UnivgError(str(error)) from error


def _run_all(config: StudyConfig, names: Sequence[str], out: Path, folder: Path, keep: bool) -> None:
    from rich.console import Console

    from univg.models.checkpoint import weights_digest
    from univg.study.rows import ARMS, arms_of, fingerprint, read_row, row_path, write_row
    from univg.study.thoughts import make_thoughts

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    asked = config.model_dump(mode="json", exclude={"seeds", "arms"})  # rows name no folder of this machine
    if config.prologue is not None:
        config = config.model_copy(update={"model": _prologue(config, out / "start", console)})
    digest = weights_digest(config.model)  # rows of an older base are not mixed with a new one's
    for seed in config.seeds:
        missing = []
        for name in names:
            row = read_row(row_path(folder, name, seed))
            if row is None or row["fingerprint"] != fingerprint(config, name, seed, digest):
                missing.append(name)
        console.print(f"seed {seed}: {len(names) - len(missing)} of {len(names)} arms have their row")
        place = out / f"seed{seed}"
        if missing and config.thoughts is not None:
            console.rule(f"seed {seed}: thoughts", align="left")
            made = make_thoughts(config, seed, config.model, place / THOUGHTS)
            console.print(", ".join(f"{count} {source}" for source, count in made.items()))
        for name in missing:
            console.rule(f"seed {seed}: {ARMS[name].title}", align="left")
            model, stages, curve = config.model, [], []
            for depth in range(len(ARMS[name].stages)):
                chain = ARMS[name].stages[: depth + 1]
                trained = _train(config, chain, seed, model, place)
                model = trained["model"]
                stages.append({key: trained[key] for key in ("name", "steps", "samples", "seconds")})
                curve = trained["curve"]
            started = time.perf_counter()
            scores = _evaluate(config, model, place / "evaluated" / name)
            row = {
                "arm": name,
                "seed": seed,
                "fingerprint": fingerprint(config, name, seed, digest),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": _machine(),
                "stages": stages,
                "evaluation_seconds": round(time.perf_counter() - started, 1),
                **scores,
                "curve": curve,
                "config": asked,
            }
            write_row(row_path(folder, name, seed), row)
        if not keep and list(names) == arms_of(config):
            shutil.rmtree(place, ignore_errors=True)


def _prologue(config: StudyConfig, folder: Path, console: Console) -> str:
    """The checkpoint that the arms start from: the study's model after the prologue, trained or found trained."""
    from univg.config import PretrainConfig, load_config
    from univg.training.pretrain import stage as pretrain

    settings = load_config(PretrainConfig, config.prologue).model_copy(update={"start": config.model})
    stamp, asked = folder / STAMP, settings.model_dump(mode="json")
    found = _read_stamp(stamp)
    if not (found.get("done") and found.get("config") == asked):
        console.rule(f"the common start: {config.model} after {config.prologue}", align="left")
        try:
            pretrain.run(settings, folder, resume=True, console=console)
        except pretrain.PretrainError as error:
            raise UnivgError(str(error)) from error
        _write_stamp(stamp, {"done": True, "config": asked})
    return str(folder)


def _train(config: StudyConfig, chain: tuple[str, ...], seed: int, model: str, out: Path) -> dict[str, Any]:
    """The last stage of `chain`, trained from `model` or found trained; its checkpoint, cost and curve."""
    from univg.study.rows import stage_config

    folder = out / "-then-".join(chain)
    settings = stage_config(config, chain[-1], seed, model, out / THOUGHTS)
    for source in settings.data:
        if source.path is not None and not Path(source.path).stat().st_size:
            raise UnivgError(
                f"no chain passed verification: {source.path} is empty: "
                "give thoughts.samples more, or leave its arm out"
            )
    stamp, asked = folder / STAMP, settings.model_dump(mode="json")
    found = _read_stamp(stamp)
    if found.get("done") and found.get("config") == asked:
        return found
    if found and found.get("config") != asked:
        shutil.rmtree(folder)  # another study's checkpoint, made by this command
        found = {}
    folder.mkdir(parents=True, exist_ok=True)
    spent = float(found.get("seconds", 0.0))
    _write_stamp(stamp, {"config": asked, "seconds": spent})
    started = time.perf_counter()
    _run_stage(settings, folder)
    done = {
        "done": True,
        "config": asked,
        "name": chain[-1],
        "model": str(folder),
        "steps": settings.max_steps,
        "samples": _samples(settings),
        "seconds": round(spent + time.perf_counter() - started, 1),
        "curve": _curve(folder),
    }
    _write_stamp(stamp, done)
    return done


def _run_stage(settings: SftConfig | GrpoConfig, folder: Path) -> None:
    from univg.training.config import SftConfig
    from univg.training.grpo import stage as grpo
    from univg.training.sft import stage as sft

    if isinstance(settings, SftConfig):
        sft.run(settings, folder, resume=True)
    else:
        grpo.run(settings, folder, resume=True)


def _samples(settings: SftConfig | GrpoConfig) -> int:
    from univg.training.config import SftConfig

    a_step = settings.batch if isinstance(settings, SftConfig) else settings.prompts_per_step
    return a_step * (settings.max_steps or 0)


def _read_stamp(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _write_stamp(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def _evaluate(config: StudyConfig, model: str, out: Path) -> dict[str, Any]:
    """IoUs by split and family in the samples' order, and the share of answers with a fault by split."""
    from univg.evaluate.benchmarks import open_world
    from univg.evaluate.engines import Decoding, load_local
    from univg.evaluate.runner import evaluate
    from univg.evaluate.runs import OtherRun

    ious: dict[str, dict[str, list[float]]] = {}
    faults: dict[str, float] = {}
    for split in config.splits:
        benchmark = open_world(split, config.samples, tasks=config.families)
        engine = load_local(model, split)
        decoding = Decoding(1, 0.0, config.max_new_tokens, 0)
        folder = out / split
        try:
            outcome = evaluate(benchmark, engine, folder, decoding)
        except OtherRun:  # rows of an earlier training of this arm
            shutil.rmtree(folder)
            outcome = evaluate(benchmark, engine, folder, decoding)
        of_family: dict[str, list[float]] = {family: [] for family in config.families}
        for case in benchmark.cases:
            of_family[case.sample.task].append(round(outcome.rows[case.key]["iou"], 4))
        ious[split] = of_family
        rows = outcome.rows.values()
        faults[split] = round(sum(row["fault"] is not None for row in rows) / len(rows), 4)
    return {"ious": ious, "faults": faults}


def _curve(folder: Path) -> list[dict[str, float]]:
    """What the stage logged at each step of the numbers that the study draws."""
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


def _machine() -> str:
    import os

    import torch

    return f"{os.cpu_count()} x {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _write_tables(folder: Path) -> None:
    from univg.report.tables import print_table, render_markdown
    from univg.study.rows import read_rows
    from univg.study.tables import pictures, study_tables

    rows = read_rows(folder)
    if not rows:
        raise UnivgError(f"no rows of the study in {folder}: run it first, without --tables")
    tables = study_tables(rows)
    (folder / "table.md").write_text("\n".join(map(render_markdown, tables)), encoding="utf-8")
    drawn = pictures(rows, folder)
    for table in tables:
        print_table(table)
    typer.echo(f"rows, table.md and {len(drawn)} pictures: {folder}")
