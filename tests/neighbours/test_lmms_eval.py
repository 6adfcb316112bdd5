"""lmms-eval itself runs our tasks with its own Qwen2-VL, and its results are univg's for the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neighbouring import REPO, python_of
from univg.evaluate import lmms_tasks
from univg.files import ASSETS
from univg.world import stream

pytestmark = pytest.mark.slow

N = 12
"""Samples, one of each of the world's families that ask about one image of several."""


def write_benchmark(folder: Path) -> Path:
    """Write samples of the world as MIG-Bench is published; return the file."""
    records: list[dict[str, Any]] = []
    for made in stream("test"):
        if len(records) == N:
            break
        sample = made.sample
        if sample.complete or not sample.boxes or sample.target_image is None:
            continue
        for name, image in zip(sample.images, made.images, strict=True):
            path = folder / "MIG-Bench" / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        records.append(
            {
                "task": "diff" if len(records) % 2 else "region",
                "images": [f"./MIG-Bench/images/{name}" for name in sample.images],
                "question": sample.query,
                "answer": list(sample.boxes[0]),
                "additional_info": "",
                "need_format": True,
            }
        )
    path = folder / "MIG_data.json"
    path.write_text(json.dumps(records))
    return path


def test_its_results_are_ours_for_the_same_answers(tmp_path: Path) -> None:
    python = python_of("lmms_eval")
    data = write_benchmark(tmp_path)
    folder = Path(lmms_tasks.__file__).parent
    model = f"pretrained={ASSETS / 'tiny-think'},device=cpu,device_map=cpu,max_pixels=401408"
    command = [
        *(python, "-m", "lmms_eval", "--model", "qwen2_vl", "--model_args", model, "--batch_size", "1"),
        *("--include_path", str(folder), "--tasks", "univg_mig_bench", "--log_samples"),
        *("--output_path", str(tmp_path / "out"), "--gen_kwargs", "max_new_tokens=160"),
    ]
    variables = {
        "UNIVG_MIG_BENCH_DATA": str(data),
        "UNIVG_MIG_BENCH_IMAGES": str(tmp_path / "MIG-Bench"),
        "PYTHONPATH": str(REPO / "src"),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    ran = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    found = sorted((tmp_path / "out").rglob("*.json*"))
    assert len(found) == 2, ran.stdout[-3000:] + ran.stderr[-6000:]  # its exit code is 0 in any case
    [results], [answers] = (
        [one for one in found if one.match(name)] for name in ("*results.json", "*.jsonl")
    )
    theirs = json.loads(results.read_text())["results"]["univg_mig_bench"]

    scores = tmp_path / "scores.jsonl"
    ours = subprocess.run(
        [sys.executable, "-m", "univg", "score", str(answers), "--data", str(data), "--out", str(scores)],
        capture_output=True,
        text=True,
    )
    assert ours.returncode == 0, ours.stdout + ours.stderr
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert len(rows) == N
    means = {
        "univg_iou": [row["iou"] for row in rows],
        **{f"univg_acc_{limit}": [row[f"hit_{limit}"] for row in rows] for limit in (30, 50, 70)},
        "univg_fault_rate": [row["fault"] is not None for row in rows],
    }
    for name, values in means.items():
        assert theirs[f"{name},none"] == pytest.approx(100 * sum(values) / N, abs=1e-6), name
    assert theirs["univg_iou,none"] > 20, "the embedded model answers what it was trained on"
    tasks = [[row["hit_50"] for row in rows if row["task"] == task] for task in ("region", "diff")]
    macro = sum(100 * sum(hits) / len(hits) for hits in tasks) / 2
    assert theirs["univg_acc_50_macro,none"] == pytest.approx(macro, abs=1e-6)
