"""`univg` with vLLM in the same process on a CPU too; run as a program, with the command's own arguments.

vLLM's build for CPUs packs the weights of linear layers away, so that none could be handed over: here they stay as
they are. TRL gives vLLM no data type, and vLLM then computes float32 weights in bfloat16: `VLLM_DTYPE` says which.
TRL hands weights to a server over NCCL, which needs a GPU: without one they go over gloo, and with `STALE=1` they stay,
there and in this process, what the engine has read. `EXPANDED=1` hands images over as TRL does, to see what that does.
`PROBED=FILE` has vLLM in this process answer one question before the first rollouts and after the last, for all to see.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch


def probe(llm: Any) -> str:
    """The engine's greedy answer to a question without a picture."""
    from vllm import SamplingParams

    asked = [{"prompt_token_ids": [70, 71, 72]}]
    [answer] = llm.generate(asked, sampling_params=SamplingParams(max_tokens=16), use_tqdm=False)
    return str(list(answer.outputs[0].token_ids))


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
    probed, engines = os.environ.get("PROBED"), []
    if probed:
        made: Any = generation.VLLMGeneration
        sync = made.sync_weights

        def sync_and_probe(self: Any) -> None:
            sync(self)
            engines.append(probe(self.llm._llm))

        made.sync_weights = sync_and_probe
    status = main(sys.argv[1:])
    if probed:
        Path(probed).write_text(json.dumps(engines))
    sys.exit(status)
