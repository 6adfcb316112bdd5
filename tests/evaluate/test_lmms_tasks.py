"""The folder of lmms-eval tasks: alone, and read by the real package where that is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from univg.errors import UnivgError
from univg.evaluate.lmms_tasks import grounding
from univg.grounding.prompts import render_prompt, render_response

FOLDER = Path(grounding.__file__).parent


def test_every_benchmark_has_its_task_file() -> None:
    class Names(yaml.SafeLoader):
        pass

    Names.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    template = yaml.load((FOLDER / "_grounding_yaml").read_text(), Names)
    names = [entry["aggregation"] for entry in template["metric_list"]]
    names += [value for value in template.values() if str(value).startswith("grounding.")]
    assert all(hasattr(grounding, name.removeprefix("grounding.")) for name in names)
    for benchmark in grounding.BENCHMARKS:
        task = yaml.load((FOLDER / f"univg_{benchmark}.yaml").read_text(), Names)
        assert task["task"] == f"univg_{benchmark}" and task["include"] == "_grounding_yaml"
        assert task["dataset_kwargs"]["data_files"] == f"grounding.files_{benchmark}"


def test_documents_scores_and_averages(tmp_path: Path) -> None:
    documents = grounding.make_world_documents(tmp_path)
    doc = documents[0]
    sample = grounding.read_sample(doc)
    assert grounding.doc_to_text(doc) == render_prompt(sample.query)
    assert len(grounding.doc_to_visual(doc)) == len(sample.images)
    right = grounding.process_results(doc, [render_response(sample.boxes[0], "There.")])
    wrong = grounding.process_results({**doc, "task": "other"}, ["nothing"])
    assert right["univg_acc_70"]["value"] == 1.0 and wrong["univg_fault_rate"]["value"] == 1.0
    entries = [right["univg_acc_50"]] * 3 + [{"value": 0.0, "task": "other"}]
    assert (grounding.mean(entries), grounding.macro(entries)) == (75.0, 50.0)


def test_a_published_file_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, own_set: Callable[..., tuple[Path, Path]]
) -> None:
    with pytest.raises(UnivgError, match="set UNIVG_MIG_BENCH_DATA and UNIVG_MIG_BENCH_IMAGES"):
        grounding.read_file_documents("mig_bench")
    data, root = own_set(2)
    monkeypatch.setenv("UNIVG_UNIVG_DATA", str(data))
    monkeypatch.setenv("UNIVG_UNIVG_IMAGES", str(root))
    documents = grounding.read_file_documents("univg")
    assert [Path(path).name for path in documents[1]["paths"]] == ["1-a.png", "1-b.png"]


def test_the_harness_reads_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tasks = pytest.importorskip("lmms_eval.tasks", reason="lmms-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    manager = tasks.TaskManager(include_path=os.fspath(FOLDER), include_defaults=False)
    assert {f"univg_{name}" for name in grounding.BENCHMARKS} <= set(manager.all_tasks)
    task = tasks.get_task_dict(["univg_world"], manager, "simple")["univg_world"]
    documents = task.test_docs()
    assert len(documents) == grounding.WORLD_N * 13
    text = render_response(grounding.read_sample(documents[0]).boxes[0], "There.")
    for name, entry in task.process_results(documents[0], [text]).items():
        expected = 0.0 if name == "univg_fault_rate" else pytest.approx(100.0, abs=2)
        assert task.aggregation()[name]([entry]) == expected
