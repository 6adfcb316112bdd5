"""Run `univg` under FSDP2 on processors: accelerate shards on accelerators only, so it is told that these are some.

torchrun --nproc_per_node 2 fsdp_on_cpu.py sft --config tiny-sft …
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from accelerate import state

CONFIG = Path(__file__).parents[2] / "configs" / "accelerate" / "fsdp2.yaml"
NAMES = {"fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP"}


def set_environment() -> None:
    """Set what `accelerate launch` sets for configs/accelerate/fsdp2.yaml."""
    settings = yaml.safe_load(CONFIG.read_text())["fsdp_config"]
    os.environ |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true"}
    for name, value in settings.items():
        os.environ[NAMES.get(name, name.upper())] = (
            str(value) if isinstance(value, str) else str(value).lower()
        )


def shard_on_processors() -> None:
    begin = state.PartialState.__init__

    def begin_as_accelerator(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_XPU

    state.PartialState.__init__ = begin_as_accelerator


if __name__ == "__main__":
    set_environment()
    shard_on_processors()
    from univg.cli.main import main

    main()
