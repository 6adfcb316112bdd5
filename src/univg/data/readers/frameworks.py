"""What `univg data convert` wrote for TRL, verl and EasyR1, read back; and univg's own JSON Lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from univg.data.formats.conversations import without_tags
from univg.data.formats.records import (
    Row,
    Source,
    Unusable,
    clean_path,
    get_list,
    get_text,
    samples_from,
    shorten,
)
from univg.data.formats.rows import read_rows
from univg.data.readers.univg_r1 import bare_query, with_metadata
from univg.grounding.coordinates import read_quads, to_unit
from univg.grounding.samples import GroundingSample, SampleError

__all__ = ["read_easyr1", "read_trl", "read_univg", "read_verl"]


def read_univg(source: Source) -> Iterator[GroundingSample]:
    """Samples as `univg.grounding.samples.write_jsonl` writes them. A bad line is reported, and the others are read."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        sample = GroundingSample.from_json(row)
        if not sample.source:
            sample = GroundingSample.from_json({**sample.to_json(), "source": record})
        yield sample

    rows = ((position, _named(row)) for position, row in read_rows(source.path))
    yield from samples_from(source, "univg", rows, convert, id_fields=())


def _named(row: Row | Unusable) -> Row | Unusable:
    """A line that is no sample is told apart by what its own source says, if that can be read."""
    if isinstance(row, Mapping) and isinstance(row.get("source"), str) and row["source"]:
        try:
            GroundingSample.from_json(row)
        except SampleError as error:
            return Unusable("bad_field", f"{row['source']}: {error}")
    return row


def read_trl(source: Source) -> Iterator[GroundingSample]:
    """Rows of a conversational `prompt`, `images` and `solution`, with or without `completion`."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        yield _sample(row, record, _content(row), get_text(row, "solution"), row)

    yield from samples_from(source, "trl", read_rows(source.path), convert)


def read_verl(source: Source) -> Iterator[GroundingSample]:
    """Rows of `prompt`, `images`, `reward_model` and `extra_info`."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        reward = row.get("reward_model")
        if not isinstance(reward, Mapping):
            raise Unusable("missing_field", "there is no object 'reward_model'")
        yield _sample(
            row, record, _content(row), str(reward.get("ground_truth")), row.get("extra_info") or {}
        )

    yield from samples_from(source, "verl", read_rows(source.path), convert)


def read_easyr1(source: Source) -> Iterator[GroundingSample]:
    """Rows of `problem`, `answer` and `images`."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        yield _sample(row, record, get_text(row, "problem"), get_text(row, "answer"), row)

    yield from samples_from(source, "easyr1", read_rows(source.path), convert)


def _content(row: Row) -> str:
    """The text of a prompt's last turn."""
    turns = get_list(row, "prompt")
    content = turns[-1].get("content") if turns and isinstance(turns[-1], Mapping) else None
    if isinstance(content, list):
        texts = [part.get("text") or "" for part in content if isinstance(part, Mapping)]
        return "".join(texts)
    if not isinstance(content, str):
        raise Unusable("bad_field", "'prompt' does not end in a turn with text")
    return content


def _sample(row: Row, record: str, prompt: str, answer: str, kept: Mapping[str, Any]) -> GroundingSample:
    images = [_path(value, i, record) for i, value in enumerate(get_list(row, "images"))]
    query, thinking = bare_query(without_tags(prompt))
    quads = read_quads(answer)
    if not quads:
        raise Unusable("no_box", f"the answer {shorten(answer)} holds no box")
    sample = GroundingSample(
        images=tuple(images),
        query=query,
        task="grounding",
        boxes=tuple(to_unit(quad) for quad in quads),
        thinking=thinking,
        source=record,
    )
    return with_metadata(sample, kept)


def _path(value: Any, i: int, record: str) -> str:
    if isinstance(value, Mapping):
        value = value.get("image") or value.get("path") or (f"{record}.{i}" if value.get("bytes") else None)
    if not isinstance(value, str) or not value:
        raise Unusable("bad_field", "'images' holds neither paths nor objects with a path")
    return clean_path(value)
