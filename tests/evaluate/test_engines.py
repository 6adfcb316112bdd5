"""The engine in this process, on a model with random weights: batches change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_file
from univg.evaluate.engines import LocalEngine, load_local, question_of
from univg.evaluate.runner import evaluate
from univg.models.answering import Answer, Decoding, LocalAnswerer, Refusal
from univg.models.checkpoint import weights_digest
from univg.models.loading import Loaded, load

SHORT = Decoding(max_new_tokens=5)


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> LocalEngine:
    return load_local(str(tiny_folder), "world", batch_size=8)


def answers(engine: LocalEngine, cases: object, decoding: Decoding = SHORT) -> dict[str, tuple[str, ...]]:
    found = {}
    for batch in engine.answer(cases, decoding):  # type: ignore[arg-type]
        for result in batch:
            assert isinstance(result, Answer)
            found[result.key] = result.texts
    return found


@pytest.mark.parametrize("decoding", [SHORT, Decoding(2, temperature=1.0, max_new_tokens=5)])
def test_the_batch_does_not_show_in_the_texts(
    engine: LocalEngine, scripted: ModuleType, decoding: Decoding
) -> None:
    cases = list(scripted.world(1).items())[:6]
    together = answers(engine, cases, decoding)
    alone: dict[str, tuple[str, ...]] = {}
    for case in reversed(cases):
        alone |= answers(engine, [case], decoding)
    assert together == alone
    assert all(len(texts) == decoding.samples for texts in together.values())


def test_batches_hold_like_questions(engine: LocalEngine, scripted: ModuleType) -> None:
    questions = [question_of(case, "think") for case in scripted.world(3).items()]
    tasks = [question.group for question in LocalAnswerer(engine.loaded).in_order(questions)]
    assert len(set(tasks)) == 1 + sum(one != other for one, other in pairwise(tasks))


def test_what_cannot_be_asked_is_refused_and_the_rest_answered(
    engine: LocalEngine, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    data, root = own_set(4)
    (root / "1-a.png").unlink()
    data.write_text(data.read_text().replace("thing 2", "<|image_pad|>"))
    cases = {case.key: case for case in open_file("univg", data, root).items()}
    results = {
        cases[r.key].sample.source: r for batch in engine.answer(list(cases.values()), SHORT) for r in batch
    }
    kinds = {source: r.kind if isinstance(r, Refusal) else "answer" for source, r in results.items()}
    assert kinds == {"own#0": "answer", "own#1": "image", "own#2": "answer", "own#3": "answer"}
    outcome = evaluate(open_file("univg", data, root), engine, tmp_path / "run", SHORT)
    assert len(outcome.rows) == 3 and len(outcome.faults) == 1
    row = next(iter(outcome.rows.values()))
    assert row["truncated"] and row["fault"] == "truncated" and row["tokens"] == 5


def test_a_checkpoint_is_known_by_its_content(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    assert weights_digest(moved) == weights_digest(tiny_folder)
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_digest(moved) != weights_digest(tiny_folder)


def test_the_fingerprint_names_what_decides(engine: LocalEngine) -> None:
    stated = engine.fingerprint()
    assert stated["pixels"] == {"min_pixels": 140**2, "max_pixels": 196**2}
    assert stated["prompt"]["style"] == "think" and stated["prompt"]["wording"].startswith(
        "{query} First output"
    )
    assert stated["dtype"] == "float32" and set(stated["versions"]) == {"torch", "transformers"}


def test_memory_that_runs_out_is_told(
    engine: LocalEngine, scripted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def exhausted(*arguments: object, **settings: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("univg.models.generation.generate.generate", exhausted)
    with pytest.raises(UnivgError, match=r"with 8 responses.*smaller --batch-size"):
        answers(engine, list(scripted.world(1).items())[:2])


@pytest.mark.parametrize(
    "settings", [{"samples": 0}, {"samples": 2}, {"temperature": -1.0}, {"max_new_tokens": 0}]
)
def test_decoding_that_makes_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(UnivgError, match=r"temperature|at least"):
        Decoding(**settings)  # type: ignore[arg-type]


def test_what_is_said_is_not_told_as_chosen(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_stock(name: str, **given: Any) -> Loaded:
        return replace(load(name, **given), style_note="asked in style x", pixels_note="images have 9 pixels")

    monkeypatch.setattr("univg.models.loading.load", load_stock)
    told = "asked in style x; --style asks otherwise", "images have 9 pixels; --max-pixels sets it"
    assert load_local(str(tiny_folder), "world").notes == told
    assert load_local(str(tiny_folder), "world", max_pixels=50_000).notes == told[:1]
    assert load_local(str(tiny_folder), "world", style="think").notes == told[1:]
