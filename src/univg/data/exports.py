"""Samples written in the formats of other training frameworks.

- `sharegpt`, `llamafactory`: a JSON list of `conversations` and `images`; the latter with its entry in
  `dataset_info.json` beside it.
- `trl`: JSON Lines of a conversational `prompt`, `images`, `solution`, and `completion` where there is an answer
  to teach: for TRL's GRPOTrainer and SFTTrainer.
- `verl`: Parquet of `data_source`, `prompt`, `images` (objects), `reward_model`, `extra_info`.
- `easyr1`: Parquet of `problem`, `answer`, `images`.

What a format has no place for (task, source, target image, exact boxes) goes into one more column, `univg`, as
JSON text, which those frameworks pass over; so our readers get back the sample that was written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from univg.data.formats.image_root import ImageRoot
from univg.data.formats.records import ReadError, RecordError, RecordFault, Unusable, fault_of
from univg.data.formats.scale import box_fault
from univg.data.readers.univg_r1 import METADATA
from univg.grounding.boxes import is_degenerate
from univg.grounding.prompts import PromptStyle, render_prompt, render_response, style_for
from univg.grounding.samples import GroundingSample, write_jsonl

__all__ = ["EXPORTS", "SUFFIXES", "Export", "export"]

_PARQUET_ROWS = 256


@dataclass(frozen=True)
class Export:
    """How samples are to be written.

    - `style`: the prompt's wording for samples that carry thinking (`"think"` or `"direct"`).
    - `images`: rewrites image paths as they lie under this folder; needed to embed them.
    - `embed`: put the images' bytes into the rows (verl and EasyR1).
    - `on_fault`: takes what cannot be written; without it, the first is raised.
    """

    style: PromptStyle = "think"
    images: ImageRoot | None = None
    embed: bool = False
    on_fault: Callable[[RecordFault], None] | None = None

    def fault(self, fault: RecordFault) -> None:
        if self.on_fault is None:
            raise RecordError(fault)
        self.on_fault(fault)


def export(samples: Iterable[GroundingSample], to: str, out: str | os.PathLike[str], how: Export) -> int:
    """Write `samples` to the file `out` in the format `to` (a key of `EXPORTS`); returns how many.

    Streams; the file appears complete or not at all. A sample that the format cannot hold, such as one without
    a thought where thoughts are to be taught, is a fault. `ReadError` if pyarrow is missing for Parquet.
    """
    if to not in EXPORTS:
        raise ReadError(f"no such format: {to}: choose from {', '.join(EXPORTS)}")
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    return EXPORTS[to](path, _prepared(samples, how), how)


def _prepared(samples: Iterable[GroundingSample], how: Export) -> Iterator[GroundingSample]:
    """The samples, with image paths relative to the image root as the files really lie there."""
    for sample in samples:
        if how.images is None:
            yield sample
            continue
        found = [how.images.find(name) for name in sample.images]
        missing = [name for name, path in zip(sample.images, found, strict=True) if path is None]
        if missing:
            how.fault(_fault(sample, "missing_image", f"no {missing[0]} under {how.images.folder}"))
            continue
        names = [how.images.relative(path) for path in found if path is not None]
        yield GroundingSample.from_json({**sample.to_json(), "images": names})


def _fault(sample: GroundingSample, kind: str, cause: str, fix: str = "") -> RecordFault:
    return RecordFault(sample.source or sample.key, kind, cause, fix)


# --- what a row is made of ---


def _prompt(sample: GroundingSample, how: Export) -> str:
    """`<image>` tags, then the wording; as many tags as images, which every framework counts."""
    if "<image>" in sample.query:
        raise Unusable("image_tags", "the question itself holds <image>", "take the tag out of the question")
    return "<image>" * len(sample.images) + render_prompt(sample.query, style_for(sample, how.style))


def _response(sample: GroundingSample, how: Export) -> str:
    if not sample.boxes and isinstance(sample.extra.get("answer"), str):
        return str(sample.extra["answer"])  # a text-out sample of MGrounding-630k
    _answerable(sample)
    style = style_for(sample, how.style)
    if style == "think" and not sample.thought:
        raise Unusable("no_thought", "there is no thought, and the style think teaches one")
    return render_response(sample.boxes[0], sample.thought, style)


def _solution(sample: GroundingSample) -> str:
    _answerable(sample)
    return render_response(sample.boxes[0], style="simple")


def _answerable(sample: GroundingSample) -> None:
    if not sample.boxes:
        raise Unusable("no_answer", "there is no box")
    fault = box_fault(sample.boxes[0])
    if fault is not None and (fault[0] != "out_of_range" or is_degenerate(sample.boxes[0])):
        raise Unusable(fault[0], fault[1])


def _metadata(sample: GroundingSample, thought: bool = False) -> str:
    kept: dict[str, Any] = {
        "task": sample.task,
        "source": sample.source,
        "target_image": sample.target_image,
        "boxes": [list(box) for box in sample.boxes],
        "thinking": sample.thinking,
        "extra": dict(sample.extra),
    }
    if sample.query != sample.query.strip():
        kept["query"] = sample.query
    if thought:
        kept["thought"] = sample.thought
    return json.dumps(kept, ensure_ascii=False)


def _rows(
    samples: Iterable[GroundingSample],
    how: Export,
    row_of: Callable[[GroundingSample, Export], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    for sample in samples:
        try:
            yield row_of(sample, how)
        except Unusable as error:
            how.fault(fault_of(error, sample.source or sample.key))


def _sharegpt_row(sample: GroundingSample, how: Export) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": "human", "value": _prompt(sample, how)},
            {"from": "gpt", "value": _response(sample, how)},
        ],
        "images": list(sample.images),
        METADATA: _metadata(sample, thought=how.style != "think"),
    }


def _trl_row(sample: GroundingSample, how: Export) -> dict[str, Any]:
    prompt = render_prompt(sample.query, style_for(sample, how.style))
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": prompt}],
        "images": list(sample.images),
        "solution": _solution(sample),
        METADATA: _metadata(sample, thought=True),
    }
    if sample.thought or style_for(sample, how.style) != "think":
        row["completion"] = [{"role": "assistant", "content": _response(sample, how)}]
    return row


def _verl_row(sample: GroundingSample, how: Export) -> dict[str, Any]:
    return {
        "data_source": f"univg/{sample.task}",
        "prompt": [{"role": "user", "content": _prompt(sample, how)}],
        "images": [_image(name, how, "image") for name in sample.images],
        "ability": "grounding",
        "reward_model": {"style": "rule", "ground_truth": _solution(sample)},
        "extra_info": {"index": sample.key, METADATA: _metadata(sample, thought=True)},
    }


def _easyr1_row(sample: GroundingSample, how: Export) -> dict[str, Any]:
    images = [_image(name, how, "path") if how.embed else name for name in sample.images]
    return {
        "problem": _prompt(sample, how),
        "answer": _solution(sample),
        "images": images,
        METADATA: _metadata(sample, thought=True),
    }


def _image(name: str, how: Export, path_field: str) -> dict[str, Any]:
    """An image as an object: its path (absolute where the image root is known), or its bytes.

    verl refuses an object that holds both, so an embedded image keeps its name only in EasyR1's form.
    """
    path = how.images.find(name) if how.images is not None else None
    if not how.embed:
        return {path_field: str(path.resolve()) if path is not None else name}
    if path is None:
        raise Unusable("missing_image", f"{name} is to be embedded", "say with --images where it lies")
    raw = {"bytes": path.read_bytes()}
    return raw if path_field == "image" else {**raw, "path": name}


# --- files ---


@contextmanager
def _whole_or_not(path: Path) -> Iterator[IO[bytes]]:
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _json_text(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", errors="backslashreplace")


def _write_jsonl(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    return write_jsonl(path, samples)


def _write_sharegpt(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    count = 0
    with _whole_or_not(path) as file:
        file.write(b"[")
        for row in _rows(samples, how, _sharegpt_row):
            file.write((b",\n" if count else b"\n") + _json_text(row))
            count += 1
        file.write(b"\n]\n")
    return count


def _write_llamafactory(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    info_path = path.with_name("dataset_info.json")
    try:
        info = json.loads(info_path.read_text("utf-8")) if info_path.exists() else {}
        info = {**info}
    except (ValueError, TypeError):
        raise ReadError(f"not a JSON object: {info_path}: repair or remove it") from None
    count = _write_sharegpt(path, samples, how)
    info[path.stem] = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }
    with _whole_or_not(info_path) as file:
        file.write(json.dumps(info, indent=2, ensure_ascii=False).encode() + b"\n")
    return count


def _write_trl(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    count = 0
    with _whole_or_not(path) as file:
        for row in _rows(samples, how, _trl_row):
            file.write(_json_text(row) + b"\n")
            count += 1
    return count


def _write_verl(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    return _write_parquet(path, _rows(samples, how, _verl_row), _verl_schema(how.embed), how)


def _write_easyr1(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    return _write_parquet(path, _rows(samples, how, _easyr1_row), _easyr1_schema(how.embed), how)


def _arrow() -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ReadError("Parquet needs pyarrow: it is not installed: pip install 'univg[train]'") from None
    return pyarrow


# The schemas are stated, not inferred from the first rows: a column that begins with nulls would be of no type.


def _verl_schema(embed: bool) -> Any:
    pa = _arrow()
    image = pa.struct([("bytes", pa.binary())] if embed else [("image", pa.string())])
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("images", pa.list_(image)),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("index", pa.string()), (METADATA, pa.string())])),
        ]
    )


def _easyr1_schema(embed: bool) -> Any:
    pa = _arrow()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if embed else pa.string()
    texts = [(name, pa.string()) for name in ("problem", "answer", METADATA)]
    return pa.schema([*texts[:2], ("images", pa.list_(image)), texts[2]])


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]], schema: Any, how: Export) -> int:
    pa = _arrow()
    count, batch = 0, []
    most = _PARQUET_ROWS // 16 if how.embed else _PARQUET_ROWS  # embedded photographs weigh megabytes a row
    with _whole_or_not(path) as file, pa.parquet.ParquetWriter(file, schema) as writer:
        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == most:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return count


_Writer: TypeAlias = Callable[[Path, Iterable[GroundingSample], Export], int]

EXPORTS: dict[str, _Writer] = {
    "jsonl": _write_jsonl,
    "sharegpt": _write_sharegpt,
    "llamafactory": _write_llamafactory,
    "trl": _write_trl,
    "verl": _write_verl,
    "easyr1": _write_easyr1,
}
"""The formats that samples can be written in."""

SUFFIXES: dict[str, str] = {
    "jsonl": ".jsonl",
    "sharegpt": ".json",
    "llamafactory": ".json",
    "trl": ".jsonl",
    "verl": ".parquet",
    "easyr1": ".parquet",
}
"""How a file of each format is named; the frameworks tell formats by it."""
