"""Read ReasonVOS and ReVOS: the prepared evaluation files, and the raw annotations they were made from.

Prepared ReasonVOS: `image_list`, `question`, `bbox_list`, whose third entry is a text with four numbers.
Prepared ReVOS: `video_id`, `frames` (indices into the video's frames, sorted by the first integer in their
names), `question`, `bbox_list`, whose third entry is four numbers. Pixels; the paper asks for the third image.
Raw ReasonVOS: `meta_expressions.json` with mask images in `Annotations/<source>_<video>_<obj_id>/`.
Raw ReVOS: `meta_expressions_*.json` with `mask_dict.json` beside it (run lengths by annotation and frame).
From raw videos six frames are shown, evenly spread, as MIG-Bench's object tracking does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import (
    Row,
    get,
    get_images,
    get_list,
    get_object,
    get_question,
    get_text,
    name_kind,
    read_box,
)
from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import Extent, mask_extent, rle_extent, union
from univg.data.formats.records import Source, make_samples, reads
from univg.data.formats.rows import Rows, read_rows
from univg.errors import UnivgError
from univg.grounding.boxes import Box, px_to_unit
from univg.grounding.prompts import ZERO_SHOT_VIDEO
from univg.grounding.samples import GroundingSample

__all__ = ["read_reasonvos", "read_reasonvos_raw", "read_revos", "read_revos_raw", "spread"]

TASK = "video"
ASKED = 2
"""The paper's wording asks for the third image."""
SHOWN = 6

_INTEGER = re.compile(r"\d+")
_SUFFIXES = (".jpg", ".jpeg", ".png")


@reads("reasonvos")
def read_reasonvos(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples, with the paper's zero-shot wording for the query."""
    images = get_images(row, "image_list")
    box = _read_asked_box(source, row, images)
    yield _make_sample(images, get_question(row, "question"), box, record, {})


def _number_questions(path: Path) -> Rows:
    """Name rows by video and position: ReVOS asks many questions of a video, so its name is no id."""
    for position, row in read_rows(path):
        video = row.get("video_id") if isinstance(row, dict) else None
        yield f"{video}/{position}" if video else position, row


@reads("revos", rows=_number_questions)
def read_revos(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples. Its frames are numbers: the folders of frames are needed to name them."""
    video = get_text(row, "video_id")
    frames = _list_frames(source, video)
    indices = get_list(row, "frames")
    if not all(isinstance(i, int) and 0 <= i < len(frames) for i in indices):
        raise Unusable("missing_image", f"'frames' names frames that {video} with its {len(frames)} has not")
    images = tuple(frames[i] for i in indices)
    box = _read_asked_box(source, row, images)
    yield _make_sample(images, get_question(row, "question"), box, record, {"video": video})


def _read_asked_box(source: Source, row: Row, images: tuple[str, ...]) -> Box:
    boxes = get_list(row, "bbox_list")
    if min(len(images), len(boxes)) <= ASKED:
        has = f"{len(images)} image(s) and {len(boxes)} box(es)"
        fix = "give at least three images and three boxes"
        raise Unusable("no_box", f"the third image is asked for, and there are {has}", fix)
    box_px = read_box(boxes[ASKED], "'bbox_list'[2]", several=True)
    return px_to_unit(box_px, source.read_size(images[ASKED]))


def _make_sample(
    images: tuple[str, ...], question: str, box: Box, record: str, extra: dict[str, Any]
) -> GroundingSample:
    query = ZERO_SHOT_VIDEO.format(instruction=question)
    extra = {"instruction": question, **extra}
    return GroundingSample(images, query, TASK, (box,), ASKED, source=record, extra=extra)


def _list_frames(source: Source, video: str) -> list[str]:
    """Return the paths of a video's frames under the image root, sorted by the first integer in their names."""
    if source.images is None:
        fix = "say with --images where they lie"
        raise Unusable("missing_image", f"the frames of {video} are needed", fix)
    folder = source.images.find(video, folder=True) or source.images.find(f"JPEGImages/{video}", folder=True)
    if folder is None:
        raise Unusable("missing_image", f"no folder {video} under {source.images.folder}")
    files = [file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES]
    named = [(int(number[0]), file.name, file) for file in files if (number := _INTEGER.search(file.name))]
    return [source.images.relative(file) for _, _, file in sorted(named)]


def spread(n_frames: int, shown: int = SHOWN) -> list[int]:
    """Choose `shown` frames out of `n_frames`, evenly spread, the first and the last among them.

    >>> spread(60), spread(4)
    ([0, 12, 24, 35, 47, 59], [0, 1, 2, 3])
    """
    if n_frames <= shown:
        return list(range(n_frames))
    return [round(i * (n_frames - 1) / (shown - 1)) for i in range(shown)]


# --- raw annotations ---


class _Asked(NamedTuple):
    """An expression of a video, with the frames that are shown and the one it is asked of."""

    row: Row
    expression: Row
    images: tuple[str, ...]
    frame: int
    frame_name: str


def _read_videos(path: Path) -> Rows:
    for key, value in read_items(path):
        if key == "videos" and isinstance(value, dict):
            for video, row in value.items():
                fits = isinstance(row, dict)
                yield (
                    video,
                    {**row, "video": video} if fits else Unusable("bad_field", "a video is not an object"),
                )


def _split_video(source: Source, listed: bool, row: Row) -> Iterator[tuple[str, _Asked]]:
    """Yield the expressions of a video: a list (whose published exp_id occurs twice in some videos) or an object."""
    names = [str(name) for name in get_list(row, "frames")]
    shown = spread(len(names))
    images = tuple(_find_frame(source, row["video"], names[i]) for i in shown)
    expressions = (
        enumerate(get_list(row, "expressions")) if listed else get_object(row, "expressions").items()
    )
    frame = shown[ASKED] if len(shown) > ASKED else -1
    for name, expression in expressions:
        yield str(name), _Asked(row, expression, images, frame, names[frame] if names else "")


def _find_frame(source: Source, video: str, name: str) -> str:
    """Return the path of a frame by its published name; the suffix by the file that is there, else .jpg."""
    stem = f"JPEGImages/{video}/{name}"
    candidates = [stem] if Path(name).suffix else [f"{stem}{suffix}" for suffix in _SUFFIXES]
    there = (c for c in candidates if source.images is not None and source.images.find(c))
    return next(there, candidates[0])


def _make_raw_sample(
    asked: _Asked, extent: Extent | None, text: str, record: str, **extra: Any
) -> GroundingSample:
    if extent is None:
        raise Unusable("not_visible", "the object is not seen in the third of the frames shown")
    question = get_question(asked.expression, text)
    return _make_sample(
        asked.images, question, px_to_unit(*extent), record, {"video": asked.row["video"], **extra}
    )


def _check_asked(asked: _Asked) -> None:
    if not isinstance(asked.expression, dict):
        raise Unusable("bad_field", f"an expression is an object, not {name_kind(asked.expression)}")
    if asked.frame < 0:
        raise Unusable("missing_image", "the video has fewer than three frames")


def read_reasonvos_raw(source: Source) -> Iterator[GroundingSample]:
    """Yield the samples of `meta_expressions.json`; masks beside it in `Annotations`, frames in `JPEGImages`."""

    def convert(asked: _Asked, record: str) -> Iterable[GroundingSample]:
        _check_asked(asked)
        expression = asked.expression
        folder = f"{get_text(asked.row, 'source')}_{asked.row['video']}_{get(expression, 'obj_id')}"
        path = source.path.parent / "Annotations" / folder / f"{Path(asked.frame_name).stem}.png"
        if not path.is_file():
            raise Unusable("no_box", f"no mask {path}", "fetch the Annotations beside the JSON file")
        ids = {name: expression.get(name) for name in ("exp_id", "is_sent")}
        yield _make_raw_sample(asked, mask_extent(path), "exp_text", record, **ids)

    split = partial(_split_video, source, True)
    yield from make_samples(source, "reasonvos", _read_videos(source.path), convert, ("video",), split)


def read_revos_raw(source: Source) -> Iterator[GroundingSample]:
    """Yield the samples of `meta_expressions_*.json`; of the masks in `mask_dict.json` only boxes are kept."""
    masks = source.path.with_name("mask_dict.json")
    if not masks.is_file():
        raise UnivgError(f"no mask_dict.json beside {source.path}", remedy="put ReVOS's mask_dict.json there")
    extents = _read_extents(masks)

    def convert(asked: _Asked, record: str) -> Iterable[GroundingSample]:
        _check_asked(asked)
        seen = [extents.get((str(name), asked.frame)) for name in get_list(asked.expression, "anno_id")]
        here = [extent for extent in seen if extent is not None]
        extent = (union([box for box, _ in here]), here[0][1]) if here else None
        yield _make_raw_sample(asked, extent, "exp", record)

    split = partial(_split_video, source, False)
    yield from make_samples(source, "revos", _read_videos(source.path), convert, ("video",), split)


def _read_extents(masks: Path) -> dict[tuple[str, int], Extent]:
    """Return the box of each mask, by annotation and frame. Streams the file: it holds gigabytes of run lengths."""
    extents: dict[tuple[str, int], Extent] = {}
    n_frames: Counter[str] = Counter()
    for annotation, rle in read_items(masks):  # each annotation's list comes frame by frame
        key = str(annotation), n_frames[str(annotation)]
        n_frames[str(annotation)] += 1
        try:
            found = rle_extent(rle) if rle else None
        except Unusable:
            continue  # the expression that needs this frame is reported as not visible
        if found is not None:
            extents[key] = found
    return extents
