"""Propose, verify, select, keep: samples in, samples with a verified chain of thought out.

Only the answers are state, and they are in the ledger; everything else follows from them. A run goes through the
samples in their order, block by block, asks for what the ledger lacks, and writes the results anew; so one that was
stopped, or whose rules were changed, is run again with the same folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from univg.construct.copies import Copies
from univg.construct.ledger import Draw, Ledger, Request
from univg.construct.prompts import Prompts, ask_plainly
from univg.construct.results import Results
from univg.construct.select import Choice, choose, list_orders
from univg.construct.teacher import Result, Teacher, WorldTeacher, request_of
from univg.construct.verify import Rules, Verdict, verify
from univg.data.dataset import Dataset, Item
from univg.grounding.boxes import clip_unit, is_degenerate, is_ordered
from univg.grounding.coordinates import Frame
from univg.grounding.samples import GroundingSample
from univg.models.answering import Answer, Refusal, Usage
from univg.pictures.images import ImageFault

OUTCOMES: Mapping[str, str] = {
    "kept": "with a verified chain of thought",
    "simple": "kept as it is: a simple reference, which is answered without thought",
    "none_verified": "left out: every proposal was rejected",
    "no_truth": "left out: there is no ground truth to verify against",
    "bad_truth": "left out: the ground truth encloses no area, or its corners are exchanged",
    "no_exact_thought": "left out: only samples of the world carry one",
    "duplicate": "left out: the same question, images and answer as an earlier sample",
    "image": "undecided: an image cannot be read; the next run tries again",
    "no_response": "undecided: the teacher gave no answer; the next run asks again",
    "unasked": "undecided: the run ended before it reached them",
}
"""What becomes of a sample."""

UNDECIDED = ("image", "no_response", "unasked")


@dataclass(frozen=True)
class Plan:
    """How thoughts are asked for and judged.

    `chains` proposals a sample, in one request if `together`, else in one each. `shown`: the teacher sees the
    ground truth and is asked in the words of `prompts`; else only the question is put to it.
    """

    chains: int = 3
    together: bool = False
    shown: bool = True
    rules: Rules = field(default_factory=Rules)
    temperature: float = 1.0
    max_new_tokens: int = 1024
    judge_tokens: int = 64
    seed: int = 0


@dataclass
class Proposal:
    """One chain with everything known of it. `tokens` (in, out) and `cost` are its share of its request's."""

    draw: int
    request: str
    text: str
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    votes: int = 0
    state: str = "rejected"


@dataclass
class Draft:
    """A sample on its way. `outcome` is None until it is decided."""

    item: Item
    outcome: str | None = None
    why: str = ""
    requests: list[Request] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    failures: int = 0
    choice: Choice | None = None
    judged: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Progress:
    """How far a run is. `done` samples of `total` are decided or passed; `share` counts those under way too.
    `per_minute` requests and `seconds_left` are None until something was asked."""

    done: int
    total: int
    kept: int
    requests: int
    per_minute: float | None
    spent: Usage
    cost: float
    seconds_left: float | None


class Constructor:
    """One run over `data`. `judge` None leaves the choice among verified chains to the rule."""

    def __init__(
        self,
        data: Dataset,
        teacher: Teacher,
        judge: Teacher | None,
        prompts: Prompts,
        plan: Plan,
        ledger: Ledger,
        results: Results,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.data, self.teacher, self.judge = data, teacher, judge
        self.prompts, self.plan, self.ledger, self.results = prompts, plan, ledger, results
        self._tell = on_progress
        self._copies = Copies(plan.rules.copies)
        self._seen: set[str] = set()
        self._done = 0
        self._clock = _Clock(data.total)

    def run(self) -> None:
        """Go through the samples, to the end or as far as the budget goes. What becomes of each is handed to
        `results` in the data's order.

        Raises UnivgError if the teacher cannot go on.
        """
        items = self.data.items()
        self._report(0.0)
        while block := list(islice(items, self.teacher.block)):
            drafts = [self._open(item) for item in block]
            self._propose(drafts)
            self._select(drafts)
            for draft in drafts:
                self.results.add(draft)
            self._done += len(drafts)
            self._report(0.0)
            if self.ledger.exhausted:  # nothing after this block has been asked
                return

    def _open(self, item: Item) -> Draft:
        """A sample as far as it is decided, or cannot be asked about, before anybody is asked."""
        sample, draft = item.sample, Draft(item)
        draft.outcome = self._decided_before(sample, item)
        self._seen.add(sample.key)
        if draft.outcome is None:
            try:
                draft.requests = self._requests(item)
            except ImageFault as fault:
                draft.outcome, draft.why = "image", str(fault)
        return draft

    def _decided_before(self, sample: GroundingSample, item: Item) -> str | None:
        if sample.key in self._seen:
            return "duplicate"
        if not sample.boxes:
            return "no_truth"
        if not is_ordered(sample.boxes[0]) or is_degenerate(clip_unit(sample.boxes[0])[0]):
            return "bad_truth"
        if not sample.thinking:
            return "simple"
        if isinstance(self.teacher, WorldTeacher) and not self.teacher.knows(item):
            return "no_exact_thought"
        return None

    def _requests(self, item: Item) -> list[Request]:
        plan = self.plan
        if isinstance(self.teacher, WorldTeacher):
            how, draws = Draw(plan.max_new_tokens, 0.0), 1
        elif plan.together:
            how, draws = Draw(plan.max_new_tokens, plan.temperature, plan.chains), 1
        else:
            how, draws = Draw(plan.max_new_tokens, plan.temperature), plan.chains
        sample = item.sample
        messages = self.prompts.propose(sample, plan.rules.language) if plan.shown else ask_plainly(sample)
        return [
            request_of(self.teacher, item, "propose", draw, messages, how, plan.seed) for draw in range(draws)
        ]

    def _propose(self, drafts: Sequence[Draft]) -> None:
        results = self._ask(self.teacher, [request for draft in drafts for request in draft.requests])
        for draft in drafts:
            if draft.outcome is not None:
                continue
            for request in draft.requests:
                result = results.get(request.key)
                if isinstance(result, Answer):
                    draft.proposals += self._verified(request, result, len(draft.proposals))
                elif isinstance(result, Refusal):
                    draft.failures += 1
                    draft.why = result.why
                    draft.outcome = "image" if result.kind == "image" else draft.outcome
                else:
                    draft.outcome, draft.why = "unasked", "the budget is used up"
            if draft.outcome is None:
                self._settle(draft)

    def _verified(self, request: Request, answer: Answer, first: int) -> Iterator[Proposal]:
        """The proposals of one answer, each with its verdict."""
        sample, count = request.item.sample, len(answer.texts)
        # In our words it is told to answer in thousandths, whatever its family writes.
        frame: Frame = "permille" if self.plan.shown else self.teacher.frame
        for at, (text, truncated) in enumerate(zip(answer.texts, answer.truncated, strict=True)):
            verdict = verify(
                sample, text, self.plan.rules, truncated=truncated, frame=frame, seen_wh=answer.seen_wh
            )
            if verdict.thought and self._copies.find_original(sample.key, verdict.thought):
                verdict = replace(verdict, causes=(*verdict.causes, "copied"))
            yield Proposal(
                first + at,
                request.key,
                text,
                verdict,
                _part(answer.prompt_tokens, count, at),
                _part(answer.completion_tokens, count, at),
                round(answer.seconds / count, 3),
            )

    def _settle(self, draft: Draft) -> None:
        """What can be said once all proposals are in; thoughts that pass are others' originals from now on."""
        passed = [one for one in draft.proposals if not one.verdict.causes]
        for one in passed:
            one.state = "verified"
            self._copies.add(draft.item.sample.key, str(one.verdict.thought))
        if not passed:
            draft.outcome = "no_response" if draft.failures else "none_verified"

    def _select(self, drafts: Sequence[Draft]) -> None:
        asked: dict[int, list[Request]] = {}
        for at, draft in enumerate(drafts):
            passed = _passed(draft)
            if draft.outcome is None and self.judge is not None and len(passed) > 1:
                try:
                    asked[at] = self._judge_requests(self.judge, draft, passed)
                except ImageFault as fault:  # it was there when the proposals were asked for
                    draft.outcome, draft.why = "image", str(fault)
        results: dict[str, Result] = {}
        if self.judge is not None and asked:
            results = self._ask(self.judge, [one for requests in asked.values() for one in requests])
        for at, draft in enumerate(drafts):
            if draft.outcome is not None:
                continue
            answers: list[str | None] | None = None
            if at in asked:
                answered = [results.get(request.key) for request in asked[at]]
                if any(answer is None for answer in answered):
                    draft.outcome, draft.why = "unasked", "the budget is used up"
                    continue
                answers = [one.texts[0] if isinstance(one, Answer) else None for one in answered]
                draft.judged = sum(map(_usage, answered), Usage())
            self._keep(draft, answers)

    def _judge_requests(self, judge: Teacher, draft: Draft, passed: Sequence[Proposal]) -> list[Request]:
        how = Draw(self.plan.judge_tokens, 0.0)
        thoughts = [str(one.verdict.thought) for one in passed]
        requests = []
        for number, order in enumerate(list_orders(len(passed))):
            shown = [thoughts[place] for place in order]
            messages = self.prompts.judge(draft.item.sample, shown, self.plan.rules.language)
            requests.append(request_of(judge, draft.item, "judge", number, messages, how, self.plan.seed))
        return requests

    def _keep(self, draft: Draft, answers: Sequence[str | None] | None) -> None:
        passed = _passed(draft)
        draft.choice = choose([one.verdict.iou for one in passed], answers)
        for one, votes in zip(passed, draft.choice.votes, strict=True):
            one.votes = votes
        passed[draft.choice.chosen].state = "selected"
        draft.outcome = "kept"

    def _ask(self, teacher: Teacher, requests: Sequence[Request]) -> dict[str, Result]:
        """Answers by key: from the ledger, or from the teacher as far as the budget goes."""
        results: dict[str, Result] = {}
        missing: dict[str, Request] = {}
        for request in requests:
            known = self.ledger.find(request.key)
            if known is not None:
                results[request.key] = known
            else:
                missing[request.key] = request
        if missing:
            self.results.reached = True
            self._clock.start(self._done)
            with closing(teacher.answer(list(missing.values()), self.ledger)) as answers:
                for count, (request, result) in enumerate(answers, start=1):
                    results[request.key] = result
                    self._report(count / len(missing))
        return results

    def _report(self, share: float) -> None:
        """`share` of the block under way is answered."""
        asked = self.ledger.asked
        reached = self._done + 0.9 * share * min(self.teacher.block, self.data.total - self._done)
        per_minute, seconds_left = self._clock.rate(asked.requests, reached)
        self._tell(
            Progress(
                self._done,
                self.data.total,
                self.results.counts["kept"] + self.results.counts["simple"],
                asked.requests,
                per_minute,
                self.ledger.spent,
                self.ledger.prices.cost(self.ledger.spent),
                seconds_left,
            )
        )


@dataclass
class _Clock:
    """Speed since the first request of this run: what an earlier run was answered says nothing about it."""

    total: int
    _started: float | None = None
    _from: float = 0.0

    def start(self, done: int) -> None:
        if self._started is None:
            self._started, self._from = time.monotonic(), done

    def rate(self, requests: int, reached: float) -> tuple[float | None, float | None]:
        if self._started is None or not requests or reached <= self._from:
            return None, None
        seconds = max(1e-9, time.monotonic() - self._started)
        left = seconds / (reached - self._from) * (self.total - reached)
        return 60 * requests / seconds, left


def _passed(draft: Draft) -> list[Proposal]:
    return [one for one in draft.proposals if not one.verdict.causes]


def _part(whole: int, count: int, at: int) -> int:
    """Part `at` of `count` whole parts that add up."""
    return whole // count + (at < whole % count)


def _usage(result: Any) -> Usage:
    if not isinstance(result, Answer):
        return Usage()
    return Usage(1, result.prompt_tokens, result.completion_tokens)
