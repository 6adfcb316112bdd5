"""How a run was launched, and with which launches it can go on."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from univg.errors import UnivgError
from univg.training.config import SftConfig
from univg.training.run.launch import (
    check_same_launch,
    divides_weights,
    find_fsdp_version,
    is_offloaded,
    name_division,
)
from univg.training.run.prechecks import check_stage

FSDP = {"ACCELERATE_USE_FSDP": "true"}
ZERO_2, ZERO_3 = (
    {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage} for stage in "23"
)
OFFLOADS = [f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE" for what in ("OPTIMIZER", "PARAM")]
VARIABLES = {*FSDP, *ZERO_2, *OFFLOADS, "ACCELERATE_DEEPSPEED_CONFIG_FILE", "WORLD_SIZE"}
VARIABLES |= {"FSDP_VERSION", "FSDP_OFFLOAD_PARAMS"}


def _launch(monkeypatch: pytest.MonkeyPatch, processes: int, environment: dict[str, str]) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": str(processes), **environment}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("processes", "environment", "trainer", "division", "divided"),
    [
        (1, {}, {}, "", False),
        (2, {}, {}, "", False),
        (2, FSDP, {}, "FSDP", True),
        (1, FSDP, {}, "", False),
        (2, {}, {"fsdp": True}, "FSDP", True),
        (2, ZERO_2, {}, "ZeRO-2", False),
        (2, ZERO_3, {}, "ZeRO-3", True),
        (1, ZERO_3, {}, "ZeRO-3", True),
        (2, {}, {"deepspeed": {"zero_optimization": {"stage": 3}}}, "ZeRO-3", True),
        (2, {}, {"deepspeed": {"zero_optimization": {"stage": 1}}}, "ZeRO-1", False),
        (2, ZERO_2, {"deepspeed": "file"}, "ZeRO-3", True),
        (2, {**ZERO_2, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "file"}, {}, "ZeRO-3", True),
    ],
)
def test_what_is_divided_is_told_by_the_launch(
    processes: int,
    environment: dict[str, str],
    trainer: dict[str, Any],
    division: str,
    divided: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3}}')
    put = {"file": str(file)}
    environment = {name: put.get(value, value) for name, value in environment.items()}
    trainer = {name: put.get(str(value), value) for name, value in trainer.items()}
    _launch(monkeypatch, processes, environment)
    config = SftConfig(trainer=trainer)
    assert (name_division(config), divides_weights(config)) == (division, divided)


def _zero(**settings: Any) -> dict[str, Any]:
    return {"deepspeed": {"zero_optimization": {"stage": 3, **settings}}}


@pytest.mark.parametrize(
    ("environment", "trainer", "offloaded"),
    [
        ({}, {}, False),
        (dict.fromkeys(OFFLOADS, "cpu"), {}, False),  # without DeepSpeed nobody reads them
        ({**ZERO_3, **dict.fromkeys(OFFLOADS, "none")}, {}, False),
        ({**ZERO_3, OFFLOADS[0]: "cpu"}, {}, True),
        ({**ZERO_3, OFFLOADS[1]: "nvme"}, {}, True),
        ({}, _zero(), False),
        ({}, _zero(offload_optimizer={"device": "none"}), False),
        ({}, _zero(offload_param={"device": "cpu"}), True),
        (FSDP, {}, False),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "false"}, {}, False),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, {}, True),
        ({}, {"fsdp": True}, False),
        ({}, {"fsdp": True, "fsdp_config": {"cpu_offload": True}}, True),
        ({}, {"fsdp": "full_shard offload"}, True),
    ],
)
def test_what_is_offloaded_is_told_by_the_launch(
    environment: dict[str, str], trainer: dict[str, Any], offloaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _launch(monkeypatch, 2, environment)
    assert is_offloaded(SftConfig(trainer=trainer)) is offloaded


@pytest.mark.parametrize(
    ("environment", "trainer", "version"),
    [
        (FSDP, {}, 1),  # as accelerate takes it
        ({**FSDP, "FSDP_VERSION": "2"}, {}, 2),
        ({}, {"fsdp": True}, 2),
        ({}, {"fsdp": True, "fsdp_config": {"fsdp_version": 1}}, 1),
    ],
)
def test_validation_takes_the_second_fsdp(
    environment: dict[str, str], trainer: dict[str, Any], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first one nothing is put together, and processes that answer alone would wait for each other."""
    _launch(monkeypatch, 2, environment)
    validation: Any = {"reader": "world", "keep_best": False}
    config = SftConfig(trainer=trainer, validation=validation, max_steps=1, data=[{"reader": "world"}])  # type: ignore[list-item]
    assert find_fsdp_version(config) == version
    if version == 2:
        check_stage(config)
        return
    with pytest.raises(UnivgError, match=r"validation: FSDP of version 1 .* fsdp_version: 2"):
        check_stage(config)


@pytest.mark.parametrize(
    ("began", "division", "processes", "environment", "rollouts", "refused"),
    [
        (2, "", 2, {}, True, None),
        (2, "", 1, {}, False, None),
        (1, "", 4, {}, False, None),
        (2, "FSDP", 4, FSDP, False, None),
        (2, "ZeRO-2", 2, ZERO_2, False, None),
        (2, "", 1, {}, True, "rollouts of each that it still learns from: run.json: resume with 2"),
        (2, "ZeRO-3", 4, ZERO_3, False, "ZeRO-3 keeps each one's part of the optimizer in a file of its own"),
        (2, "ZeRO-3", 2, ZERO_2, False, "began under ZeRO-3 and would go on under ZeRO-2"),
        (2, "", 2, FSDP, False, "began with whole weights in each process and would go on under FSDP"),
        (2, "FSDP", 1, FSDP, False, "began under FSDP and would go on with whole weights in each process"),
    ],
)
def test_a_run_goes_on_where_its_optimizer_can_be_read(
    began: int,
    division: str,
    processes: int,
    environment: dict[str, str],
    rollouts: bool,
    refused: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    last = Path("checkpoint-3")
    last.mkdir()
    Path("run.json").write_text(json.dumps({"processes": began, "division": division}))
    if rollouts:
        (last / "rollouts-0.pt").touch()
    _launch(monkeypatch, processes, environment)
    if refused is None:
        line = check_same_launch(SftConfig(), Path(), last)
        assert (line is None) == (began == processes)
        return
    with pytest.raises(UnivgError) as raised:
        check_same_launch(SftConfig(), Path(), last)
    assert refused in str(raised.value) and "model=checkpoint-3" in str(raised.value)


def test_where_weights_are_divided_no_best_step_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"reader": "world", "keep_best": False}
    for environment, keeps in (
        (FSDP | {"FSDP_VERSION": "2"}, False),
        (ZERO_3, False),
        (ZERO_2, True),
        ({}, True),
    ):
        _launch(monkeypatch, 2, environment)
        check_stage(SftConfig(max_steps=1, validation=wanted))
        best = SftConfig(max_steps=1, validation=wanted | {"keep_best": True})
        if keeps:
            check_stage(best)
            continue
        with pytest.raises(UnivgError, match=r"validation\.keep_best: .* set validation\.keep_best=false"):
            check_stage(best)


def test_a_system_that_does_not_fork_can_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    spec = importlib.util.find_spec("univg.training.run.processes")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
