"""`univg` with vLLM in the same process on a CPU too; run as a program, with the command's own arguments.

vLLM's build for CPUs packs the weights of linear layers away, so that none could be handed over: here they stay as
they are. TRL gives vLLM no data type, and vLLM then computes float32 weights in bfloat16: `VLLM_DTYPE` says which.
TRL hands weights to a server over NCCL, which needs a GPU: without one they go over gloo, and with `STALE=1` they stay,
there and in this process, what the engine has read. `EXPANDED=1` hands images over as TRL does, to see what that does.
`PROBED=FILE` notes what vLLM in this process answers to one question each time it is handed weights (`answers`), and
all tokens that it has drawn (`drawn`).
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch


class Probe:
    """Watches the engine in this process."""

    def __init__(self, generation: Any, module: Any) -> None:
        self.answers: list[list[int]] = []
        self.drawn: set[int] = set()
        sync, generate = generation.VLLMGeneration.sync_weights, module._Engine.generate

        def sync_and_ask(generation: Any) -> None:
            sync(generation)
            self.answers.append(self.ask(getattr(generation.llm, "_llm", generation.llm)))

        def generate_and_note(engine: Any, prompts: Any, **settings: Any) -> Any:
            outputs = generate(engine, prompts, **settings)
            self.drawn |= {token for output in outputs for one in output.outputs for token in one.token_ids}
            return outputs

        generation.VLLMGeneration.sync_weights, module._Engine.generate = sync_and_ask, generate_and_note

    def ask(self, llm: Any) -> list[int]:
        """The engine's greedy answer to a question without a picture."""
        from vllm import SamplingParams

        settings = SamplingParams(temperature=0.0, max_tokens=16)
        [answer] = llm.generate(
            [{"prompt_token_ids": [70, 71, 72]}], sampling_params=settings, use_tqdm=False
        )
        return list(answer.outputs[0].token_ids)

    def write(self, path: str) -> None:
        """Write what was seen as JSON."""
        Path(path).write_text(json.dumps({"answers": self.answers, "drawn": sorted(self.drawn)}))


if __name__ == "__main__":
    import gloo_weights
    import trl.generation.vllm_generation as generation
    from trl.generation.vllm_client import VLLMClient

    import univg.training.grpo.vllm as module
    from univg.cli.main import main

    wanted: dict[str, Any] = {"dtype": os.environ["VLLM_DTYPE"], "enforce_eager": True}
    generation.LLM = functools.partial(generation.LLM, **wanted)
    if not torch.cuda.is_available():
        gloo_weights.connect()
    if "EXPANDED" in os.environ:
        module.collapse = lambda ids, mark: list(ids)
    if "STALE" in os.environ:
        started: Any = generation.VLLMGeneration
        started.sync_weights = lambda self: None
        client: Any = VLLMClient
        client.init_communicator = lambda self, device: None
    probed = os.environ.get("PROBED")
    probe = Probe(generation, module) if probed else None
    status = main(sys.argv[1:])
    if probe is not None:
        probe.write(str(probed))
    sys.exit(status)
