"""Read ReasonVOS and ReVOS: the prepared evaluation files, and the raw annotations they were made from.

Prepared ReasonVOS: `image_list`, `question`, `bbox_list`, whose third entry is a text with four numbers.
Prepared ReVOS: `video_id`, `frames` (indices into the video's frames, sorted by the first integer in their
names), `question`, `bbox_list`, whose third entry is four numbers. Pixels; the paper asks for the third image.
Raw ReasonVOS: `meta_expressions.json` with mask images in `Annotations/<source>_<video>_<obj_id>/`.
Raw ReVOS: `meta_expressions_*.json` with `mask_dict.json` beside it (run lengths by annotation and frame).
From raw videos six frames are shown, evenly spread, as MIG-Bench's object tracking does.

Masks of ReVOS belong to frames by their place, so there must be as many; those of ReasonVOS by their name, so each
must be a frame's. An expression of several objects is asked for the box around all that are in the frame, as the
published code evaluates it; each object's own box is kept in `extra`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from univg.data.formats.faults import RecordFault, Unusable, report
from univg.data.formats.fields import (
    Row,
    get,
    get_images,
    get_list,
    get_object,
    get_question,
    get_text,
    name_kind,
    shorten,
)
from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import Extent, mask_extent, rle_extent, unite
from univg.data.formats.pixels import Drawn, check_mask_size, read_boxes, read_row_size, reads_pixels
from univg.data.formats.records import Source, make_samples
from univg.data.formats.rows import Rows, read_rows
from univg.data.readers.reasonseg import keep_further
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
_MOVE = "move what is no frame out of the folder"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def _find_listed(source: Source, row: Row, record: str) -> Drawn:
    return _draw(row, get_images(row, "image_list"))


@reads_pixels("reasonvos", _find_listed)
def read_reasonvos(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples, with the paper's zero-shot wording for the query."""
    _, further = keep_further(source, drawn)
    yield _make_sample(drawn.images, get_question(row, "question"), drawn.boxes[0], record, further)


def _number_questions(path: Path) -> Rows:
    """Name rows by video and position: ReVOS asks many questions of a video, so its name is no id."""
    for position, row in read_rows(path):
        video = row.get("video_id") if isinstance(row, dict) else None
        yield f"{video}/{position}" if video else position, row


def _find_numbered(source: Source, row: Row, record: str) -> Drawn:
    video, indices = get_text(row, "video_id"), get_list(row, "frames")
    frames = _list_frames(source, video)
    if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < len(frames) for i in indices):
        raise Unusable("missing_image", f"'frames' names frames that {video} with its {len(frames)} has not")
    if indices != sorted(set(indices)):
        cause = (
            f"the {len(indices)} 'frames' of {video} are not in order, or one is there twice: {indices[:8]}"
        )
        report(
            RecordFault(record, "frame_mismatch", cause, "look at the frames", usable=True), source.on_fault
        )
    return _draw(row, tuple(frames[i] for i in indices))


@reads_pixels("revos", _find_numbered, rows=_number_questions)
def read_revos(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples. Its frames are numbers: the folders of frames are needed to name them."""
    _, further = keep_further(source, drawn)
    extra = {"video": row["video_id"], **further}
    yield _make_sample(drawn.images, get_question(row, "question"), drawn.boxes[0], record, extra)


def _draw(row: Row, images: tuple[str, ...]) -> Drawn:
    boxes = get_list(row, "bbox_list")
    has = f"{len(images)} image(s) and {len(boxes)} box(es)"
    if min(len(images), len(boxes)) <= ASKED:
        fix = "give at least three images and three boxes"
        raise Unusable("no_box", f"the third image is asked for, and there are {has}", fix)
    if len(images) != len(boxes):
        raise Unusable("frame_mismatch", f"there are {has}", "give each image its own entry in 'bbox_list'")
    asked = read_boxes(boxes[ASKED], f"'bbox_list'[{ASKED}]")
    return Drawn(asked, images, ASKED, read_row_size(row))


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
    files = [one for one in folder.iterdir() if one.suffix.lower() in _SUFFIXES and one.name[0] != "."]
    numbered = sorted((_find_numbers(file.stem), file.name, file) for file in files)
    for numbers, name, _ in numbered[:1]:
        if not numbers:
            raise Unusable("frame_mismatch", f"{name} of {video} has no number: which frame is it?", _MOVE)
    for before, after in pairwise(numbered):
        if before[0] == after[0]:
            raise Unusable("frame_mismatch", f"{video} has {before[1]} and {after[1]} for one frame", _MOVE)
    return [source.images.relative(file) for _, _, file in numbered]


def _find_numbers(name: str) -> list[int]:
    """Return the integers in a name. The first decides, as published; the others where it is the same for all."""
    return [int(number) for number in _INTEGER.findall(name)]


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
    names = get_list(row, "frames")
    if odd := [name for name in names if not isinstance(name, str) or not name]:
        raise Unusable("bad_field", f"'frames' holds {name_kind(odd[0])}, where frames are named in text")
    expressions = dict(enumerate(get_list(row, "expressions"))) if listed else get_object(row, "expressions")
    _check_frames(names, len(expressions))
    shown = spread(len(names))
    images = tuple(_find_frame(source, row["video"], names[i]) for i in shown)
    frame = shown[ASKED] if len(shown) > ASKED else -1
    for name, expression in expressions.items():
        yield str(name), _Asked(row, expression, images, frame, names[frame] if names else "")


def _check_frames(names: list[str], n_expressions: int) -> None:
    """Raise `Unusable` unless each frame is listed once, in the order of the numbers in their names."""
    lost = f"whose masks are whose is not known, and its {n_expressions} expression(s) are left out"
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        cause = f"the frame {twice[0]} is listed twice among {len(names)}: {lost}"
        raise Unusable("frame_mismatch", cause, "list each frame once")
    numbers = list(map(_find_numbers, names))
    back = next(
        (i for i, (one, other) in enumerate(pairwise(numbers)) if one and other and one > other), None
    )
    if back is not None:
        cause = f"the frame {names[back + 1]} is listed behind {names[back]}: {lost}"
        raise Unusable("frame_mismatch", cause, "list the frames in their order")


def _find_frame(source: Source, video: str, name: str) -> str:
    """Return the path of a frame by its published name; the suffix by the file that is there, else .jpg."""
    stem = f"JPEGImages/{video}/{name}"
    candidates = (
        [stem]
        if Path(name).suffix
        else [f"{stem}{end}" for suffix in _SUFFIXES for end in (suffix, suffix.upper())]
    )
    there = (c for c in candidates if source.images is not None and source.images.find(c))
    return next(there, candidates[0])


def _make_raw_sample(
    source: Source, asked: _Asked, extents: list[Extent | None], text: str, record: str, **extra: Any
) -> GroundingSample:
    """Make a sample of the objects of an expression, whose extents in the asked frame are None where they are not."""
    here = [extent for extent in extents if extent is not None]
    whole = unite(here)
    if whole is None:
        raise Unusable("not_visible", "the object is not seen in the third of the frames shown")
    check_mask_size(source, asked.images[ASKED], here)
    if len(extents) > 1:
        source.note(
            "expressions of several objects are asked for the box around all that are in the frame: each object's "
            "own is kept as boxes_of_objects"
        )
        extra["boxes_of_objects"] = [list(px_to_unit(*extent)) for extent in here]
    question = get_question(asked.expression, text)
    extra = {"video": asked.row["video"], **extra}
    return _make_sample(asked.images, question, px_to_unit(*whole), record, extra)


def _read_ids(expression: Row, name: str) -> list[str]:
    """Return a field that must be one id or a list of at least one, each once."""
    value = get(expression, name)
    ids = value if isinstance(value, list) else [value]
    if not ids:
        raise Unusable("no_box", f"{name!r} is empty: the expression means nothing in the video")
    if not all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in ids):
        raise Unusable("bad_field", f"{name!r} is {shorten(value)}, not one or more ids")
    return list(dict.fromkeys(map(str, ids)))


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
        begin = f"{get_text(asked.row, 'source')}_{asked.row['video']}"
        folders = [masks / f"{begin}_{name}" for name in _read_ids(expression, "obj_id")]
        extents = [mask_extent(_find_mask(source, folder, asked)) for folder in folders]
        ids = {name: expression.get(name) for name in ("exp_id", "is_sent")}
        yield _make_raw_sample(source, asked, extents, "exp_text", record, **ids)

    masks = source.path.parent / "Annotations"
    split = partial(_split_video, source, True)
    yield from make_samples(source, "reasonvos", _read_videos(source.path), convert, ("video",), split)


def _find_mask(source: Source, folder: Path, asked: _Asked) -> Path:
    """Return an object's mask of the asked frame. That it is not there does not say that the object is not seen."""
    n_frames, stem = len(asked.row["frames"]), Path(asked.frame_name).stem
    if not folder.is_dir():
        raise Unusable("no_box", f"no masks {folder}", "fetch the Annotations beside the JSON file")
    masks = {one.stem for one in folder.iterdir() if one.suffix == ".png" and one.name[0] != "."}
    has = f"{folder.name} has {len(masks)} mask(s), and the video {n_frames} frame(s)"
    strange = sorted(masks - {Path(str(name)).stem for name in asked.row["frames"]})
    if strange:
        raise Unusable("frame_mismatch", f"{has}: none of these is {strange[0]}")
    if stem not in masks:
        raise Unusable("frame_mismatch", f"{has}: that of the asked frame {stem} is not there")
    if len(masks) != n_frames:
        source.note(f"{has}: those that are there are used")
    return folder / f"{stem}.png"


def read_revos_raw(source: Source) -> Iterator[GroundingSample]:
    """Yield the samples of `meta_expressions_*.json`; of the masks in `mask_dict.json` only boxes are kept."""
    path = source.path.with_name("mask_dict.json")
    if not path.is_file():
        raise UnivgError(f"no mask_dict.json beside {source.path}", remedy="put ReVOS's mask_dict.json there")
    masks = _read_masks(path)

    def convert(asked: _Asked, record: str) -> Iterable[GroundingSample]:
        _check_asked(asked)
        names, objects = _read_ids(asked.expression, "anno_id"), asked.expression.get("obj_id")
        if isinstance(objects, list) and len({*map(str, objects)}) != len(names):
            cause = f"'obj_id' names {len({*map(str, objects)})} object(s), and 'anno_id' {len(names)}"
            raise Unusable("frame_mismatch", cause, "give each object its own annotation")
        extents = [masks.find(name, asked.frame, len(asked.row["frames"])) for name in names]
        yield _make_raw_sample(source, asked, extents, "exp", record)

    split = partial(_split_video, source, False)
    yield from make_samples(source, "revos", _read_videos(source.path), convert, ("video",), split)


class _Masks(NamedTuple):
    """The extent of each mask by annotation and frame (or what is wrong with it), and how many each annotation has."""

    extents: dict[tuple[str, int], Extent | Unusable]
    counts: Counter[str]

    def find(self, annotation: str, frame: int, n_frames: int) -> Extent | None:
        """Return the extent in a frame, None if nothing is seen there; `Unusable` unless each frame has a mask."""
        count = self.counts[annotation]
        if not count:
            cause = f"mask_dict.json has no masks of the annotation {annotation}"
            raise Unusable("no_box", cause, "fetch the mask_dict.json of the same release")
        if count != n_frames:
            cause = f"the annotation {annotation} has {count} mask(s), and the video {n_frames} frame(s)"
            raise Unusable("frame_mismatch", cause)
        found = self.extents.get((annotation, frame))
        if isinstance(found, Unusable):
            raise Unusable(found.kind, f"the annotation {annotation}: {found.cause}", found.fix)
        return found


def _read_masks(path: Path) -> _Masks:
    """Read the extents of all masks. Streams the file: it holds gigabytes of run lengths."""
    masks = _Masks({}, Counter())
    for annotation, rle in read_items(path):  # each annotation's list comes frame by frame
        key = str(annotation), masks.counts[str(annotation)]
        masks.counts[str(annotation)] += 1
        try:
            found = rle_extent(rle) if rle else None
        except Unusable as fault:
            masks.extents[key] = fault
            continue
        if found is not None:
            masks.extents[key] = found
    return masks
