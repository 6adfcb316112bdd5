"""Who answers: any server with OpenAI's chat interface (vLLM, SGLang and others), several requests at a time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from univg.evaluate.engines import Answer, Batch, Decoding, EngineError, Refusal, Text, wording
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle, render_chat, style_for
from univg.models.loading import FAMILIES
from univg.models.server import (
    FACTORS,
    GivenUp,
    Patience,
    Server,
    ServerError,
    as_seen,
    concurrently,
    with_pictures,
)
from univg.pictures.images import ImageFault

if TYPE_CHECKING:
    from univg.evaluate.benchmarks import Case
    from univg.models.processor import PixelBudget


class OpenAIEngine:
    """A model behind an OpenAI-compatible address such as `http://localhost:8000/v1`.

    `model` None takes the only one that is served. `univg serve` says what its model writes and how it is asked
    and resizes; for other servers `family`, `style` (None: think) and `budget` (None: the paper's) say it. A style
    or a budget that is given always holds. Several samples are drawn by the interface's `n`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        family: str = "qwen2_vl",
        style: PromptStyle | None = None,
        budget: PixelBudget | None = None,
        concurrency: int = 16,
        api_key: str = "none",
        patience: Patience | None = None,
    ) -> None:
        from univg.models.processor import PixelBudget

        if family not in FAMILIES:
            raise EngineError(f"unknown family {family!r}: choose from {', '.join(FAMILIES)}")
        self.concurrency = concurrency
        patience = replace(patience or Patience(), failures=max(8, concurrency))
        try:
            self._server = Server(url, api_key, patience)
            self.name, self._root = self._server.served(model)
        except ServerError as error:
            raise EngineError(str(error)) from error
        stated = self._server.conventions(self.name)
        self._family = stated["family"] if stated.get("family") in FAMILIES else family
        self._factor = int(stated.get("factor") or FACTORS[self._family])
        self.style: PromptStyle = style or stated.get("prompt_style") or "think"
        self.frame: Frame = FAMILIES[self._family].frame
        if budget is None and {"min_pixels", "max_pixels"} <= set(stated):
            budget = PixelBudget(int(stated["min_pixels"]), int(stated["max_pixels"]))
        self._budget = budget or PixelBudget()

    def fingerprint(self) -> dict[str, Any]:
        return {
            "engine": "openai",
            "model": self.name,
            "root": self._root,
            "family": self._family,
            "prompt": {"style": self.style, "wording": wording(self.style)},
            "pixels": asdict(self._budget),
        }

    def answer(self, cases: Sequence[Case], decoding: Decoding) -> Iterator[Batch]:
        """One case a batch, as replies come. Gives up when several requests in a row failed for good."""
        try:
            for result in concurrently(partial(self._ask, decoding), cases, self.concurrency):
                yield [result]
        except ServerError as error:
            raise EngineError(str(error)) from error

    def _ask(self, decoding: Decoding, case: Case, stop: threading.Event) -> Answer | Refusal:
        started = time.perf_counter()
        try:
            pictures = [as_seen(image, self._budget, self._factor) for image in case.pictures()]
        except ImageFault as fault:
            return Refusal(case, "image", str(fault))
        request = self._request(case, [url for url, _ in pictures], decoding)
        try:
            reply = self._server.complete(request, decoding.samples, stop)
        except GivenUp as error:
            return Refusal(case, "engine", str(error))
        tokens = reply.completion_tokens if decoding.samples == 1 else None
        texts = tuple(Text(text, tokens, cut) for text, cut in zip(reply.texts, reply.truncated, strict=True))
        return Answer(case, texts, tuple(size for _, size in pictures), time.perf_counter() - started)

    def _request(self, case: Case, urls: Sequence[str], decoding: Decoding) -> dict[str, Any]:
        chat = render_chat(len(urls), case.sample.query, style_for(case.sample, self.style))
        request: dict[str, Any] = {
            "model": self.name,
            "messages": with_pictures(chat, urls),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "n": decoding.samples,
        }
        if decoding.temperature > 0:
            digest = hashlib.sha256(f"{decoding.seed}\0{case.key}".encode()).digest()
            request |= {"seed": int.from_bytes(digest[:4], "big") >> 1, "top_p": 1.0}
        return request
