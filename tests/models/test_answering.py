"""One protocol, two answerers: the same questions, accounts and refusals for a local model and a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from univg.errors import UnivgError
from univg.grounding.prompts import render_chat
from univg.models.answering import (
    Answer,
    Answerer,
    Decoding,
    LocalAnswerer,
    Question,
    Record,
    Refusal,
    ServerAnswerer,
    Usage,
)
from univg.models.loading import Loaded
from univg.models.pixels import PixelBudget
from univg.models.server import Patience, Server
from univg.pictures.images import ImageFault

Picture = Callable[[int, int], Image.Image]
SHORT = Decoding(max_new_tokens=3)


class Account:
    """Notes what is held, recorded and given back; allows `most` requests."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.events, self.held = most, [], []
        self.lock = threading.Lock()

    @contextmanager
    def __call__(self, most: Usage, stop: threading.Event) -> Iterator[Record | None]:
        with self.lock:
            self.held.append(most)
            allowed = sum(one.requests for one in self.held) <= self.most
        try:
            yield (lambda answers: self.events.extend(one.key for one in answers)) if allowed else None
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise


@pytest.fixture(params=["local", "server"])
def answerer(request: pytest.FixtureRequest, tiny: Loaded, server: Any) -> Answerer:
    if request.param == "local":
        return LocalAnswerer(tiny, batch_size=2)

    patience = Patience(attempts=2, first_wait_s=0.01, timeout_s=5)
    return ServerAnswerer(Server(server.url, patience=patience), "served", PixelBudget(), 28, concurrency=2)


@pytest.fixture
def questions(picture: Picture) -> list[Question]:
    images = [picture(40 + 10 * number, 40) for number in range(5)]
    return [
        Question(str(number), render_chat(1, f"Where is thing {number}?"), lambda image=image: [image])
        for number, image in enumerate(images)
    ]


def test_every_question_is_answered_and_noted_before_it_is_given_back(
    answerer: Answerer, questions: list[Question]
) -> None:
    account = Account()
    found = []
    for batch in answerer.answer(questions, SHORT, account):
        for one in batch:
            assert isinstance(one, Answer) and one.key in account.events
            assert len(one.texts) == len(one.truncated) == len(one.tokens) == len(one.seen_wh) == 1
            assert one.prompt_tokens > 0 and one.completion_tokens == one.tokens[0] and not one.estimated
            found.append(one.key)
    assert sorted(found) == sorted(account.events) == ["0", "1", "2", "3", "4"]
    assert sum(one.requests for one in account.held) == 5
    assert sum(one.completion_tokens for one in account.held) == 5 * 3


def test_what_the_account_forbids_is_not_asked(
    answerer: Answerer, questions: list[Question], server: Any
) -> None:
    results = [one for batch in answerer.answer(questions, SHORT, Account(2)) for one in batch]
    kinds = sorted(one.kind if isinstance(one, Refusal) else "answer" for one in results)
    assert kinds == ["answer", "answer", "unasked", "unasked", "unasked"]
    assert len(server.requests) in (0, 2)


def test_a_picture_that_is_missing_refuses_its_question_alone(
    answerer: Answerer, questions: list[Question]
) -> None:
    def missing() -> list[Image.Image]:
        raise ImageFault("a.png", "no such file", "check the path")

    asked = [replace(questions[0], pictures=missing), *questions[1:]]
    results = {one.key: one for batch in answerer.answer(asked, SHORT) for one in batch}
    assert len(results) == 5
    refused = results["0"]
    assert isinstance(refused, Refusal) and refused.kind == "image" and "a.png" in refused.why
    assert all(isinstance(results[key], Answer) for key in "1234")


def test_what_fails_gives_back_what_was_held(
    tiny: Loaded, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("univg.models.generation.generate.generate", broken)
    account = Account()
    with pytest.raises(RuntimeError, match="broken"):
        list(LocalAnswerer(tiny).answer(questions, SHORT, account))
    assert account.events == ["RuntimeError"]


def test_a_server_that_gives_up_refuses_and_gives_back(server: Any, questions: list[Question]) -> None:

    def behave(handler: Any, number: int) -> bool:
        handler.reply(400, {"error": {"message": "too long"}})
        return True

    server.behave = behave
    account = Account()
    asked = ServerAnswerer(Server(server.url), "served", PixelBudget(), 28)
    [[refused]] = asked.answer(questions[:1], SHORT, account)
    assert isinstance(refused, Refusal) and refused.kind == "engine" and "too long" in refused.why
    assert account.events == ["GivenUp"]


def test_a_server_that_does_not_count_is_estimated(server: Any, questions: list[Question]) -> None:

    def behave(handler: Any, number: int) -> bool:
        body = handler.completion("It is there, I think.")
        del body["usage"]
        handler.reply(200, body)
        return True

    server.behave = behave
    [[answer]] = ServerAnswerer(Server(server.url), "served", PixelBudget(), 28).answer(questions[:1], SHORT)
    assert isinstance(answer, Answer) and answer.estimated and answer.tokens == (None,)
    assert answer.completion_tokens == 8 and answer.prompt_tokens > 50


def test_questions_with_sizes_go_longest_first_and_others_in_their_order(
    tiny: Loaded, questions: list[Question]
) -> None:
    answerer = LocalAnswerer(tiny)
    assert answerer.in_order(questions) == questions
    groups = [
        replace(one, group="ab"[at % 2], sizes_wh=lambda at=at: [(100, 100)] * (at + 1))
        for at, one in enumerate(questions)
    ]
    assert [one.key for one in answerer.in_order(groups)] == ["4", "2", "0", "3", "1"]


def test_greedy_samples_would_be_equal() -> None:
    for temperature in (0, 1e-38, 1e-8):
        with pytest.raises(UnivgError, match="3 greedy samples would be equal: give a temperature of 1e-05"):
            Decoding(3, temperature)
    assert (
        Decoding(1, 1e-38) == Decoding(1, 0.0)
        and Decoding(1, 1e-38).fingerprint() == Decoding().fingerprint()
    )
