"""Make the thoughts that a study compares: the same world samples, their chains from several sources.

FOLDER/world/           samples and pictures, with their exact thoughts
FOLDER/teacher/, own/   runs of `univg construct`: the teacher's chains, and the start's own
FOLDER/*.jsonl          what the arms learn from, one file a source; image paths are relative to FOLDER/world
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.files import write_whole
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from univg.study.config import StudyConfig

#: Each source of thoughts, and what it is.
SOURCES = {
    "unverified": "the teacher's first chain, whatever it says",
    "verified": "the teacher's first chain that passes verification",
    "selected": "the best of the teacher's verified chains, by IoU",
    "exact": "the world's own",
    "own": "the best of the start's own verified chains",
    "own-unverified": "the start's own first chain, whatever it says",
}
TEACHERS = ("teacher", "own")


def name_file(folder: Path, source: str) -> Path:
    """Return where the samples of a source lie."""
    return folder / f"{source}.jsonl"


def make_thoughts(config: StudyConfig, seed: int, start: str, folder: Path) -> dict[str, int]:
    """Write the sources' files of one seed, unless they are there; return how many samples each holds.

    Killed, it goes on: no chain that was written is asked for again.
    """
    from univg.world.writing import SAMPLES, write_world

    settings = config.thoughts
    assert settings is not None
    counts = folder / "counts.json"
    if counts.exists():
        found: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
        return found
    drawn = folder / "world"
    write_world(drawn, settings.samples, seed=settings.seed + seed, families=config.families, size=120)
    samples = list(read_jsonl(drawn / SAMPLES))
    for name, model in zip(TEACHERS, (settings.teacher, start), strict=True):
        _construct(config, seed, model, samples, drawn, folder / name)
    sets = {
        "unverified": _take_first(samples, folder / "teacher", lambda row: bool(row["thought"])),
        "verified": _take_first(samples, folder / "teacher", lambda row: not row["causes"]),
        "selected": read_jsonl(folder / "teacher" / "samples.jsonl"),
        "exact": samples,
        "own": read_jsonl(folder / "own" / "samples.jsonl"),
        "own-unverified": _take_first(samples, folder / "own", lambda row: bool(row["thought"])),
    }
    sizes = {source: write_jsonl(name_file(folder, source), chosen) for source, chosen in sets.items()}
    write_whole(counts, json.dumps(sizes))
    return sizes


def _construct(
    config: StudyConfig, seed: int, model: str, samples: Sequence[GroundingSample], root: Path, out: Path
) -> None:
    """Run `univg construct` with a checkpoint as teacher; the choice among verified chains is the rule's."""
    from univg.construct.config import Plan
    from univg.construct.ledger import Ledger
    from univg.construct.pipeline import construct
    from univg.construct.teacher import LocalTeacher
    from univg.construct.verify import Rules
    from univg.data.dataset import Dataset
    from univg.models.loading import load

    assert config.thoughts is not None
    # Exact thoughts of a small world resemble one another; copies are no fault of a teacher here.
    rules = Rules(copies=0.0)
    plan = Plan(
        config.thoughts.chains,
        shown=False,
        rules=rules,
        temperature=config.thoughts.temperature,
        max_new_tokens=config.max_new_tokens,
        seed=seed,
    )
    teacher = LocalTeacher(load(model), batch_size=config.thoughts.batch_size)
    data = Dataset.from_samples("world", samples, root)
    with Ledger(out) as ledger:
        construct(data, teacher, ledger, plan).check()


def _take_first(
    samples: Sequence[GroundingSample], run: Path, wanted: Callable[[dict[str, Any]], bool]
) -> Iterator[GroundingSample]:
    """Yield each sample with the thought of its first wanted proposal; those that have none are left out."""
    first: dict[str, str] = {}
    with (run / "proposals.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if wanted(row):
                first.setdefault(row["sample"], row["thought"])
    return (replace(one, thought=first[one.key]) for one in samples if one.key in first)
