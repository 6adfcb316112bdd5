"""Read back what `univg data convert` wrote for TRL, verl and EasyR1; and univg's own JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from univg.data.formats.answers import read_written
from univg.data.formats.conversations import Turn, read_content, strip_tags
from univg.data.formats.embedded import unpack_rows
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get, get_list, get_object, get_text
from univg.data.formats.records import Source, make_samples
from univg.data.formats.rows import Rows, read_rows
from univg.data.readers.chat import ChatSet, Lesson, Lessons, read_chat
from univg.grounding.response import dissect
from univg.grounding.samples import GroundingSample, SampleError

__all__ = ["read_easyr1", "read_trl", "read_univg", "read_verl"]


def read_univg(source: Source) -> Iterator[GroundingSample]:
    """Yield samples as `univg.grounding.samples.write_jsonl` writes them, or `univg data push` with their pictures; a
    bad line is reported and costs no other."""
    opened = ((position, _open_row(row)) for position, row in read_rows(source.path))
    rows = _check_samples(unpack_rows(source, opened))
    yield from make_samples(source, "univg", rows, _make_sample, id_fields=())


def _open_row(row: Any) -> Any:
    """Return a row of a table as a line has it: there every row has every column, and `extra` is JSON."""
    if not isinstance(row, Mapping):
        return row
    row = {
        name: value for name, value in row.items() if value is not None or name not in ("box_images", "extra")
    }
    if isinstance(row.get("extra"), str):
        with suppress(ValueError):
            row["extra"] = json.loads(row["extra"])
    return row


def _check_samples(rows: Rows) -> Rows:
    """Yield the rows; one that is no sample is named by what its own source says, if that can be read."""
    for position, row in rows:
        if isinstance(row, Mapping) and isinstance(row.get("source"), str) and row["source"]:
            try:
                GroundingSample.from_json(row)
            except SampleError as error:
                row = Unusable("bad_field", f"{row['source']}: {error}")
        yield position, row


def _make_sample(row: Row, record: str) -> Iterable[GroundingSample]:
    sample = GroundingSample.from_json(row)
    yield sample if sample.source else GroundingSample.from_json({**sample.to_json(), "source": record})


def read_trl(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each row of a conversational `prompt`, `images` and `solution`."""
    yield from read_chat(source, ChatSet("trl", _split_trl, thinks=True))


def read_verl(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each row of `prompt`, `images`, `reward_model` and `extra_info`."""
    yield from read_chat(source, ChatSet("verl", _split_verl, thinks=True))


def read_easyr1(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each row of `problem`, `answer` and `images`."""
    yield from read_chat(source, ChatSet("easyr1", _split_easyr1, thinks=True))


def _split_trl(row: Row) -> Lessons:
    yield "", _make_lesson(row, _read_prompt(row), get(row, "solution"))


def _split_verl(row: Row) -> Lessons:
    yield "", _make_lesson(row, _read_prompt(row), get(get_object(row, "reward_model"), "ground_truth"))


def _split_easyr1(row: Row) -> Lessons:
    yield "", _make_lesson(row, get_text(row, "problem"), get(row, "answer"))


def _read_prompt(row: Row) -> str:
    """Return the text of a prompt's last turn."""
    turns = get_list(row, "prompt")
    content = read_content(turns[-1].get("content")) if turns and isinstance(turns[-1], Mapping) else None
    if content is None:
        raise Unusable("bad_field", "'prompt' does not end in a turn with text")
    return content


def _make_lesson(row: Row, prompt: str, answer: Any) -> Lesson:
    images = tuple(_read_path(value) for value in get_list(row, "images"))
    if not images:
        raise Unusable("no_images", "'images' is empty")
    if (tags := prompt.count("<image>")) not in (0, len(images)):
        raise Unusable("image_tags", f"{tags} <image> tag(s) for {len(images)} image(s)")
    text = answer if isinstance(answer, str) else json.dumps(answer)
    turn = Turn(row, images, strip_tags(prompt), text, len(images))
    return Lesson(turn, read_written(dissect(text, "direct").region or ""))


def _read_path(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("image") or value.get("path")
    if not isinstance(value, str) or not value:
        raise Unusable("bad_field", "'images' holds neither paths nor objects with a path")
    return clean_path(value)
