"""What the server's routes share: the model, its batcher, the limits and the counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from univg.serve.batching import Batcher, PromptMeter
from univg.serve.config import ServeConfig
from univg.serve.metrics import Metrics

if TYPE_CHECKING:
    from univg.models.loading import Loaded

_READERS = 2  # threads that decode: each may hold all pixels of one image
T = TypeVar("T")


class Service:
    """One served model. `root` is what it was loaded from, `held` counts the requests between their first byte and
    their answer, `buffered` the bytes of bodies that are being read.

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
        self.metrics = Metrics(held=lambda: self.held, waiting=lambda: self.batcher.waiting)
        self.batcher = Batcher(loaded, batch_size=config.batch_size, on_batch=self.metrics.count_batch)
        self.meter = PromptMeter(loaded)
        # The longest text that the model's positions reach to.
        self.context = int(getattr(loaded.model.config.get_text_config(), "max_position_embeddings", 1 << 30))
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")

    async def read(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a reader's thread, so that the event loop only waits."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *arguments)

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what was taken; return whether that was done within `timeout_s`."""
        finished = self.batcher.close(timeout_s)
        self._readers.shutdown(wait=False, cancel_futures=True)
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
        state = {
            "status": fault or "ok",
            "model": self.name,
            "held": self.held,
            "waiting": self.batcher.waiting,
        }
        return (503 if fault else 200), state
