"""Keep every answer that was paid for on disk as it arrives, and account for what it cost.

`DIR/journal.jsonl` only grows. An answer is found again by the hash of its request: who was asked, in which words,
about which pixels, how it was drawn. So a run that was stopped at any moment asks only for what is missing, and
a change of the rules of verification asks for nothing at all.

Answers that shards of the same data paid for, in the folders `DIR/shard-I-of-N`, count as the folder's own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from univg.data.dataset import Item
from univg.errors import UnivgError
from univg.files import Journal, unwritable, whole_lines
from univg.models.answering import Answer, Usage

Role: TypeAlias = Literal["propose", "judge"]


JOURNAL = "journal.jsonl"
"""The file of a folder that holds every answer."""


def shard_folder(folder: Path, shard: tuple[int, int]) -> Path:
    """Return where a shard, (its number from 0, how many), of a run in `folder` has its own run."""
    return folder / f"shard-{shard[0]}-of-{shard[1]}"


class BudgetError(UnivgError):
    """Say that the budget is used up; the command's edge ends with this exit code, so that scripts can tell."""

    exit_code = 3


@dataclass(frozen=True)
class Draw:
    """Say how texts are drawn: `n` of them in one request."""

    max_new_tokens: int
    temperature: float
    n: int = 1


@dataclass(frozen=True)
class Request:
    """Hold one question to a teacher. `key` is the hash of everything that decides the answer; `draw` counts the
    requests of one sample and role from 0."""

    key: str
    item: Item
    role: Role
    draw: int
    messages: tuple[Mapping[str, Any], ...]
    how: Draw
    seed: int


@dataclass(frozen=True)
class Prices:
    """Hold the money for a million tokens, in whatever currency.

    >>> Prices(1.5, 6.0).cost(Usage(1, 2000, 500))
    0.006
    """

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Return what a usage costs."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Budget:
    """Limit what a folder may cost, all its runs together; None is no limit."""

    tokens: int | None = None
    money: float | None = None


class Ledger:
    """Open the journal of one folder, for any number of threads; no other process can write to it meanwhile.

    `asked` is what this run paid for, `spent` all that the folder holds, its shards included. Entering makes the
    folder; it raises UnivgError for a folder that another process has (or one of its shards) or that cannot be
    written, and for a damaged journal.
    """

    def __init__(self, folder: Path, prices: Prices | None = None, budget: Budget | None = None) -> None:
        self.folder, self.path = folder, folder / JOURNAL
        self.prices, self.budget = prices or Prices(), budget or Budget()
        self.spent, self.asked, self.exhausted = Usage(), Usage(), False
        self._held, self._ratio = Usage(), 1.0
        self._places: dict[str, tuple[Path, int, int]] = {}
        self._journal = Journal(self.path)
        self._open = ExitStack()
        self._changed = threading.Condition()

    def __enter__(self) -> Ledger:
        with ExitStack() as opened:  # whatever happens before all is read, Ctrl-C as well, shuts them again
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                opened.enter_context(self._journal)
                shards = sorted(self.folder.glob(f"shard-*-of-*/{JOURNAL}"))
                for path in shards:
                    opened.enter_context(Journal(path))  # what is still asked there would be paid for twice
            except OSError as error:
                raise unwritable(self.folder, error) from error
            for path in (self.path, *shards):
                self._read(path)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:  # a late answer finds the journal shut, or is written whole before
            self._open.close()

    def find(self, key: str) -> Answer | None:
        """Return the answer to a request that has been paid for, None for any other."""
        place = self._places.get(key)
        if place is None:
            return None
        path, start, length = place
        with path.open("rb") as file:
            file.seek(start)
            row = json.loads(file.read(length))
        seen = tuple((int(width), int(height)) for width, height in row["seen_wh"])
        texts, truncated = tuple(row["texts"]), tuple(row["truncated"])
        return Answer(
            key, texts, truncated, (None,) * len(texts), row["prompt_tokens"], row["completion_tokens"],
            row["estimated"], seen, row["seconds"],
        )  # fmt: skip

    def admit(self, estimate: Usage, stop: threading.Event) -> Usage | None:
        """Hold as much of the budget as a request may cost at most, and return that; None if it does not fit any more.

        While other requests are under way it waits, as they may come out cheaper than was held for them.
        """
        with self._changed:
            while not (self.exhausted or stop.is_set()):
                prompt = int(estimate.prompt_tokens * self._ratio) + 1
                held = Usage(estimate.requests, prompt, estimate.completion_tokens)
                if self._fits(held):
                    self._held += held
                    return held
                if not self._held.requests:
                    self.exhausted = True
                    break
                self._changed.wait(0.2)
            return None

    def release(self, held: Usage) -> None:
        """Give back what was held for a request that got no answer."""
        with self._changed:
            self._held += Usage(-held.requests, -held.prompt_tokens, -held.completion_tokens)
            self._changed.notify_all()

    def record(self, answered: Sequence[tuple[Request, Answer]], held: Usage, teacher: str) -> None:
        """Write answers to the disk, before anything else is done with them."""
        rows = [_make_row(request, answer, teacher) for request, answer in answered]
        with self._changed:
            start = os.path.getsize(self.path)
            self._journal.append(rows)
            for row in rows:
                # As the journal writes it: ASCII, so that characters are bytes.
                length = len(json.dumps(row, ensure_ascii=True)) + 1
                self._count(row["request"], row, (self.path, start, length))
                start += length
            used = sum((_count_usage(row) for row in rows), Usage())
            self.asked += used
            if held.prompt_tokens and not any(answer.estimated for _, answer in answered):
                # A server that counts more than we thought will do so again.
                self._ratio = max(self._ratio, self._ratio * used.prompt_tokens / held.prompt_tokens)
        self.release(held)

    def _fits(self, more: Usage) -> bool:
        total = self.spent + self._held + more
        tokens, money = self.budget.tokens, self.budget.money
        return (tokens is None or total.tokens <= tokens) and (
            money is None or self.prices.cost(total) <= money
        )

    def _count(self, key: str, row: Mapping[str, Any], place: tuple[Path, int, int]) -> None:
        self._places.setdefault(key, place)
        self.spent += _count_usage(row)

    def _read(self, path: Path) -> None:
        start = 0
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                row = json.loads(line)
                self._count(row["request"], row, (path, start, len(line)))
            except (ValueError, KeyError, TypeError):
                place = f"{path}, line {number}"
                raise UnivgError("a damaged line", place, "remove that line and run again") from None
            start += len(line)


def _count_usage(row: Mapping[str, Any]) -> Usage:
    return Usage(1, row["prompt_tokens"], row["completion_tokens"])


_KEPT = ("texts", "truncated", "prompt_tokens", "completion_tokens", "estimated", "seen_wh")


def _make_row(request: Request, answer: Answer, teacher: str) -> dict[str, Any]:
    row: dict[str, Any] = {"request": request.key, "sample": request.item.sample.key, "role": request.role}
    row |= {"draw": request.draw, "teacher": teacher} | {name: getattr(answer, name) for name in _KEPT}
    return row | {"seconds": round(answer.seconds, 3)}
