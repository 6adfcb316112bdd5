"""Shards of one run: each pays for its own share, and what they paid for becomes one run like an undivided one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg.cli.main import main
from univg.construct.ledger import Ledger, shard_folder

FILES = ("samples.jsonl", "proposals.jsonl", "left-out.jsonl")


def test_shards_are_put_together_without_asking_again(
    own_set: Callable[..., tuple[Path, Path]],
    teacher_server: Any,
    tmp_path: Path,
    lines: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A duplicate that lies in another shard is one all the same, and the rows come in the data's order."""
    same = {"images": ("0-a.png", "0-b.png"), "query": "What differs in pair 0?"}
    data, root = own_set(7, [{}, {}, {}, same])
    fixed = ["construct", "--data", str(data), "--images", str(root), "--teacher", "openai:served"]
    fixed += ["--base-url", teacher_server.url, "--chains", "2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*fixed, "--out", str(whole)]) == 0
    for number in range(2):
        assert main([*fixed, "--out", str(parts), "--shard", f"{number}/2"]) == 0
        kept = lines(shard_folder(parts, (number, 2)) / "samples.jsonl")
        sources = [f"own#{k}" for k in range(number, 7, 2)]
        assert [row["source"] for row in kept] == sources
    asked = len(teacher_server.requests)
    capsys.readouterr()
    assert main([*fixed, "--out", str(parts)]) == 0
    assert len(teacher_server.requests) == asked and "(this run: 0 requests)" in capsys.readouterr().out
    for name in FILES:
        one, other = ([row | {"seconds": 0} for row in lines(folder / name)] for folder in (whole, parts))
        assert one == other
    assert [row["outcome"] for row in lines(parts / "left-out.jsonl")] == ["duplicate"]


def test_they_are_not_put_together_while_one_is_asking(tmp_path: Path, capsys: Any) -> None:
    command = ["construct", "--teacher", "world", "-n", "4", "--size", "60", "--out", str(tmp_path / "out")]
    with Ledger(shard_folder(tmp_path / "out", (1, 2))):
        assert main(command) == 2
    said = capsys.readouterr().err
    assert "another process writes here" in said and "shard-1-of-2" in said
    assert main([*command, "--shard", "0/2"]) == 0 and main([*command, "--shard", "2/2"]) == 2
    assert "no shard '2/2'" in capsys.readouterr().err
    assert main(command) == 0
