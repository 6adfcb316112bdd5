"""`univg` with vLLM in the same process on a CPU too; run as a program, with the command's own arguments.

vLLM's build for CPUs packs the weights of linear layers away, so that none could be handed over: here they stay as
they are. TRL gives vLLM no data type, and vLLM then computes float32 weights in bfloat16: `VLLM_DTYPE` says which.
TRL hands weights to a server over NCCL, which needs a GPU: without one they stay what the server has read.
`EXPANDED=1` hands images over as TRL does, to see what that does.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import torch

if __name__ == "__main__":
    import trl.generation.vllm_generation as generation
    import vllm._custom_ops as operators
    from trl.generation.vllm_client import VLLMClient
    from vllm.model_executor.layers import utils as layers

    import univg.training.grpo.vllm as module
    from univg.cli.main import main

    operators._supports_onednn = False
    layers.check_cpu_sgl_kernel = lambda *shape: False
    wanted: dict[str, Any] = {"dtype": os.environ["VLLM_DTYPE"], "enforce_eager": True}
    generation.LLM = functools.partial(generation.LLM, **wanted)
    if not torch.cuda.is_available():
        client: Any = VLLMClient
        client.init_communicator = lambda self, device: None
        client.update_named_params = lambda self, metadata, weights: None
    if "EXPANDED" in os.environ:
        module.collapse = lambda ids, mark: list(ids)
    sys.exit(main(sys.argv[1:]))
