"""Read back what `univg data convert` wrote for TRL, verl and EasyR1; and univg's own JSON Lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from univg.data.formats.answers import read_written
from univg.data.formats.conversations import read_content, strip_tags
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get_list, get_text, shorten
from univg.data.formats.frames import passes_permille
from univg.data.formats.records import Source, reads
from univg.data.formats.rows import Rows, read_rows
from univg.data.readers.univg_r1 import METADATA, add_metadata, strip_wording
from univg.grounding.coordinates import read_quads, to_unit
from univg.grounding.samples import GroundingSample, SampleError

__all__ = ["read_easyr1", "read_trl", "read_univg", "read_verl"]


def _read_samples(path: Path) -> Rows:
    """Yield the lines; one that is no sample is named by what its own source says, if that can be read."""
    for position, row in read_rows(path):
        if isinstance(row, Mapping) and isinstance(row.get("source"), str) and row["source"]:
            try:
                GroundingSample.from_json(row)
            except SampleError as error:
                row = Unusable("bad_field", f"{row['source']}: {error}")
        yield position, row


@reads("univg", id_fields=(), rows=_read_samples)
def read_univg(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield samples as `univg.grounding.samples.write_jsonl` writes them; a bad line is reported and costs no other."""
    sample = GroundingSample.from_json(row)
    yield sample if sample.source else GroundingSample.from_json({**sample.to_json(), "source": record})


@reads("trl")
def read_trl(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each row of a conversational `prompt`, `images` and `solution`."""
    yield _make_sample(row, record, _read_prompt(row), get_text(row, "solution"), row)


@reads("verl")
def read_verl(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each row of `prompt`, `images`, `reward_model` and `extra_info`."""
    reward = row.get("reward_model")
    if not isinstance(reward, Mapping):
        raise Unusable("missing_field", "there is no object 'reward_model'")
    answer = str(reward.get("ground_truth"))
    yield _make_sample(row, record, _read_prompt(row), answer, row.get("extra_info") or {})


@reads("easyr1")
def read_easyr1(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each row of `problem`, `answer` and `images`."""
    yield _make_sample(row, record, get_text(row, "problem"), get_text(row, "answer"), row)


def _read_prompt(row: Row) -> str:
    """Return the text of a prompt's last turn."""
    turns = get_list(row, "prompt")
    content = read_content(turns[-1].get("content")) if turns and isinstance(turns[-1], Mapping) else None
    if content is None:
        raise Unusable("bad_field", "'prompt' does not end in a turn with text")
    return content


def _make_sample(row: Row, record: str, prompt: str, answer: str, kept: Mapping[str, Any]) -> GroundingSample:
    images = tuple(_read_path(value, i, record) for i, value in enumerate(get_list(row, "images")))
    query, thinking = strip_wording(strip_tags(prompt))
    written = read_written(answer)
    if stray := next((one.box for one in written if passes_permille(one.box)), None):
        raise Unusable("wrong_scale", f"{shorten(stray)} passes 1000, in which the set is written")
    boxes = tuple(map(to_unit, read_quads(answer)))
    if not boxes:
        raise Unusable("no_box", f"the answer {shorten(answer)} holds no box")
    if len(boxes) > 1 and len(images) > 1 and METADATA not in kept:
        raise Unusable(
            "which_image", f"nothing tells on which of {len(images)} images {len(boxes)} boxes lie"
        )
    sample = GroundingSample(images, query, "grounding", boxes, thinking=thinking, source=record)
    return add_metadata(sample, kept)


def _read_path(value: Any, i: int, record: str) -> str:
    if isinstance(value, Mapping):
        value = value.get("image") or value.get("path") or (f"{record}.{i}" if value.get("bytes") else None)
    if not isinstance(value, str) or not value:
        raise Unusable("bad_field", "'images' holds neither paths nor objects with a path")
    return clean_path(value)
