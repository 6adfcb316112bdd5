"""Show what `univg construct` does: how far it is, what it kept, what it cost, and what remains."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.construct.card import count_kept
from univg.construct.select import MEANINGS
from univg.terminal import notes, print_rich_table, progress, results

if TYPE_CHECKING:
    from univg.construct.ledger import Ledger
    from univg.construct.pipeline import Outcome, Progress

_LINE_EVERY_S = 30.0


def print_report(outcome: Outcome, ledger: Ledger) -> None:
    """Print what was kept by task, what was rejected and for what, and what it cost."""
    from rich.table import Table

    from univg.construct.pipeline import OUTCOMES
    from univg.construct.verify import CAUSES

    console, manifest = results(), outcome.manifest
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "samples", "kept", "rejected proposals"):
        table.add_column(name, justify="right" if name in ("samples", "kept") else "left")
    for task, counts in manifest["by_task"].items():
        causes = manifest["rejected_by_task"].get(task, {})
        listed = ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items(), key=lambda c: -c[1]))
        table.add_row(task, str(sum(counts.values())), str(count_kept(counts)), listed)
    print_rich_table(console, table)
    console.print()
    for name, meaning in OUTCOMES.items():
        if manifest["samples"].get(name):
            console.print(f"{manifest['samples'][name]:6} {meaning}")
    if manifest["rejected"]:
        rejected = sum(manifest["rejected"].values())
        console.print(f"{rejected:6} of {manifest['proposals']} proposals rejected:")
        for name, meaning in CAUSES.items():
            if count := manifest["rejected"].get(name):
                console.print(f"       {count:6} {name}: {meaning}")
    if manifest["chosen_by"]:
        console.print("which chain of a sample was chosen:")
        for by, count in manifest["chosen_by"].items():
            console.print(f"{count:6} {by}: {MEANINGS[by]}")
    spent = ledger.spent
    if spent.requests:
        cost = f", cost {ledger.prices.cost(spent):.4f}" if ledger.prices.cost(spent) else ""
        console.print(
            f"spent   {spent.requests} requests, {spent.prompt_tokens} tokens in, "
            f"{spent.completion_tokens} out{cost} (this run: {ledger.asked.requests} requests)"
        )
    console.print(f"samples {outcome.folder / 'samples.jsonl'}")
    if manifest["proposals"] and not count_kept(manifest["samples"]) and not manifest["undecided"]:
        hint = "look at proposals.jsonl"
        if manifest["plan"]["shown"]:
            hint += "; a model that writes boxes in its own way, as univg's do, is asked with --truth hidden"
        notes().print(f"note: nothing was kept: {outcome.folder}: {hint}")


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """Read the manifest of an earlier run in `folder`; it is empty where there was none that can be read."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note_replaced(before: Mapping[str, Any], outcome: Outcome) -> None:
    """Say so where samples made with other settings stood: they cost nothing to make again, but are gone for now."""
    kept, now = count_kept(before.get("samples", {})), outcome.manifest
    changed = [name for name in ("data", "teacher", "judge") if before.get(name) != now[name]]
    plans = before.get("plan", {}), json.loads(json.dumps(now["plan"]))
    changed += [name for name in plans[1] if name not in plans[0] or plans[0][name] != plans[1][name]]
    if kept and changed:
        notes().print(
            f"note: {outcome.folder} held {kept} kept samples of another asking (differs in {', '.join(changed)}), "
            "which are replaced; the command that made them brings them back without asking again"
        )


@contextmanager
def show_progress(total: int) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on stderr while somebody looks, else a line twice a minute."""
    console, last = notes(), time.monotonic()
    with progress(console, times=False) as bar:
        line = bar.add_task("samples", total=total)

        def show(progress: Progress) -> None:
            nonlocal last
            described = describe_progress(progress)
            bar.update(line, completed=progress.done, description=f"samples  {described}")
            if not console.is_terminal and time.monotonic() - last > _LINE_EVERY_S:
                last = time.monotonic()
                console.print(f"{progress.done} of {progress.total} samples  {described}")

        yield show


def describe_progress(progress: Progress) -> str:
    """Return rate, cost so far and time left, as far as they are known."""
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
