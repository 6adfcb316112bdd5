"""Requests put together: what is in a batch never shows in an answer, and one that fails fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from PIL import Image

from univg.models.generation.generate import Chat, Generation, encode, generate
from univg.models.loading import Loaded
from univg.serve import batching
from univg.serve.batching import Ask, Batcher, BatchReport, Closed, Expired, PromptMeter

Make = Callable[..., Batcher]


@pytest.fixture
def make(loaded: Loaded) -> Iterator[Make]:
    """`make(**settings)` is a batcher over the embedded model; closed in the end."""
    made: list[Batcher] = []

    def start(**settings: Any) -> Batcher:
        made.append(Batcher(loaded, **settings))
        return made[-1]

    yield start
    for batcher in made:
        assert batcher.close(300)


def ask(text: str, **settings: Any) -> Ask:
    return Ask(Chat((), ({"role": "user", "content": text},)), **{"max_new_tokens": 8, **settings})


def texts(answer: Sequence[Generation]) -> list[str]:
    return [one.text for one in answer]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_answers_are_those_of_one_at_a_time(
    loaded: Loaded, make: Make, picture: Callable[[int, int], Image.Image]
) -> None:
    chats = [Chat.ask([picture(60 + 20 * i, 80)], "Where?" * (i + 1), "direct") for i in range(5)]
    alone = [texts(generate(loaded, [chat], max_new_tokens=12)[0]) for chat in chats]
    reports: list[BatchReport] = []
    batcher = make(on_batch=reports.append)
    futures = [batcher.submit(Ask(chat, 12)) for chat in chats]
    assert [texts(future.result(300)) for future in futures] == alone
    assert len(set(map(tuple, alone))) > 1
    assert sum(report.requests for report in reports) == 5 and len(reports) < 5


def test_a_seed_is_its_requests_own(make: Make) -> None:
    batcher = make()
    drawn = {"max_new_tokens": 12, "temperature": 5.0}
    together = [batcher.submit(ask("Where?", seed=seed, **drawn)) for seed in (1, 2, 1)]
    first, second, again = (texts(future.result(300)) for future in together)
    alone = texts(batcher.submit(ask("Where?", seed=1, **drawn)).result(300))
    assert first == again == alone and first != second
    free = [texts(batcher.submit(ask("Where?", **drawn)).result(300)) for _ in range(2)]
    assert free[0] != free[1]


def test_several_responses(make: Make) -> None:
    batcher = make(batch_size=2)
    three = texts(batcher.submit(ask("Where?", n=3, temperature=1.0, seed=3)).result(300))
    assert len(set(three)) == 3
    greedy = texts(batcher.submit(ask("Where?", n=3)).result(300))
    assert len(greedy) == 3 and len(set(greedy)) == 1


def test_a_batch_is_of_one_kind_and_within_bounds(make: Make, scripted: Any) -> None:
    scripted.go.clear()
    batcher = make(batch_size=3, batch_tokens=100)
    futures = [batcher.submit(ask("first"))]
    wait_for(lambda: len(scripted.batches) == 1)
    waiting = [
        ("a", {}),
        ("warm", {"temperature": 1.0}),
        ("b", {}),
        ("long", {"prompt_tokens": 60}),
        ("huge", {"prompt_tokens": 500}),
        ("c", {}),
        ("d", {}),
        ("longer", {"max_new_tokens": 9}),
    ]
    futures += [batcher.submit(ask(text, **settings)) for text, settings in waiting]
    assert batcher.waiting == 8
    scripted.go.set()
    answered = [texts(future.result(300)) for future in futures]
    assert answered == [["first"], *([text] for text, _ in waiting)]
    # "long" would make three rows of 68 tokens; "huge" fits with none and goes alone.
    assert scripted.batches == [["first"], ["a", "b", "c"], ["warm"], ["long"], ["huge"], ["d"], ["longer"]]


def test_what_is_on_its_way_is_waited_for(make: Make, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_LONGEST_WINDOW_S", 300.0)  # on a busy machine a moment may be long
    batcher = make(window_s=0.0)
    with batcher.arriving():
        first = batcher.submit(ask("a"))
        time.sleep(0.02)
        second = batcher.submit(ask("b"))
    assert first.result(300) and second.result(300)
    assert scripted.batches == [["a", "b"]]


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("cannot be asked")], ids=repr)
def test_what_fails_fails_alone(error: Exception, make: Make, scripted: Any) -> None:
    scripted.error = error
    reports: list[BatchReport] = []
    batcher = make(on_batch=reports.append)
    with batcher.arriving():
        futures = {text: batcher.submit(ask(text)) for text in ("a", "b", "bad", "c", "d")}
    for text, future in futures.items():
        if text == "bad":
            with pytest.raises(type(error), match=str(error)):
                future.result(300)
        else:
            assert texts(future.result(300)) == [text]
    assert batcher.fault is None and {report.failed for report in reports} == {True, False}


def test_a_model_that_only_fails_is_told(make: Make, scripted: Any) -> None:
    batcher = make()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            batcher.submit(ask("bad")).result(300)
    assert batcher.fault == "the last 3 batches failed"
    assert batcher.submit(ask("good")).result(300)
    assert batcher.fault is None


def test_what_nobody_waits_for_is_not_run(make: Make, scripted: Any) -> None:
    scripted.go.clear()
    batcher = make()
    batcher.submit(ask("first"))
    wait_for(lambda: len(scripted.batches) == 1)
    late, gone, kept = (
        batcher.submit(ask("late"), 0.01),
        batcher.submit(ask("gone")),
        batcher.submit(ask("kept")),
    )
    assert batcher.waiting == 3
    assert gone.cancel() and batcher.running_s() > 0
    assert batcher.waiting == 2  # at once: what is cancelled holds its images no longer than that
    time.sleep(0.02)
    scripted.go.set()
    assert texts(kept.result(300)) == ["kept"]
    with pytest.raises(Expired):
        late.result(300)
    assert scripted.batches == [["first"], ["kept"]]


def test_one_that_is_given_up_as_it_expires_stops_no_other(
    make: Make, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenUp(Future[Any]):
        def set_running_or_notify_cancel(self) -> bool:
            self.cancel()
            return super().set_running_or_notify_cancel()

    batcher = make(window_s=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(batching, "Future", GivenUp)
        late = batcher.submit(ask("late"), 0.0)
    assert texts(batcher.submit(ask("next")).result(300)) == ["next"]
    assert late.cancelled() and scripted.batches == [["next"]]


def test_closing_finishes_what_was_taken(make: Make, scripted: Any) -> None:
    scripted.go.clear()
    batcher = make(batch_size=1)
    futures = [batcher.submit(ask(text)) for text in "abc"]
    assert not batcher.close(0.01)
    with pytest.raises(Closed):
        batcher.submit(ask("d"))
    scripted.go.set()
    assert [texts(future.result(300)) for future in futures] == [["a"], ["b"], ["c"]]
    assert batcher.close(300)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}], ids=repr)
def test_impossible_requests(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        ask("a", **wrong)


def test_a_prompts_tokens_are_counted(loaded: Loaded, picture: Callable[[int, int], Image.Image]) -> None:
    chat = Chat.ask([picture(100, 60), picture(300, 300)], "Where is it?", "think")
    prompt = loaded.processor.apply_chat_template(
        list(chat.messages), tokenize=False, add_generation_prompt=True
    )
    assert PromptMeter(loaded)(chat) == encode(loaded, [chat], [str(prompt)])["input_ids"].shape[1]
