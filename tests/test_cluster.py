"""The scripts for clusters do what they say: their commands are run, by the shell, with everything around stubbed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App

from univg.grounding.samples import GroundingSample, write_jsonl

REPO = Path(__file__).parents[1]
CLUSTER = REPO / "examples" / "cluster"
BIN = Path(sys.executable).parent
RECORD = '#!/bin/bash\nprintf "%s\\0" "${0##*/}" "$@" > "$RECORD/$BASHPID"\n'
# A server that is asked whether it is there has been started: before that, asking again would have no end.
CURL = (
    '#!/bin/bash\nfor i in {1..1000}; do grep -qsz "^vllm$" "$RECORD"/* && break; sleep 0.02; done\n'
    + RECORD.partition("\n")[2]
)
SRUN = """#!/bin/bash
count=$SLURM_NNODES
while [[ $1 == --* ]]; do [[ $1 == --nodes=* ]] && count=${1#--nodes=}; shift; done
for ((node = 0; node < count; node++)); do SLURM_NODEID=$node "$@" & started+=($!); done
for one in "${started[@]}"; do wait "$one" || exit; done
"""
SCONTROL = '#!/bin/bash\nprintf "%s\\n" ${HOSTS:-node0 node1 node2}\n'
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[0-2]",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """`cluster(*command, real=…, **env)`: run a command where all programs but the `real` ones only write down how they
    were called; return what was written."""
    stubs, record = tmp_path / "stubs", tmp_path / "record"
    stubs.mkdir()
    record.mkdir()

    def run(*command: str, real: tuple[str, ...] = (), **env: str) -> list[list[str]]:
        for name in ("univg", "accelerate", "torchrun", "vllm"):
            write_stub(stubs / name, f'#!/bin/bash\nexec "{BIN / name}" "$@"\n' if name in real else RECORD)
        write_stub(stubs / "curl", CURL)
        write_stub(stubs / "srun", SRUN)
        write_stub(stubs / "scontrol", SCONTROL)
        given = {**os.environ, **SLURM, "PATH": f"{stubs}:{os.environ['PATH']}", "RECORD": str(record), **env}
        ended = subprocess.run(
            command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False, timeout=500
        )
        assert ended.returncode == 0, ended.stderr
        calls = [path.read_text().split("\0")[:-1] for path in record.iterdir()]
        return sorted(call for call in calls if call[0] != "curl")

    return run


def write_stub(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def parse(call: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What univg understands of a call, which is not run: the verb's settings, checked as ever."""
    words = call[call.index("univg") + 1 :]
    app: App = importlib.import_module(f"univg.cli.{words[0]}").app
    verb: Any = app.default_command
    cells = dict(zip(verb.__code__.co_freevars, verb.__closure__, strict=True))
    taken: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(cells["run"], "cell_contents", taken.append)
        app(words[1:], exit_on_error=False, print_error=False, result_action="return_value")
    return taken[0]


def test_slurm_trains_on_all_nodes(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ("bash", str(CLUSTER / "slurm/train.sbatch"))
    sft = ("sft", "--config", "qwen2-vl-7b-sft", "batch=48", "--out", "runs/sft")
    calls = cluster(*script, *sft)
    assert [call[call.index("--machine_rank") + 1] for call in calls] == ["0", "1"]
    for call in calls:
        assert call[:2] == ["accelerate", "launch"] and call[call.index("--num_processes") + 1] == "8"
        assert call[call.index("--main_process_ip") + 1] == "node0"
        command = parse(call, monkeypatch)
        assert command.resume and command.out == Path("runs/sft") and command.batch == 48


def test_slurm_keeps_a_node_for_vllm(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grpo = ("--config", "qwen2-vl-7b-grpo", "--out", "runs/grpo")
    *trained, served = cluster(
        "bash", str(CLUSTER / "slurm/grpo_vllm.sbatch"), *grpo, MODEL="runs/sft", SLURM_NNODES="3"
    )
    assert served[:3] == ["vllm", "serve", "runs/sft"]
    assert [call[call.index("--num_machines") + 1] for call in trained] == ["2", "2"]
    for call in trained:
        command = parse(call, monkeypatch)
        assert command.vllm == "server" and command.model == "runs/sft" and command.resume
        assert command.trainer["vllm_server_base_url"] == "http://node0:8000"
        assert served[served.index("--max-model-len") + 1] == str(command.max_tokens)
        budget = json.loads(served[served.index("--mm-processor-kwargs") + 1])
        assert budget == command.pixel_budget.model_dump()


@pytest.mark.parametrize(
    "shards", [{}, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}], ids=["whole", "3/8"]
)
def test_slurm_constructs_in_shards_and_puts_them_together(
    shards: dict[str, str], cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_data(tmp_path)
    given = ("--data", "train.jsonl", "--images", "pictures", "--out", "cot")
    asked, served = cluster("bash", str(CLUSTER / "slurm/construct.sbatch"), *given, MODEL="big", **shards)
    assert served[:3] == ["vllm", "serve", "big"]
    monkeypatch.chdir(tmp_path)
    command = parse(asked, monkeypatch)
    assert command.shard == ("3/8" if shards else None)
    assert command.base_url == f"http://127.0.0.1:{served[served.index('--port') + 1]}/v1"


def put_data(folder: Path) -> None:
    (folder / "pictures").mkdir()
    write_jsonl(
        folder / "train.jsonl", [GroundingSample(("a.png",), "Where?", "referring", ((0, 0, 1, 1),), 0)]
    )


@pytest.mark.parametrize("path", sorted((CLUSTER / "kubernetes").glob("*.yaml")), ids=lambda path: path.stem)
def test_kubernetes_starts_what_univg_understands(
    path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_data(tmp_path)
    documents = list(yaml.safe_load_all(path.read_text()))
    [job] = [one for one in documents if one["kind"] == "Job"]
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    [container] = spec["template"]["spec"]["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    assert str(spec["completions"]) in env.values()
    volumes = {one["name"] for one in spec["template"]["spec"]["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} <= volumes
    [call] = cluster(*container["command"], JOB_COMPLETION_INDEX="1", **env)
    monkeypatch.chdir(tmp_path)
    command = parse(call, monkeypatch)
    if path.stem == "train":
        assert call[call.index("--num_processes") + 1] == "16" and command.resume
        assert command.batch % (16 * command.micro_batch) == 0
        services = [one for one in documents if one["kind"] == "Service"]
        assert spec["template"]["spec"]["subdomain"] == services[0]["metadata"]["name"]
    else:
        assert command.shard == "1/8"


def test_every_command_in_the_comments_and_the_page_is_one_of_univg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = REPO / "docs" / "clusters.md"
    found = 0
    for path in (*CLUSTER.rglob("*.*"), page):
        for words in re.findall(
            r"^(?:#\s+)?(univg (?:report|construct|evaluate|sft|grpo) [^#`$&|\n]*)$", path.read_text(), re.M
        ):
            parse(words.replace("URL", "http://h/v1").split(), monkeypatch)
            found += 1
    assert found >= 3


GRPO = [
    "prompts_per_step=2",
    "rollouts=2",
    "micro_batch=2",
    "max_completion_tokens=12",
    "data.0.families=[diff,region]",
]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_nodes_train_one_model(stage: str, cluster: Any, tmp_path: Path) -> None:
    """Two launchers that meet over a network address, one process each: only the first writes."""
    if not (BIN / "univg").exists():
        pytest.skip("univg is not installed as a command")
    tracked = importlib.util.find_spec("tensorboard") is not None
    settings = ["model=embedded-base", "data.0.image_px=60", "max_steps=2", "bf16=false", "workers=0"]
    settings += GRPO if stage == "grpo" else ["batch=2", "micro_batch=1"]
    settings += ["trainer.report_to=tensorboard"] if tracked else []
    command = [stage, "--config", f"tiny-{stage}", "--out", str(tmp_path / "run"), *settings]
    where = {"HOSTS": "127.0.0.1", "LAUNCH_CONFIG": "", "GPUS": "1", "PORT": str(20000 + os.getpid() % 10000)}
    cluster("bash", str(CLUSTER / "slurm/train.sbatch"), *command, real=("torchrun",), **where)
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    for row in rows if stage == "grpo" else ():
        families = [value for name, value in row.items() if name.startswith("iou/")]
        assert families and row["iou"] == pytest.approx(sum(families) / len(families)), "of both processes"
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    assert (tmp_path / "run/model.safetensors").is_file()
    assert len(list((tmp_path / "run").rglob("*tfevents*"))) == int(tracked)


@pytest.mark.slow
def test_shards_of_an_evaluation_make_the_whole(cluster: Any, tmp_path: Path) -> None:
    if not (BIN / "univg").exists():
        pytest.skip("univg is not installed as a command")
    given = ("--benchmark", "world", "--n", "1", "--task", "referring", "--task", "diff", "--size", "60")
    for number in range(2):
        shard = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
        script = str(CLUSTER / "slurm/evaluate.sbatch")
        cluster("bash", script, *given, "--out", str(tmp_path / "parts"), real=("univg",), **shard)
    cluster("univg", "evaluate", *given, "--out", str(tmp_path / "whole"), real=("univg",))
    whole, parts = (
        sorted(
            ({**json.loads(line), "seconds": 0} for path in (tmp_path / name).glob("rows-*.jsonl")
             for line in path.read_text().splitlines()),
            key=lambda row: str(row["key"]),
        )
        for name in ("whole", "parts")
    )  # fmt: skip
    assert whole == parts and len(whole) == 2
    for name in ("whole", "parts"):
        cluster("univg", "report", str(tmp_path / name), real=("univg",))
    assert (tmp_path / "whole/report.md").read_text() == (tmp_path / "parts/report.md").read_text().replace(
        "parts", "whole"
    )
