"""Propose, verify, select, keep: samples in, samples with a verified chain of thought out.

Only the answers are state, and they are in the ledger; everything else follows from them. A run goes through the
samples in their order, block by block, asks for what the ledger lacks, and writes the results anew; so one that was
stopped, or whose rules were changed, is run again with the same folder.

    with Ledger(Path("thoughts")) as ledger:
        construct(Dataset.from_world(26), WorldTeacher(), ledger, Plan(chains=1, shown=False)).check()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from univg.construct.config import Plan
from univg.construct.copies import Copies
from univg.construct.ledger import BudgetError, Draw, Ledger, Request
from univg.construct.prompts import Prompts, ask_plainly
from univg.construct.results import Results
from univg.construct.select import Choice, choose, list_orders
from univg.construct.teacher import Result, Teacher, WorldTeacher, request_of
from univg.construct.verify import Verdict, verify
from univg.data.dataset import Dataset, Item
from univg.errors import UnivgError
from univg.files import unwritable
from univg.grounding.boxes import clip_unit, is_degenerate, is_ordered
from univg.grounding.coordinates import Frame
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


@dataclass
class Proposal:
    """One chain with everything known of it. `tokens` (in, out) and `seconds` are its share of its request's."""

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
    """A sample on its way. `outcome` is None until it is decided; `why` explains some outcomes."""

    item: Item
    outcome: str | None = None
    why: str = ""
    requests: list[Request] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    failures: int = 0
    judging: list[Request] = field(default_factory=list)
    choice: Choice | None = None
    judged: Usage = field(default_factory=Usage)

    @property
    def verified(self) -> list[Proposal]:
        """The proposals without a cause against them."""
        return [one for one in self.proposals if not one.verdict.causes]

    def settle(self, outcome: str, why: str = "") -> None:
        """Decide what becomes of the sample."""
        self.outcome, self.why = outcome, why


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` samples of `total` are decided or passed, `kept` of these with a thought or as they
    are. `per_minute` requests and `seconds_left` are None until something was asked."""

    done: int
    total: int
    kept: int
    requests: int
    per_minute: float | None
    spent: Usage
    cost: float
    seconds_left: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `manifest`: the content of manifest.json. `stopped`: what broke the run off, None if nothing
    did. `exhausted`: the budget is used up. `reasons`: why the first sample of each undecided kind is."""

    folder: Path
    manifest: Mapping[str, Any]
    stopped: UnivgError | KeyboardInterrupt | None
    exhausted: bool
    reasons: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise whatever kept the run from deciding every sample: what broke it off, the budget (BudgetError), or
        images and answers that were missing (UnivgError)."""
        undecided = self.manifest["undecided"]
        if self.stopped is not None:
            raise self.stopped
        if self.exhausted:
            cause = f"the budget is used up; {undecided} samples remain"
            remedy = "raise it and run the same command; what was answered is kept"
            raise BudgetError(cause, self.folder, remedy)
        if undecided:
            place = f"{self.folder / 'left-out.jsonl'} says why"
            remedy = "put that right and run the same command; what was answered is kept"
            counts = self.manifest["samples"]
            first = "; ".join(
                f"{name} {counts[name]}, the first: {why}" for name, why in self.reasons.items()
            )
            raise UnivgError(f"{undecided} samples are undecided ({first})", place, remedy)


def construct(
    data: Dataset,
    teacher: Teacher,
    ledger: Ledger,
    plan: Plan,
    judge: Teacher | None = None,
    prompts: Prompts | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Write chains of thought for `data` into the folder of an open `ledger`, results, manifest and card included.

    `judge` picks among several verified chains; None leaves the choice to the rule. What stops a run that has asked
    for something is in the outcome, beside the results so far; anything earlier is raised.
    """
    prompts = prompts or Prompts.load()
    facts = {
        "teacher": teacher.about(),
        "judge": None if judge is None else judge.about(),
        "prompts": prompts.digests() if plan.shown or judge else {"question": "the paper's wording"},
        "data": {"name": data.name, "about": data.about, "digest": data.digest, "samples": data.total},
    }
    stopped: UnivgError | KeyboardInterrupt | None = None
    try:
        with Results(ledger.folder, ledger, teacher.name) as results:
            try:
                Constructor(data, teacher, judge, prompts, plan, ledger, results, on_progress).run()
            except (UnivgError, KeyboardInterrupt) as error:
                if not results.reached:
                    raise
                stopped = error
        if results.has_sets and (plan.shown or judge):
            facts["prompts"] = prompts.digests(with_sets=True)
        manifest = results.finish(facts, plan)
        return Outcome(ledger.folder, manifest, stopped, ledger.exhausted, results.reasons)
    except BrokenPipeError:  # from whoever shows the progress
        raise
    except OSError as error:
        raise unwritable(error.filename or ledger.folder, error) from error


class Constructor:
    """Take samples through the four steps, for :func:`construct`."""

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
        self._on_progress = on_progress
        self._copies = Copies(plan.rules.copies)
        self._seen: set[str] = set()
        self._done = 0
        self._started: tuple[float, int] | None = None

    def run(self) -> None:
        """Go through the samples, to the end or as far as the budget goes. What becomes of each is handed to
        `results` in the data's order. Raises UnivgError if the teacher cannot go on.
        """
        items = iter(self.data.items())
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
        """Decide about a sample what can be decided, and prepare its requests, before anybody is asked."""
        draft = Draft(item, self._decide_early(item))
        self._seen.add(item.sample.key)
        if draft.outcome is None:
            try:
                draft.requests = self._make_requests(item)
            except ImageFault as fault:
                draft.settle("image", str(fault))
        return draft

    def _decide_early(self, item: Item) -> str | None:
        sample = item.sample
        if sample.key in self._seen:
            return "duplicate"
        if not sample.is_answered:
            return "no_truth"
        counted = sample.boxes if sample.complete else sample.boxes[:1]
        if any(not is_ordered(box) or is_degenerate(clip_unit(box)[0]) for box in counted):
            return "bad_truth"
        if not sample.thinking:
            return "simple"
        if isinstance(self.teacher, WorldTeacher) and not self.teacher.knows(item):
            return "no_exact_thought"
        return None

    def _make_requests(self, item: Item) -> list[Request]:
        plan, sample = self.plan, item.sample
        if isinstance(self.teacher, WorldTeacher):
            how, draws = Draw(plan.max_new_tokens, 0.0), 1
        elif plan.together:
            how, draws = Draw(plan.max_new_tokens, plan.temperature, plan.chains), 1
        else:
            how, draws = Draw(plan.max_new_tokens, plan.temperature), plan.chains
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
                    draft.proposals += self._verify(request, result, len(draft.proposals))
                elif isinstance(result, Refusal):
                    draft.failures += 1
                    draft.why = result.why
                    draft.outcome = "image" if result.kind == "image" else draft.outcome
                else:
                    draft.settle("unasked", "the budget is used up")
            if draft.outcome is None:
                self._remember(draft)

    def _verify(self, request: Request, answer: Answer, first: int) -> Iterator[Proposal]:
        """Yield the proposals of one answer, numbered from `first`, each with its verdict."""
        sample, count = request.item.sample, len(answer.texts)
        # Our prompts ask for thousandths, whatever the teacher's family writes.
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
                _share(answer.prompt_tokens, count, at),
                _share(answer.completion_tokens, count, at),
                round(answer.seconds / count, 3),
            )

    def _remember(self, draft: Draft) -> None:
        """Make the verified thoughts originals, which later samples must not copy; without any, settle the sample."""
        for one in draft.verified:
            one.state = "verified"
            self._copies.add(draft.item.sample.key, str(one.verdict.thought))
        if not draft.verified:
            draft.outcome = "no_response" if draft.failures else "none_verified"

    def _select(self, drafts: Sequence[Draft]) -> None:
        results: dict[str, Result] = {}
        if self.judge is not None:
            for draft in drafts:
                if draft.outcome is None and len(draft.verified) > 1:
                    try:
                        draft.judging = self._make_judge_requests(self.judge, draft)
                    except ImageFault as fault:  # it was there when the proposals were asked for
                        draft.settle("image", str(fault))
            results = self._ask(self.judge, [request for draft in drafts for request in draft.judging])
        for draft in drafts:
            if draft.outcome is None:
                self._keep(draft, [results.get(request.key) for request in draft.judging])

    def _make_judge_requests(self, judge: Teacher, draft: Draft) -> list[Request]:
        how = Draw(self.plan.judge_tokens, 0.0)
        thoughts = [str(one.verdict.thought) for one in draft.verified]
        requests = []
        for number, order in enumerate(list_orders(len(thoughts))):
            shown = [thoughts[place] for place in order]
            messages = self.prompts.judge(draft.item.sample, shown, self.plan.rules.language)
            requests.append(request_of(judge, draft.item, "judge", number, messages, how, self.plan.seed))
        return requests

    def _keep(self, draft: Draft, answers: Sequence[Result]) -> None:
        """Keep the best verified proposal by the judge's answers, by the rule if there are none."""
        if any(answer is None for answer in answers):
            draft.settle("unasked", "the budget is used up")
            return
        answered = [answer for answer in answers if isinstance(answer, Answer)]
        usages = (Usage(1, answer.prompt_tokens, answer.completion_tokens) for answer in answered)
        draft.judged = sum(usages, Usage())
        texts = [answer.texts[0] if isinstance(answer, Answer) else None for answer in answers]
        draft.choice = choose([one.verdict.iou for one in draft.verified], texts or None)
        for one, votes in zip(draft.verified, draft.choice.votes, strict=True):
            one.votes = votes
        draft.verified[draft.choice.chosen].state = "selected"
        draft.outcome = "kept"

    def _ask(self, teacher: Teacher, requests: Sequence[Request]) -> dict[str, Result]:
        """Return answers by key: from the ledger, else from the teacher as far as the budget goes."""
        results: dict[str, Result] = {request.key: self.ledger.find(request.key) for request in requests}
        missing = {request.key: request for request in requests if results[request.key] is None}
        if missing:
            self.results.reached = True
            self._started = self._started or (time.monotonic(), self._done)
            with closing(teacher.answer(list(missing.values()), self.ledger)) as answers:
                for count, (request, result) in enumerate(answers, start=1):
                    results[request.key] = result
                    self._report(count / len(missing))
        return results

    def _report(self, share: float) -> None:
        """Report progress; `share` of the block under way is answered.

        Speed is that since the first request of this run: what an earlier run was answered says nothing of it.
        """
        asked, spent, total = self.ledger.asked.requests, self.ledger.spent, self.data.total
        reached = self._done + 0.9 * share * min(self.teacher.block, total - self._done)
        rate = left = None
        if self._started is not None and asked and reached > self._started[1]:
            seconds = max(1e-9, time.monotonic() - self._started[0])
            rate, left = 60 * asked / seconds, seconds / (reached - self._started[1]) * (total - reached)
        cost = self.ledger.prices.cost(spent)
        self._on_progress(Progress(self._done, total, self.results.kept, asked, rate, spent, cost, left))


def _share(whole: int, count: int, at: int) -> int:
    """Return part `at` of `count` whole parts that add up to `whole`."""
    return whole // count + (at < whole % count)
