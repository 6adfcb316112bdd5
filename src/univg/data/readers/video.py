"""ReasonVOS and ReVOS: the prepared evaluation files, and the raw annotations they were made from.

Prepared ReasonVOS: `image_list`, `question`, `bbox_list`, whose third entry is a text with four numbers.
Prepared ReVOS: `video_id`, `frames` (indices into the video's frames, sorted by the first integer in their
names), `question`, `bbox_list`, whose third entry is four numbers. Pixels; the paper asks for the third image.
Raw ReasonVOS: `meta_expressions.json` with mask images in `Annotations/<source>_<video>_<obj_id>/`.
Raw ReVOS: `meta_expressions_*.json` with `mask_dict.json` beside it (run lengths by annotation and frame).
From raw videos six frames are shown, evenly spread, as MIG-Bench's object tracking does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import mask_extent, rle_extent, union
from univg.data.formats.records import (
    ReadError,
    Row,
    Source,
    Unusable,
    get,
    get_images,
    get_list,
    get_question,
    get_text,
    kind_of,
    samples_from,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import one_box, px_box
from univg.grounding.boxes import Box, SizeWH
from univg.grounding.prompts import ZERO_SHOT_VIDEO
from univg.grounding.samples import GroundingSample

__all__ = ["read_reasonvos", "read_reasonvos_raw", "read_revos", "read_revos_raw", "spread"]

TASK = "video"
ASKED = 2
"""The paper's wording asks for the third image."""
SHOWN = 6

_INTEGER = re.compile(r"\d+")
_FRAMES = (".jpg", ".jpeg", ".png")


def read_reasonvos(source: Source) -> Iterator[GroundingSample]:
    """The prepared file, with the paper's zero-shot wording for the query."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        images = get_images(row, "image_list")
        box = _asked_box(source, row, images)
        yield _sample(images, get_question(row, "question"), box, record)

    yield from samples_from(source, "reasonvos", read_rows(source.path), convert)


def read_revos(source: Source) -> Iterator[GroundingSample]:
    """The prepared file. Its frames are numbers: the folders of frames are needed to name them."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        video = get_text(row, "video_id")
        frames = frame_names(source, video)
        indices = get_list(row, "frames")
        if not all(isinstance(i, int) and 0 <= i < len(frames) for i in indices):
            raise Unusable(
                "missing_image", f"'frames' names frames that {video} with its {len(frames)} has not"
            )
        images = [frames[i] for i in indices]
        box = _asked_box(source, row, images)
        yield _sample(images, get_question(row, "question"), box, record, {"video": video})

    yield from samples_from(source, "revos", _numbered(source), convert)


def _numbered(source: Source) -> Iterator[tuple[str, Row | Unusable]]:
    """ReVOS has many questions a video, so a video's name is no id."""
    for position, row in read_rows(source.path):
        video = row.get("video_id") if isinstance(row, dict) else None
        yield f"{video}/{position}" if video else position, row


def _asked_box(source: Source, row: Row, images: list[str]) -> Box:
    boxes = get_list(row, "bbox_list")
    if len(images) <= ASKED or len(boxes) <= ASKED:
        raise Unusable(
            "no_box",
            f"the third image is asked for, and there are {len(images)} image(s) and {len(boxes)} box(es)",
            "give at least three images and three boxes",
        )
    return px_box(source, one_box(boxes[ASKED], "'bbox_list'[2]"), images[ASKED])


def _sample(
    images: list[str], question: str, box: Box, record: str, extra: Mapping[str, Any] | None = None
) -> GroundingSample:
    return GroundingSample(
        images=tuple(images),
        query=ZERO_SHOT_VIDEO.format(instruction=question),
        task=TASK,
        boxes=(box,),
        target_image=ASKED,
        source=record,
        extra={"instruction": question, **(extra or {})},
    )


def frame_names(source: Source, video: str) -> list[str]:
    """The paths of a video's frames under the image root, sorted by the first integer in their names."""
    if source.images is None:
        raise Unusable(
            "missing_image", f"the frames of {video} are needed", "say with --images where they lie"
        )
    folder = source.images.find(video, folder=True) or source.images.find(f"JPEGImages/{video}", folder=True)
    if folder is None:
        raise Unusable("missing_image", f"no folder {video} under {source.images.folder}")
    named = []
    for file in folder.iterdir():
        number = _INTEGER.search(file.name)
        if file.suffix.lower() in _FRAMES and number:
            named.append((int(number[0]), file.name, file))
    return [source.images.relative(file) for _, _, file in sorted(named)]


def spread(n_frames: int, shown: int = SHOWN) -> list[int]:
    """`shown` frames out of `n_frames`, evenly spread, the first and the last among them.

    >>> spread(60), spread(4)
    ([0, 12, 24, 35, 47, 59], [0, 1, 2, 3])
    """
    if n_frames <= shown:
        return list(range(n_frames))
    return [round(i * (n_frames - 1) / (shown - 1)) for i in range(shown)]


# --- raw annotations ---


def read_reasonvos_raw(source: Source) -> Iterator[GroundingSample]:
    """`meta_expressions.json`; masks beside it in `Annotations`, frames in `JPEGImages`."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        video, names = row["video"], [str(name) for name in get_list(row, "frames")]
        shown = spread(len(names))
        images = _frame_paths(source, video, [names[i] for i in shown])
        for i, expression in enumerate(get_list(row, "expressions")):
            part = f"{i}"  # the published exp_id occurs twice in some videos
            try:
                folder = f"{get_text(row, 'source')}_{video}_{get(expression, 'obj_id')}"
                found = _mask(source, folder, names[shown[ASKED]] if len(shown) > ASKED else "", images)
                question = get_question(expression, "exp_text")
                extra = {
                    "video": video,
                    "exp_id": expression.get("exp_id"),
                    "is_sent": expression.get("is_sent"),
                }
                yield _sample(images, question, found, f"{record}@{part}", extra)
            except Unusable as error:
                yield Unusable(error.kind, error.cause, error.fix, part)

    yield from samples_from(source, "reasonvos", _videos(source.path), convert, id_fields=("video",))


def _mask(source: Source, folder: str, frame: str, images: list[str]) -> Box:
    if len(images) <= ASKED:
        raise Unusable("missing_image", "the video has fewer than three frames")
    masks = source.path.parent / "Annotations" / folder
    path = masks / f"{Path(frame).stem}.png"
    if not path.is_file():
        raise Unusable("no_box", f"no mask {path}", "fetch the Annotations beside the JSON file")
    return _visible(mask_extent(path))


def read_revos_raw(source: Source) -> Iterator[GroundingSample]:
    """`meta_expressions_*.json` with `mask_dict.json` beside it, of which only the boxes are kept in memory."""
    masks = source.path.with_name("mask_dict.json")
    if not masks.is_file():
        raise ReadError(f"no mask_dict.json beside {source.path}: put ReVOS's mask_dict.json there")
    extents = _extents(masks)

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        video, names = row["video"], [str(name) for name in get_list(row, "frames")]
        shown = spread(len(names))
        images = _frame_paths(source, video, [names[i] for i in shown])
        expressions = get(row, "expressions")
        if not isinstance(expressions, dict):
            raise Unusable("bad_field", f"'expressions' is {kind_of(expressions)}, not an object")
        for name, expression in expressions.items():
            try:
                if len(shown) <= ASKED:
                    raise Unusable("missing_image", "the video has fewer than three frames")
                frame = shown[ASKED]
                seen = [extents.get(str(anno), {}).get(frame) for anno in get_list(expression, "anno_id")]
                here = [extent for extent in seen if extent is not None]
                box = _visible((union([box for box, _ in here]), here[0][1]) if here else None)
                yield _sample(
                    images, get_question(expression, "exp"), box, f"{record}@{name}", {"video": video}
                )
            except Unusable as error:
                yield Unusable(error.kind, error.cause, error.fix, name)

    yield from samples_from(source, "revos", _videos(source.path), convert, id_fields=("video",))


def _visible(found: tuple[Box, SizeWH] | None) -> Box:
    if found is None:
        raise Unusable("not_visible", "the object is not seen in the third of the frames shown")
    (x1, y1, x2, y2), (width, height) = found
    return x1 / width, y1 / height, x2 / width, y2 / height


def _extents(masks: Path) -> dict[str, dict[int, tuple[Box, SizeWH]]]:
    """By annotation and frame: the box of the mask. Streams the file: it holds gigabytes of run lengths."""
    extents: dict[str, dict[int, tuple[Box, SizeWH]]] = {}
    frame_of: dict[str, int] = {}
    for annotation, rle in read_items(masks):  # each annotation's list comes frame by frame
        name = str(annotation)
        frame = frame_of.get(name, -1) + 1
        frame_of[name] = frame
        try:
            found = rle_extent(rle) if rle else None
        except Unusable:
            continue  # the expression that needs this frame is reported as not visible
        if found is not None:
            extents.setdefault(name, {})[frame] = found
    return extents


def _videos(path: Path) -> Iterator[tuple[str, Row | Unusable]]:
    for key, value in read_items(path):
        if key != "videos" or not isinstance(value, dict):
            continue
        for video, row in value.items():
            fits = isinstance(row, dict)
            yield (
                video,
                {**row, "video": video} if fits else Unusable("bad_field", "a video is not an object"),
            )


def _frame_paths(source: Source, video: str, names: list[str]) -> list[str]:
    """Frames by their published names; the suffix by the files that are there, else .jpg."""
    paths = []
    for name in names:
        stem = f"JPEGImages/{video}/{name}"
        candidates = [stem] if Path(name).suffix else [f"{stem}{suffix}" for suffix in _FRAMES]
        found = next(
            (c for c in candidates if source.images is not None and source.images.find(c)), candidates[0]
        )
        paths.append(found)
    return paths
