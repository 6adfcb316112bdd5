"""Write samples in the formats of other training frameworks.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from univg.data.exports.settings import Export, Writer
from univg.data.exports.targets import find_target, place_boxes
from univg.data.formats.faults import Unusable, refuse
from univg.data.formats.fields import show_box
from univg.data.formats.marks import mark_fault
from univg.data.formats.rows import import_pyarrow
from univg.data.formats.scale import lesson_fault
from univg.data.readers.kept import METADATA, SEEN
from univg.errors import UnivgError
from univg.files import replacing, write_whole
from univg.grounding.boxes import SizeWH, clip_unit, is_degenerate, unit_to_whole_px
from univg.grounding.prompts import THINKING, PromptStyle, render_answer, render_prompt
from univg.grounding.samples import GroundingSample, write_jsonl

__all__ = [
    "Row",
    "check_thought",
    "make_metadata",
    "make_prompt",
    "make_rows",
    "write_easyr1",
    "write_lines",
    "write_llamafactory",
    "write_samples",
    "write_sharegpt",
    "write_trl",
    "write_verl",
]

_PARQUET_ROWS = 256
_EMBEDDING_ROWS = 16
"""Embedded photographs weigh megabytes a row."""

_LLAMAFACTORY_ENTRY = {
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "images": "images"},
    "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
}


# --- what a row is made of ---


def make_prompt(sample: GroundingSample, how: Export) -> str:
    """Return `<image>` tags, then the wording; as many tags as images, which every framework counts."""
    if "<image>" in sample.query:
        raise Unusable("image_tags", "the question itself holds <image>", "take the tag out of the question")
    check_marks(sample, taught=False)
    return "<image>" * len(sample.images) + render_prompt(
        sample.query, how.style_of(sample), len(sample.images)
    )


def check_marks(sample: GroundingSample, taught: bool) -> None:
    refuse(mark_fault(sample, taught))


def check_thought(sample: GroundingSample) -> None:
    if not sample.thought:
        raise Unusable("no_thought", "there is no thought, and the style think teaches one")
    check_marks(sample, taught=True)


def _make_response(sample: GroundingSample, how: Export) -> str:
    if not sample.boxes and isinstance(sample.extra.get("answer"), str):
        return str(sample.extra["answer"])  # a text-out sample of MGrounding-630k
    style = how.style_of(sample)
    if style in THINKING:
        check_thought(sample)
    return _write_answer(sample, style, how)


def _make_solution(sample: GroundingSample, how: Export) -> str:
    return _write_answer(sample, "set_direct" if sample.complete else "simple", how)


def _write_answer(sample: GroundingSample, style: PromptStyle, how: Export) -> str:
    """Write a sample's box, or of a set all of them or that there is none, in thousandths or as `how.seen` says;
    `Unusable` if one cannot be taught."""
    if not sample.is_answered:
        raise Unusable("no_answer", "there is no box")
    for box in sample.boxes if sample.complete else sample.boxes[:1]:
        refuse(lesson_fault(box))
    if sample.complete:
        placed = place_boxes(sample)
        images, boxes = tuple(image for image, _ in placed), tuple(box for _, box in placed)
        sample = replace(sample, boxes=boxes, target_image=None, box_images=images)
    if how.seen is None:
        return render_answer(sample, style)
    sizes = _measure_seen(sample, how)
    place = 0 if sample.complete else find_target(sample)
    for on, box in sample.targets if sample.complete else [(place, sample.boxes[0])]:
        if is_degenerate(unit_to_whole_px(clip_unit(box)[0], sizes[on or 0])):
            raise Unusable(
                "degenerate_box", f"{show_box(box)} has no area in whole pixels of what the model sees"
            )
    return render_answer(sample, style, place, sizes)


def _measure_seen(sample: GroundingSample, how: Export) -> list[SizeWH]:
    """Return the sizes at which the model sees a sample's pictures; `Unusable` for one that is not there."""
    assert how.seen is not None
    try:
        return [how.seen(name) for name in sample.images]
    except ValueError as error:
        raise Unusable("bad_image", str(error)) from None


def make_metadata(sample: GroundingSample, thought: bool = True, how: Export | None = None) -> str:
    names = ("task", "source", "target_image", "boxes", "thinking", "extra")
    record = sample.to_json()
    kept = {name: record[name] for name in names}
    kept |= {name: record[name] for name in ("complete", "box_images") if name in record}
    if sample.query != sample.query.strip():
        kept["query"] = sample.query
    if thought:
        kept["thought"] = sample.thought
    if how is not None and how.seen is not None and sample.boxes:
        place = 0 if sample.complete else find_target(sample)
        kept[SEEN] = {"sizes": _measure_seen(sample, how), "image": place}
    return json.dumps(kept, ensure_ascii=False)


Row: TypeAlias = dict[str, Any]


def make_rows(
    samples: Iterable[GroundingSample], how: Export, make_row: Callable[[GroundingSample, Export], Row]
) -> Iterator[Row]:
    for sample in samples:
        with how.reporting(sample):
            yield make_row(sample, how)


def _make_sharegpt_row(sample: GroundingSample, how: Export) -> Row:
    return {
        "conversations": [
            {"from": "human", "value": make_prompt(sample, how)},
            {"from": "gpt", "value": _make_response(sample, how)},
        ],
        "images": list(sample.images),
        METADATA: make_metadata(sample, how.style != "think", how),
    }


def _make_trl_row(sample: GroundingSample, how: Export) -> Row:
    check_marks(sample, taught=False)
    style = how.style_of(sample)
    row: Row = {
        "prompt": [{"role": "user", "content": render_prompt(sample.query, style, len(sample.images))}],
        "images": list(sample.images),
        "solution": _make_solution(sample, how),
        METADATA: make_metadata(sample, how=how),
    }
    if sample.thought or style not in THINKING:
        row["completion"] = [{"role": "assistant", "content": _make_response(sample, how)}]
    return row


def _make_verl_row(sample: GroundingSample, how: Export) -> Row:
    return {
        "data_source": f"univg/{sample.task}",
        "prompt": [{"role": "user", "content": make_prompt(sample, how)}],
        "images": [_make_image(name, how, "image") for name in sample.images],
        "ability": "grounding",
        "reward_model": {"style": "rule", "ground_truth": _make_solution(sample, how)},
        "extra_info": {"index": sample.key, METADATA: make_metadata(sample, how=how)},
    }


def _make_easyr1_row(sample: GroundingSample, how: Export) -> Row:
    images = [_make_image(name, how, "path") if how.embed else name for name in sample.images]
    return {
        "problem": make_prompt(sample, how),
        "answer": _make_solution(sample, how),
        "images": images,
        METADATA: make_metadata(sample, how=how),
    }


def _make_image(name: str, how: Export, path_field: str) -> Row:
    """Return an image as an object: its path (absolute where the image root is known), or its bytes.

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


def write_samples(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    return write_jsonl(path, samples)


def _encode(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", errors="backslashreplace")


def write_sharegpt(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    count = 0
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        file.write(b"[")
        for row in make_rows(samples, how, _make_sharegpt_row):
            file.write((b",\n" if count else b"\n") + _encode(row))
            count += 1
        file.write(b"\n]\n")
    return count


def write_llamafactory(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    info_path = path.with_name("dataset_info.json")
    try:
        info = {**json.loads(info_path.read_text("utf-8"))} if info_path.exists() else {}
    except (ValueError, TypeError):
        raise UnivgError("not a JSON object", info_path, "repair or remove it") from None
    count = write_sharegpt(path, samples, how)
    info[path.stem] = {"file_name": path.name, **_LLAMAFACTORY_ENTRY}
    write_whole(info_path, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    return count


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        for row in rows:
            file.write(_encode(row) + b"\n")
            count += 1
    return count


def write_trl(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
    return write_lines(path, make_rows(samples, how, _make_trl_row))


# The schemas are stated, not inferred from the first rows: a column that begins with nulls would be of no type.


def _make_verl_schema(pa: Any, embed: bool) -> Any:
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


def _make_easyr1_schema(pa: Any, embed: bool) -> Any:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if embed else pa.string()
    texts = [(name, pa.string()) for name in ("problem", "answer", METADATA)]
    return pa.schema([*texts[:2], ("images", pa.list_(image)), texts[2]])


def make_parquet_writer(
    make_row: Callable[[GroundingSample, Export], Row], make_schema: Callable[[Any, bool], Any]
) -> Writer:
    def write(path: Path, samples: Iterable[GroundingSample], how: Export) -> int:
        pa = import_pyarrow("Parquet files")
        schema, count = make_schema(pa, how.embed), 0
        rows = make_rows(samples, how, make_row)
        with replacing(path) as partial_path, pa.parquet.ParquetWriter(partial_path, schema) as writer:
            while batch := list(islice(rows, _EMBEDDING_ROWS if how.embed else _PARQUET_ROWS)):
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count += len(batch)
        return count

    return write


write_verl = make_parquet_writer(_make_verl_row, _make_verl_schema)
write_easyr1 = make_parquet_writer(_make_easyr1_row, _make_easyr1_schema)
