"""Write what a run leaves behind besides its journal; all of it follows from the journal and is written anew.

DIR/samples.jsonl     the kept samples, with their thoughts (the format `univg`)
DIR/proposals.jsonl   every proposal: text, verdicts, votes, tokens, cost
DIR/left-out.jsonl    every sample that was not kept, and why
DIR/manifest.json     where it comes from: teacher, prompts' hashes, data's digest, settings, counts
DIR/README.md         the dataset card
DIR/images/           the pictures of samples that were drawn here
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import univg
from univg.construct.card import count_kept, write_card
from univg.construct.config import Plan
from univg.construct.ledger import Ledger
from univg.files import digest_file, replacing, write_whole
from univg.grounding.samples import GroundingSample
from univg.models.answering import Usage
from univg.pictures.drawing import save_picture

if TYPE_CHECKING:
    from univg.construct.pipeline import Draft, Proposal

FILES = ("samples.jsonl", "proposals.jsonl", "left-out.jsonl")
UNDECIDED = ("image", "no_response", "unasked")
"""Outcomes that another run may change."""


class Results:
    """Write a run's results beside those of the last one, and put them in their place at the end.

    A run that is broken off before it has asked anything new (`reached`) leaves the last results as they were:
    it knows no more than they do.
    """

    def __init__(self, folder: Path, ledger: Ledger, teacher: str) -> None:
        self.folder, self.reached = folder, False
        self.counts: Counter[str] = Counter()
        self.by_task: dict[str, Counter[str]] = {}
        self.causes: dict[str, Counter[str]] = {}
        self.chosen_by: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.proposals = 0
        self.has_sets = False
        self.used, self.judged = Usage(), Usage()
        self._ledger, self._teacher = ledger, teacher
        self._files: dict[str, IO[bytes]] = {}
        self._open = ExitStack()

    @property
    def kept(self) -> int:
        """How many samples are kept so far."""
        return count_kept(self.counts)

    def __enter__(self) -> Results:
        # The ledger is ours alone, so any partial file was left by a run that was killed.
        for leftover in self.folder.glob(".*.partial"):
            leftover.unlink()
        for name in FILES:
            partial = self._open.enter_context(replacing(self.folder / name))
            self._files[name] = self._open.enter_context(partial.open("wb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self.reached:
            self._open.close()
        else:
            self._open.__exit__(kind, error, trace)

    def add(self, draft: Draft) -> None:
        """Write down what became of a sample."""
        sample, outcome = draft.item.sample, str(draft.outcome)
        self.has_sets |= sample.complete
        self.counts[outcome] += 1
        self.by_task.setdefault(sample.task, Counter())[outcome] += 1
        for one in draft.proposals:
            self._add_proposal(sample, one)
        self.judged += draft.judged
        if outcome in ("kept", "simple"):
            self._add_kept(draft)
        else:
            if outcome in UNDECIDED and draft.why:
                self.reasons.setdefault(outcome, draft.why)
            row = {"sample": sample.key, "source": sample.source, "task": sample.task, "outcome": outcome}
            self._write("left-out.jsonl", row | ({"why": draft.why} if draft.why else {}))

    def _add_proposal(self, sample: GroundingSample, one: Proposal) -> None:
        self.proposals += 1
        usage = Usage(0, one.prompt_tokens, one.completion_tokens)
        self.used += usage
        if one.verdict.causes:
            self.causes.setdefault(sample.task, Counter())[one.verdict.causes[0]] += 1
        row = {
            "sample": sample.key,
            "source": sample.source,
            "task": sample.task,
            "draw": one.draw,
            "request": one.request,
            "state": one.state,
            "causes": list(one.verdict.causes),
            "iou": round(one.verdict.iou, 6),
            "votes": one.votes,
            "text": one.text,
            "thought": one.verdict.thought,
            "prompt_tokens": one.prompt_tokens,
            "completion_tokens": one.completion_tokens,
            "cost": round(self._ledger.prices.cost(usage), 9),
            "seconds": one.seconds,
        }
        self._write("proposals.jsonl", row)

    def _add_kept(self, draft: Draft) -> None:
        sample, choice = draft.item.sample, draft.choice
        if choice is not None:
            self.chosen_by[choice.by] += 1
            one = next(one for one in draft.proposals if one.state == "selected")
            origin = {"teacher": self._teacher, "request": one.request, "draw": one.draw, "by": choice.by}
            origin |= {"iou": round(one.verdict.iou, 6)}
            sample = replace(sample, thought=one.verdict.thought, extra={**sample.extra, "thought": origin})
        if draft.item.drawn:
            for name, image in zip(sample.images, draft.item.pictures(), strict=True):
                path = self.folder / name
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_picture(image, path)
        self._write("samples.jsonl", sample.to_json())

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        # Half of a surrogate pair, which a model's text may hold, can only be written as an escape.
        try:
            line = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            line = json.dumps(row, ensure_ascii=True).encode()
        self._files[name].write(line + b"\n")

    def finish(self, facts: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        """Write manifest and card once the files are in their place, and return the manifest.

        `facts`: teacher, judge, prompts and data, as the manifest shows them. Samples that no run has reached count
        as "unasked".
        """
        spent, prices, budget = self._ledger.spent, self._ledger.prices, self._ledger.budget
        self.counts += Counter(unasked=facts["data"]["samples"] - sum(self.counts.values()))
        undecided = sum(self.counts[name] for name in UNDECIDED)
        manifest = {
            "univg": univg.__version__,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
            "plan": asdict(plan),
            "samples": dict(self.counts),
            "complete": undecided == 0,
            "undecided": undecided,
            "by_task": {task: dict(counts) for task, counts in self.by_task.items()},
            "proposals": self.proposals,
            "rejected": dict(sum(self.causes.values(), Counter())),
            "rejected_by_task": {task: dict(counts) for task, counts in self.causes.items()},
            "chosen_by": dict(self.chosen_by),
            "prices_per_million": asdict(prices),
            "budget": asdict(budget),
            "proposals_used": asdict(self.used),
            "judging_used": asdict(self.judged),
            "spent": {**asdict(spent), "cost": round(prices.cost(spent), 6)},
            "files": {name: digest_file(self.folder / name) for name in FILES},
        }
        texts = {
            "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
            "README.md": write_card(manifest),
        }
        for name, text in texts.items():  # a file's name may hold what UTF-8 cannot
            write_whole(self.folder / name, text.encode("utf-8", "backslashreplace"))
        return manifest
