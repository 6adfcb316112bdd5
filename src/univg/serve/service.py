"""What the server's routes share: the model, its batcher, the limits and the counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from univg.serve.batching import Batcher, PromptMeter
from univg.serve.config import ServeConfig
from univg.serve.decoders import Decoders
from univg.serve.metrics import Metrics
from univg.serve.requests import ChatRequest, read_request

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.generation.generate import Chat
    from univg.models.loading import Loaded

_DECODERS = 2  # each may hold all pixels of one image
T = TypeVar("T")


class Service:
    """One served model. `root` is what it was loaded from, `held` counts the requests between the last byte of their
    body and their answer, `buffered` the bytes of bodies that are being read, `clocks` are of those still arriving.

    `local_only`: only requests to an address of numbers or to localhost are answered. A web page whose own name
    was made to point to this machine would otherwise be let in by its reader's browser.
    """

    def __init__(
        self, loaded: Loaded, config: ServeConfig, root: str = "", api_key: str | None = None
    ) -> None:
        self.loaded, self.root, self.api_key = loaded, root, api_key
        self.name, self.limits = config.served_name, config.limits
        self.local_only = api_key is None and config.on_loopback
        self.held, self.buffered, self.started = 0, 0, int(time.time())
        self.clocks: set[asyncio.Timeout] = set()
        self.metrics = Metrics(held=lambda: self.held, waiting=lambda: self.batcher.waiting)
        self.batcher = Batcher(loaded, batch_size=config.batch_size, on_batch=self.metrics.count_batch)
        self.meter = PromptMeter(loaded)
        self.context = loaded.context
        # Threads apart, so that none waits for what another is at; two that read JSON would only take turns.
        self._json, self._images, self._tokens = (
            ThreadPoolExecutor(count, thread_name_prefix=name)
            for name, count in (("json", 1), ("images", _DECODERS), ("tokens", 1))
        )
        self._decoders = Decoders(self.limits, _DECODERS)
        self._reading: dict[object, float] = {}  # since when

    async def read_body(self, body: bytearray) -> ChatRequest:
        """Return the request that a body's bytes are; they are freed, also where it is refused. Raises ApiError."""
        try:
            return await self._call(self._json, read_request, body, self.limits)
        finally:
            body.clear()

    async def read_images(self, urls: Sequence[str]) -> list[Image.Image]:
        """Return a request's images as the model sees them. Raises ApiError."""
        if not urls:
            return []
        budget, factor = self.loaded.pixel_budget, self.loaded.processor.factor
        return await self._call(self._images, self._decoders.read, urls, budget, factor)

    async def count_tokens(self, chat: Chat) -> int:
        """Return how many tokens the model is given for a chat."""
        return await self._call(self._tokens, self.meter, chat)

    async def _call(self, threads: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
        """Call a function on one of these threads, so that the event loop only waits."""

        def run() -> T:
            key = object()
            self._reading[key] = time.monotonic()
            try:
                return call(*arguments)
            finally:
                del self._reading[key]

        return await asyncio.get_running_loop().run_in_executor(threads, run)

    def hurry(self) -> None:
        """Leave the bodies that are arriving a sixth of their time at most: others find no room because of them."""
        soon = asyncio.get_running_loop().time() + self.limits.body_s / 6
        for clock in self.clocks:
            when = clock.when()
            if when is not None and when > soon and not clock.expired():
                clock.reschedule(soon)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what was taken; return whether that was done within `timeout_s`."""
        finished = self.batcher.close(timeout_s)
        for threads in (self._json, self._images, self._tokens):
            threads.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()  # nor does a thread live on that waits for one
        return finished

    def retry_after(self) -> dict[str, str]:
        """Return the header that tells when to come again: when the batch that is running has ended."""
        return {"Retry-After": str(min(30, 1 + int(self.batcher.last_s)))}

    def model_card(self) -> dict[str, Any]:
        """Return what `/v1/models` says; under `univg`, what a client needs to send images as the model sees them."""
        budget, processor = self.loaded.pixel_budget, self.loaded.processor
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "univg",
            "root": self.root,
            "max_model_len": self.context,
            "univg": {
                "family": self.loaded.family.model_type,
                "frame": self.loaded.family.frame,
                "prompt_style": self.loaded.prompt_style,
                "min_pixels": budget.min_pixels,
                "max_pixels": budget.max_pixels,
                "factor": processor.factor,
            },
        }

    def check_health(self) -> tuple[int, dict[str, Any]]:
        """Return (status, body): 200 if answers can be expected."""
        fault = self.batcher.fault
        if fault is None and self.batcher.running_s() > self.limits.timeout_s:
            fault = f"a batch has been running for {self.batcher.running_s():.0f} s"
        now = time.monotonic()
        reading_s = now - min(self._reading.values(), default=now)
        if fault is None and reading_s > self.limits.timeout_s:
            fault = f"a request has been read for {reading_s:.0f} s"
        state = {
            "status": fault or "ok",
            "model": self.name,
            "held": self.held,
            "waiting": self.batcher.waiting,
        }
        return (503 if fault else 200), state
