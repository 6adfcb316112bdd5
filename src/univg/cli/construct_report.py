"""What `univg construct` says: how far it is, what it kept, what it cost, and what remains."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from univg.errors import UnivgError

if TYPE_CHECKING:
    from univg.construct.ledger import Ledger
    from univg.construct.pipeline import Progress

BUDGET_EXIT = 3
_LINE_EVERY_S = 30.0


def report(manifest: Mapping[str, Any], ledger: Ledger, out: Path) -> None:
    """What was kept by task, what was rejected and for what, and what it cost; on stdout."""
    from rich.table import Table

    from univg.construct.pipeline import OUTCOMES
    from univg.construct.verify import CAUSES
    from univg.terminal import results

    console = results()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    for name in ("samples", "kept"):
        table.add_column(name, justify="right")
    table.add_column("rejected proposals")
    for task, counts in manifest["by_task"].items():
        kept = counts.get("kept", 0) + counts.get("simple", 0)
        causes = manifest["rejected_by_task"].get(task, {})
        told = ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items(), key=lambda c: -c[1]))
        table.add_row(task, str(sum(counts.values())), str(kept), told)
    console.print(table)
    console.print()
    for name, meaning in OUTCOMES.items():
        if manifest["samples"].get(name):
            console.print(f"{manifest['samples'][name]:6} {meaning}")
    if manifest["rejected"]:
        rejected = sum(manifest["rejected"].values())
        console.print(f"{rejected:6} of {manifest['proposals']} proposals rejected:")
        for name in CAUSES:
            if count := manifest["rejected"].get(name):
                console.print(f"       {count:6} {name}: {CAUSES[name]}")
    if manifest["chosen_by"]:
        chosen = ", ".join(f"{by} {count}" for by, count in manifest["chosen_by"].items())
        console.print(f"chosen by {chosen}")
    spent = ledger.spent
    if spent.requests:
        cost = f", cost {ledger.prices.cost(spent):.4f}" if ledger.prices.cost(spent) else ""
        console.print(
            f"spent   {spent.requests} requests, {spent.prompt_tokens} tokens in, "
            f"{spent.completion_tokens} out{cost} (this run: {ledger.asked.requests} requests)"
        )
    console.print(f"samples {out / 'samples.jsonl'}")
    if manifest["proposals"] and not _kept(manifest) and not manifest["undecided"]:
        hint = "look at proposals.jsonl"
        if manifest["plan"]["shown"]:
            hint += "; a model that writes boxes in its own way, as univg's do, is asked with --truth hidden"
        notes().print(f"note: nothing was kept: {out}: {hint}")


def last_manifest(out: Path) -> Mapping[str, Any] | None:
    """What an earlier run in `out` was; None where there was none that can be read."""
    try:
        found = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def tell_replaced(before: Mapping[str, Any] | None, now: Mapping[str, Any], out: Path) -> None:
    """Say so where another asking's samples stood in `out`: they can be had again for nothing, but not seen there."""
    if before is None or not _kept(before):
        return
    changed = [name for name in ("data", "teacher", "judge") if before.get(name) != now[name]]
    plans = before.get("plan", {}), json.loads(json.dumps(now["plan"]))
    changed += [name for name in plans[1] if name not in plans[0] or plans[0][name] != plans[1][name]]
    if changed:
        notes().print(
            f"note: {out} held {_kept(before)} kept samples of another asking (differs in {', '.join(changed)}), which "
            "are replaced; the command that made them brings them back without asking again"
        )


def _kept(manifest: Mapping[str, Any]) -> int:
    counts = manifest.get("samples", {})
    return int(counts.get("kept", 0)) + int(counts.get("simple", 0))


def end(manifest: Mapping[str, Any], ledger: Ledger, out: Path, stopped: BaseException | None) -> None:
    """The exit code, and on stderr what remains."""
    undecided = manifest["undecided"]
    if isinstance(stopped, KeyboardInterrupt):
        notes().print(f"note: stopped; {undecided} samples remain: {out}: the same command goes on")
        raise KeyboardInterrupt from None
    if stopped is not None:
        raise UnivgError(str(stopped)) from stopped
    if ledger.exhausted:
        notes().print(
            f"note: the budget is used up; {undecided} samples remain: {out}: "
            "raise it and run the same command; what was answered is kept"
        )
        raise typer.Exit(BUDGET_EXIT)
    if undecided:
        raise UnivgError(
            f"{undecided} samples are undecided: {out / 'left-out.jsonl'} says why: "
            "put that right and run the same command; what was answered is kept"
        )


@contextmanager
def progress_shown(total: int) -> Iterator[Any]:
    """A bar on stderr while somebody looks, else a line twice a minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = notes()
    last = time.monotonic()
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("", total=total)

        def show(progress: Progress) -> None:
            nonlocal last
            told = progress_line(progress)
            bar.update(line, completed=progress.done, description=told)
            if not console.is_terminal and time.monotonic() - last > _LINE_EVERY_S:
                last = time.monotonic()
                console.print(f"{progress.done} of {progress.total} samples  {told}")

        yield show


def progress_line(progress: Progress) -> str:
    """Rate, cost so far and time left, as far as they are known."""
    parts = [f"{progress.kept} kept"]
    if progress.per_minute is not None:
        parts.append(f"{progress.per_minute:.0f} requests/min")
    if progress.spent.requests:
        parts.append(f"{progress.spent.tokens} tokens")
    if progress.cost:
        parts.append(f"cost {progress.cost:.4f}")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")
    return " · ".join(parts)


def notes() -> Any:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
