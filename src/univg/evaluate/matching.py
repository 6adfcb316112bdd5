"""Find the sample that each answer of a file answers: by its id, else by its question, else by the order.

Which field holds the ids, and what of the samples they name, is decided for the whole file: what finds most samples.
Where the answers also say their task or question, those count first that agree with it, so that a number is not taken
for another count's.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg.errors import UnivgError
from univg.evaluate.answers import Given
from univg.grounding.samples import GroundingSample

__all__ = ["Match", "count_shared", "match", "split_path"]

ID_FIELDS = (
    *("custom_id", "id", "key", "source", "question_id", "sample_id", "uid", "doc_id", "index", "idx", "qid"),
)
_QUESTIONS = ("question", "query", "problem", "instruction", "prompt")
_IMAGES = ("images", "image", "image_path", "image_list", "image_pth")
_IN_TASK = "the place in its task, from 0"
_IN_FILE = ("the place in the file, from 0", "the place in the file, from 1")
_LAST_NUMBER = re.compile(r"(?<!\d)0*(\d{1,20})\Z", re.ASCII)


@dataclass(frozen=True)
class Match:
    """The number of each answer's sample (None: there is none such), and how it was found."""

    numbers: Sequence[int | None]
    how: str


def match(
    given: Sequence[Given], samples: Sequence[GroundingSample], path: Path, whole: bool = True
) -> Match:
    """Match answers with samples; `whole`: no record of the data file was left out, so that its places are known.

    Raises UnivgError if nothing tells which sample an answer answers.
    """
    rows = [_Row(one.row) for one in given]
    asked = [_plain(sample.query) for sample in samples]

    def agrees(row: _Row, number: int) -> bool:
        said = row.task in (None, samples[number].task)
        return said and (not row.question or asked[number] in row.question)

    best, rank = None, (0, 0)
    for way in _list_ways(rows, samples, whole):
        numbers = [way.find(row) for row in rows]
        agreeing = {n for row, n in zip(rows, numbers, strict=True) if n is not None and agrees(row, n)}
        this = (len(agreeing), len({n for n in numbers if n is not None}))
        by_chance = way.taken == "by its last number" and this[1] < 0.9 * len(
            rows
        )  # a random id ends in some number as well
        if this > rank and not by_chance:
            best, rank = Match(numbers, way.words), this
    return best or _match_by_question(rows, samples, asked) or _match_by_order(rows, samples, agrees, path)


class _Row:
    """What an answer says of its sample."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.ids = {
            name: _name(row[name]) for name in ID_FIELDS if isinstance(row.get(name), (str, int, float))
        }
        self.task = row["task"] if isinstance(row.get("task"), str) else None
        said = next((row[name] for name in _QUESTIONS if isinstance(row.get(name), str)), None)
        self.question = _plain(said if said is not None else _find_asked(row))
        images = next((row[name] for name in _IMAGES if row.get(name)), ())
        self.paths = _list_paths([images] if isinstance(images, (str, Mapping)) else images)
        self.images = _name_images(self.paths)


def _name(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _find_asked(row: Mapping[str, Any]) -> str:
    """Return the text of the first turn of a conversation that a user said."""
    turns = row.get("messages") or row.get("conversations")
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, Mapping) and (turn.get("role") or turn.get("from")) in ("user", "human"):
            said = turn.get("content") or turn.get("value") or ""
            parts = said if isinstance(said, list) else [{"text": said}]
            return " ".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))
    return ""


def _plain(text: str) -> str:
    return " ".join(text.replace("<image>", " ").split())


def _list_paths(images: Any) -> list[str]:
    if not isinstance(images, (list, tuple)):
        return []
    return [str(one.get("path") or one.get("image") if isinstance(one, Mapping) else one) for one in images]


def _name_images(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the images' last names: other programs have them elsewhere."""
    return tuple(split_path(path)[-1] for path in paths)


def split_path(path: str) -> list[str]:
    return path.replace("\\", "/").split("/")


def count_shared(first: Sequence[str], second: Sequence[str]) -> int:
    """Count the folders and names, from the end, that the paths of two lists share."""
    count = 0
    for a, b in zip(first, second, strict=True):
        for one, other in zip(reversed(split_path(a)), reversed(split_path(b)), strict=False):
            if one != other:
                break
            count += 1
    return count


_Table = Mapping[str, int]
"""What may name a sample, and the sample's number."""


@dataclass(frozen=True)
class _Way:
    """How an id may name a sample: the field it stands in, what of the samples it is, and how it is taken."""

    field: str
    what: str
    table: _Table
    taken: str = "as it is"

    @property
    def words(self) -> str:
        heads = {
            "with the task": f"by `task` and `{self.field}`",
            "by its last number": f"by the number that `{self.field}` ends in",
        }
        return f"{heads.get(self.taken, f'by `{self.field}`')}, {self.what}"

    def find(self, row: _Row) -> int | None:
        """Return the number of a row's sample, None if it names none."""
        name = row.ids.get(self.field, "")
        if self.taken == "with the task":
            name = f"{row.task}/{name}"
        elif self.taken == "by its last number":
            found = _LAST_NUMBER.search(name)
            name = found[1] if found else ""
        return self.table.get(name)


def _list_ways(rows: Sequence[_Row], samples: Sequence[GroundingSample], whole: bool) -> Iterable[_Way]:
    """Yield each way in which an id may name a sample, the surest first."""
    tables = _list_tables(samples, whole)
    for field in (name for name in ID_FIELDS if any(name in row.ids for row in rows)):
        for what, table in tables.items():
            yield _Way(field, what, table)
        yield _Way(field, _IN_TASK, tables[_IN_TASK], "with the task")
        for what in _IN_FILE:
            yield _Way(field, what, tables[what], "by its last number")


def _list_tables(samples: Sequence[GroundingSample], whole: bool) -> dict[str, dict[str, int]]:
    """Return what may name a sample: for each kind of name, the samples' numbers."""
    keys: dict[str, int] = {}
    seen: Counter[str] = Counter()
    in_tasks: Counter[str] = Counter()
    names: dict[str, dict[str, int]] = {"the sample's key": keys}
    for what in ("its source", "its record's id", _IN_TASK):
        names[what] = {}
    for number, sample in enumerate(samples):
        seen[sample.key] += 1  # as `univg evaluate` names a sample that comes twice
        keys[sample.key if seen[sample.key] == 1 else f"{sample.key}-{seen[sample.key]}"] = number
        names["its source"].setdefault(sample.source, number)
        names["its record's id"].setdefault(sample.source.partition("#")[2], number)
        names[_IN_TASK][f"{sample.task}/{in_tasks[sample.task]}"] = number
        in_tasks[sample.task] += 1
    places = [
        sample.extra.get("position", number if whole else None) for number, sample in enumerate(samples)
    ]
    for start, what in enumerate(_IN_FILE):
        table = {str(place + start): n for n, place in enumerate(places) if isinstance(place, int)}
        names[what] = table
    return names


def _match_by_question(
    rows: Sequence[_Row], samples: Sequence[GroundingSample], asked: Sequence[str]
) -> Match | None:
    """Match by the question and the images beside it; by the question alone where it is asked once."""
    of_images: dict[tuple[str, ...], list[int]] = defaultdict(list)
    of_question: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        of_images[_name_images(sample.images)].append(number)
        of_question[asked[number]].append(number)
    taken: set[int] = set()
    numbers: list[int | None] = []
    for row in rows:
        fitting = [n for n in of_images.get(row.images, ()) if asked[n] in row.question]
        longest = max((len(asked[n]) for n in fitting), default=0)
        fitting = [n for n in fitting if len(asked[n]) == longest]
        if len(fitting) > 1:  # pictures of one name in several folders
            shared = {n: count_shared(row.paths, samples[n].images) for n in fitting}
            fitting = [n for n in fitting if shared[n] == max(shared.values())]
        alone = of_question.get(row.question, [])
        fitting = fitting or (alone if len(alone) == 1 and not row.images else [])
        free = next((n for n in fitting if n not in taken), fitting[0] if fitting else None)
        numbers.append(free)
        taken.update([] if free is None else [free])
    if 2 * len(taken) < min(len(rows), len(samples)):  # a few may be equal by chance
        return None
    return Match(numbers, "by question and images" if any(row.images for row in rows) else "by question")


def _match_by_order(
    rows: Sequence[_Row],
    samples: Sequence[GroundingSample],
    agrees: Callable[[_Row, int], bool],
    path: Path,
) -> Match:
    """Match the first with the first: within each task if all answers name theirs, else over the whole file."""
    of_task: dict[str | None, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        of_task[sample.task].append(number)
    counts = Counter(row.task for row in rows)
    ids = next((name for row in rows for name in row.ids.values()), None)
    numbers: list[int] = []
    if rows and all(len(of_task.get(task, ())) == count for task, count in counts.items()):
        order = {task: iter(of_task[task]) for task in counts}
        numbers, how = [next(order[row.task]) for row in rows], "by the order in each task"
    elif len(rows) == len(samples):
        numbers, how = list(range(len(samples))), "by the order in the file"
    told = f"none of their ids (such as {ids[:60]}) is one of its samples'" if ids else "they have no ids"
    remedy = (
        f"give each the `id` of its sample (such as {samples[0].source}, or its place in the file from 0)"
    )
    if not numbers:
        cause = f"{len(rows)} answers and {len(samples)} samples: {told}, so nothing tells which is whose"
        raise UnivgError(cause, path, remedy)
    agreeing = sum(agrees(row, n) for row, n in zip(rows, numbers, strict=True))
    if any(row.task or row.question for row in rows) and 0 < agreeing < 0.9 * len(rows):
        cause = f"{told}, and in order {len(rows) - agreeing} of {len(rows)} answers are to another question"
        raise UnivgError(cause, path, remedy)
    return Match(numbers, f"{how} ({told}; both have {len(rows)})")
