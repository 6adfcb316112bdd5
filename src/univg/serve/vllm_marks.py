"""Keep vLLM from writing tokens that only prompts may hold (vision, padding, chat marks), as univg's generation does.

Runs inside vLLM, which is given `ChatMarks` among its `--logits-processors`; without vLLM it is a class without a base.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoTokenizer

from univg.models.generation.generate import forbidden_ids

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor as Processor
except ImportError:
    Processor = type("Processor", (), {})
try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as NewerProcessor
except ImportError:
    NewerProcessor = type("NewerProcessor", (), {})

__all__ = ["ChatMarks"]


class ChatMarks(Processor, NewerProcessor):
    """Give the model's forbidden tokens (`forbidden_ids`) a probability of 0, in every request.

    vLLM has two interfaces for this, of its two model runners, and which it uses depends on machine and model: this is
    both. The older one gives a device, the newer one the state of all requests, which names it.
    """

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool = False) -> None:
        model = vllm_config.model_config
        tokenizer = AutoTokenizer.from_pretrained(
            model.tokenizer, revision=model.tokenizer_revision, trust_remote_code=False
        )
        stated = model.try_get_generation_config().get("eos_token_id")
        ends = {stated} if isinstance(stated, int) else set(stated or ())
        stops = frozenset(ends | {tokenizer.eos_token_id})
        forbidden = forbidden_ids(tokenizer, model.get_vocab_size(), stops)
        device = getattr(place, "device", place)
        self._forbidden = torch.tensor(forbidden, dtype=torch.long, device=device)

    def apply(self, logits: torch.Tensor, context: Any = None) -> torch.Tensor:
        """Change the logits (rows, vocabulary) in place."""
        return logits.index_fill_(1, self._forbidden, float("-inf"))

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Do nothing: all requests are treated alike."""
