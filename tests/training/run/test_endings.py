"""What processes of one run leave behind for each other: settings after an answer, one reason after a death."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from univg.training.run.gathering import holding_whole_weights
from univg.training.run.processes import ending_together


def test_checkpointing_goes_on_as_it_was_asked_for() -> None:
    """Under DeepSpeed it is off while a model answers, and is turned on again."""
    small: Any = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2}
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=small, vision_config=vision)).train()
    asked = {"use_reentrant": True}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=asked)
    trainer = SimpleNamespace(model=model, model_wrapped=model, accelerator=Accelerator(cpu=True))
    trainer.is_deepspeed_enabled, trainer.args = True, SimpleNamespace(gradient_checkpointing_kwargs=asked)
    layer: Any = model.model.language_model.layers[0]
    with holding_whole_weights(trainer):
        assert not layer.gradient_checkpointing
    assert layer.gradient_checkpointing and layer._gradient_checkpointing_func.keywords == asked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGTERM ends a process unasked elsewhere")
def test_what_is_ended_from_outside_points_to_what_another_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, codes = threading.Event(), list[int]()
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with ending_together(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.wait(60)
    assert codes == [128 + signal.SIGTERM]
    (line,) = capsys.readouterr().err.splitlines()
    assert "has died (what it said, if anything, stands above): " in line
