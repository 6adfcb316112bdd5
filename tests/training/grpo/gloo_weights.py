"""Hand trained weights to vLLM's server over gloo, where there is no GPU: vLLM itself has NCCL, IPC and RDMA only.

vLLM takes further engines by name. Its workers import this module as their extension (`--worker-extension-cls
gloo_weights.Extension`, with `--weight-transfer-config '{"backend": "gloo"}'`); in the trainer's process `connect` puts
the other end into TRL's client. What is sent, when, and under which names stays TRL's; how it is put into the model is
vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import vllm._custom_ops as operators
from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore
from trl.generation.vllm_client import VLLMClient
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers import utils as layers
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

HOST, PATIENCE = "127.0.0.1", timedelta(seconds=300)


def leave_weights_unpacked() -> None:
    """Keep vLLM's build for CPUs from packing the weights of linear layers away: none could be handed over."""
    operators._supports_onednn = False
    layers.check_cpu_sgl_kernel = lambda *shape: False


leave_weights_unpacked()


def join(port: int, rank: int, size: int) -> Any:
    """A gloo group of the trainer (rank 0) and the server's workers."""
    store = TCPStore(HOST, port, size, rank == 0, PATIENCE)
    return ProcessGroupGloo(PrefixStore("weights", store), rank, size, PATIENCE)


@dataclass
class Meeting(WeightTransferInitInfo):
    port: int
    size: int


@dataclass
class Announced(WeightTransferUpdateInfo):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class GlooEngine(WeightTransferEngine[Meeting, Announced]):
    """The worker's end: as vLLM's NCCL engine, one tensor at a time."""

    init_info_cls, update_info_cls = Meeting, Announced

    def init_transfer_engine(self, init_info: Meeting) -> None:
        self._group = join(init_info.port, 1, init_info.size)

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))  # without waiting for an accelerator

    def receive_weights(self, update_info: Announced) -> None:
        told = zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True)
        for name, dtype, shape in told:
            weight = torch.empty(shape, dtype=getattr(torch, dtype))
            self._group.broadcast(weight, 0).wait()
            self.model.load_weights([(name, weight)])

    def shutdown(self) -> None: ...


class Extension:
    """Nothing: that a worker imports this module is enough."""


WeightTransferEngineFactory.register_engine("gloo", GlooEngine)


def connect() -> None:
    """Give TRL's client of a server the trainer's end, in place of NCCL."""

    def meet(self: Any, device: Any) -> None:
        told = {"port": self.group_port, "size": 2}
        with ThreadPoolExecutor(1) as executor:
            address = f"{self.base_url}/init_weight_transfer_engine"
            posted = executor.submit(self._post, address, json={"init_info": told})
            self.gloo = join(self.group_port, 0, 2)
            posted.result()

    def send(self: Any, metadata: list[Any], weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        names, dtypes, shapes = (list(field) for field in zip(*metadata, strict=True))
        told = {"names": names, "dtype_names": dtypes, "shapes": shapes}
        with self.weight_update(), ThreadPoolExecutor(1) as executor:
            posted = executor.submit(
                self._post, f"{self.base_url}/update_weights", json={"update_info": told}
            )
            for _, weight in weights:
                self.gloo.broadcast(weight.detach().contiguous(), 0).wait()
            posted.result()

    client: Any = VLLMClient
    client.init_communicator, client.update_named_params = meet, send
