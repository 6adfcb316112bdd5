"""Give the task files of this folder their samples, prompts and scores.

    export UNIVG_MIG_BENCH_DATA=MIG_data.json UNIVG_MIG_BENCH_IMAGES=MIG-Bench
    python -m lmms_eval --include_path "$(python -m univg.evaluate.lmms_tasks.grounding)" --tasks univg_mig_bench …

lmms-eval reads a `!function grounding.NAME` as the attribute NAME of this file. So a task finds its samples:
`files_mig_bench` is made here when it is asked for. The world needs no variables.

`UNIVG_STYLE` (think, direct or simple; default think) says how to ask. Answers are read as 0-1000 or 0-1: a model that
writes pixels (Qwen2.5-VL) is to be evaluated by `univg evaluate`, which knows the size that it saw.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from univg.errors import UnivgError, offer
from univg.grounding.prompts import PromptStyle, choose_style, render_prompt
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.pictures.images import open_picture

if TYPE_CHECKING:
    from PIL import Image

    from univg.data.dataset import FileItem

BENCHMARKS = (
    *("mig_bench", "lisa_val", "lisa_test", "llmseg", "reasonvos", "revos", "world"),
    *("grefcoco", "mc_bench", "ref_l4", "refcoco_m", "groundingme", "openref", "coco_detection"),
)
WORLD_N = 4
"""Samples of each of the world's families."""


def __getattr__(name: str) -> dict[str, str]:
    """Return `files_<benchmark>`: its documents as `datasets.load_dataset("json", data_files=…)` takes them."""
    benchmark = name.removeprefix("files_")
    if name == benchmark or benchmark not in BENCHMARKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = Path(tempfile.mkdtemp(prefix=f"univg-{benchmark}-"))
    documents = make_world_documents(folder) if benchmark == "world" else read_file_documents(benchmark)
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return {"test": str(path)}


def read_file_documents(benchmark: str) -> list[dict[str, Any]]:
    """Return the documents of a published file, which the environment names. Raises UnivgError."""
    from univg.data.dataset import FileItem
    from univg.evaluate.benchmarks import open_file

    stem = f"UNIVG_{benchmark.upper()}"
    data, images = os.environ.get(f"{stem}_DATA"), os.environ.get(f"{stem}_IMAGES")
    if not data or not images:
        raise UnivgError("the benchmark is a published file", benchmark, f"set {stem}_DATA and {stem}_IMAGES")
    items = open_file(benchmark, Path(data), Path(images)).items()
    return [make_document(item.sample, _find_paths(item)) for item in items if isinstance(item, FileItem)]


def _find_paths(item: FileItem) -> list[str]:
    """Return where the images are; of one that is not there, where it should be, for the error to name."""
    return [str(item.root.find(name) or item.root.folder / name) for name in item.sample.images]


def make_world_documents(folder: Path) -> list[dict[str, Any]]:
    """Return a few samples of the world's test part, their images written into `folder`."""
    from univg.world import FAMILIES, stream

    documents = []
    for made in islice(stream("test"), WORLD_N * len(FAMILIES)):
        paths = [folder / name for name in made.sample.images]
        for path, image in zip(paths, made.images, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        documents.append(make_document(made.sample, [str(path) for path in paths]))
    return documents


def make_document(sample: GroundingSample, paths: Sequence[str]) -> dict[str, Any]:
    """Return one row of a task's data, the sample as text: columns must be alike in all rows, and `extra` is not."""
    return {"sample": json.dumps(sample.to_json()), "paths": list(paths), "task": sample.task}


def read_sample(doc: Mapping[str, Any]) -> GroundingSample:
    """Return the sample of a document."""
    return GroundingSample.from_json(json.loads(doc["sample"]))


def read_style(sample: GroundingSample) -> PromptStyle:
    """Return how a sample is asked; the environment may say. Raises UnivgError for a style that is none."""
    style = os.environ.get("UNIVG_STYLE", "think")
    if style not in get_args(PromptStyle):
        raise UnivgError(f"UNIVG_STYLE={style}", remedy=offer(str(style), get_args(PromptStyle)))
    return choose_style(sample, cast(PromptStyle, style))


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Open the images in order. A missing one raises ImageFault, and so ends the harness's run: never an IoU of 0."""
    return [open_picture(path).image for path in doc["paths"]]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the prompt."""
    sample = read_sample(doc)
    return render_prompt(sample.query, read_style(sample), len(sample.images))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the true box, as JSON; of an answer that is a set all of them, each with its image from 0."""
    sample = read_sample(doc)
    return json.dumps(sample.targets if sample.complete else sample.boxes[0])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return every metric's entry of one answer; the aggregations below read `value` and `task`.

    Of an answer that is a set, the IoU is the soft-F1 of all its boxes on their images.
    """
    sample = read_sample(doc)
    reading = read(results[0], Asked.of(sample, read_style(sample)))
    result = score(sample, reading)
    values = {
        "acc_30": float(result.hit_30),
        "acc_50": float(result.hit_50),
        "acc_70": float(result.hit_70),
        "iou": result.iou,
        "acc_50_macro": float(result.hit_50),
        "fault_rate": float(reading.fault is not None),
    }
    return {f"univg_{name}": {"value": value, "task": sample.task} for name, value in values.items()}


def mean(entries: Sequence[Mapping[str, Any]], **_: Any) -> float:
    """Return the mean over samples, in percent."""
    return 100 * sum(entry["value"] for entry in entries) / len(entries)


def macro(entries: Sequence[Mapping[str, Any]], **_: Any) -> float:
    """Return the unweighted mean over tasks, in percent: the paper's AVG."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        tasks.setdefault(entry["task"], []).append(entry)
    return sum(mean(group) for group in tasks.values()) / len(tasks)


if __name__ == "__main__":
    print(Path(__file__).parent)
