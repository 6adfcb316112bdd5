"""Run `univg` as a launcher would start it, on processors, where accelerate itself shards nothing.

    torchrun --nproc_per_node 2 sharded_on_cpu.py zero3 grpo --config tiny-grpo …
    python sharded_on_cpu.py                        # runs that come as JSON lines, in processes forked from this one

The processes are those of accelerate, DeepSpeed, PyTorch and TRL; only what accelerate asks the machine for is changed.
Forked, a run of a few steps takes no time to load libraries, which is most of what it takes otherwise.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"


def read_environment(name: str) -> dict[str, str]:
    """Return what `accelerate launch` sets for the launch config `name` of `configs/accelerate`."""
    from accelerate.commands import launch
    from accelerate.utils import launch as preparing

    file = ["--config_file", str(CONFIGS / f"{name}.yaml")]
    given = launch.launch_command_parser().parse_args([*file, "-m", "univg"])
    arguments, defaults, _ = launch._validate_launch_command(given)
    before = dict(os.environ)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        after = preparing.prepare_deepspeed_cmd_env(arguments)[1]
    else:
        after = preparing.prepare_multi_gpu_env(arguments)
    return {key: value for key, value in after.items() if before.get(key) != value}


def shard_on_processors(name: str) -> None:
    """Let accelerate do on processors, in float32, what the launch config `name` asks of GPUs."""
    from accelerate import state

    os.environ |= {**read_environment(name), "ACCELERATE_MIXED_PRECISION": "no"}
    begin = state.PartialState.__init__

    def begin_as_accelerator(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_XPU

    state.PartialState.__init__ = begin_as_accelerator
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        state.PartialState._prepare_backend = lambda *_: ("gloo", state.DistributedType.MULTI_CPU)
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"


def _run(kind: str, arguments: list[str]) -> int:
    from univg.cli.main import main

    if kind not in ("one", "ddp"):
        shard_on_processors(kind)
    return main(arguments)


def _fork(run: dict[str, Any], rank: int, port: int) -> int:
    """Fork a process of a run; return its id."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.chdir(run["cwd"])
        log = os.open(run["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in (1, 2):
            os.dup2(log, number)
        if run["kind"] != "one":
            place = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            count = {"WORLD_SIZE": run["processes"], "LOCAL_WORLD_SIZE": run["processes"]}
            os.environ |= {name: str(value) for name, value in (place | count).items()}
        code = _run(run["kind"], run["arguments"])
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001  (the process's edge)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def serve() -> None:
    """Do the runs that standard input names, one a line; answer each with the exit codes of its processes."""
    import univg.training.grpo.stage
    import univg.training.sft.stage  # noqa: F401  (loaded once, for all)

    for line in sys.stdin:
        run = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        children = [_fork(run, rank, port) for rank in range(run["processes"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    if len(sys.argv) == 1:
        serve()
    else:
        sys.exit(_run(sys.argv[1], sys.argv[2:]))
