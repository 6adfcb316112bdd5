"""Compose the tasks of `univg.data.building.build`: each family looks for images that allow its question, and asks it.

Every `compose_*` takes the desk and returns a task, or says why the set allows none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from univg.data.building.desk import SMALLEST_SHARE, TRIES, BuiltTask, Compose, Crop, Desk, find_only
from univg.data.building.sets import SET_FAMILIES
from univg.data.detection import DetectionImage, Instance
from univg.grounding.boxes import Box, area, iou, unit_to_permille, unit_to_px

__all__ = ["ALL_FAMILIES", "TASK_FAMILIES"]

SMALLEST_CROP_PX = 48
"""Each way: less is a blur, once shown as an image of its own."""
_LARGER_BY = 1.5
_FRAMES = 6
_NAMES = ("first", "second", "third", "fourth", "fifth", "sixth")

# The wordings, MIG-Bench's where it has one.
_SHARED = "These images share one object in common. Recognize and locate this object in the {place} image."
_ONCE_IN_EACH = (
    "Exactly one kind of object appears exactly once in each of these images. "
    "Recognize it and locate it in the {place} image."
)
_ONE_REGION = (
    "You are given a source image followed by one of its regions. "
    "Please locate this region picture in the source image."
)
_REGIONS = (
    "You are given a source image followed by its several regions. "
    "Please locate the {place} region picture in the source image."
)
_SAME_KIND = (
    "Image-1 shows an object. Find the object of the same kind in image-2 and locate it in the second image."
)
_DESCRIBED = (
    "Please find the bounding box coordinates for the area described by: "
    "<|object_ref_start|>the {named}<|object_ref_end|>."
)
_ONLY_ONE = "Locate the {named} in the image."
_MOVING = (
    "These are a sequence of images containing moving objects. For the object in the first image at "
    "<|box_start|>({},{}),({},{})<|box_end|>, please locate it in the {place} image."
)


def compose_common_object(desk: Desk) -> BuiltTask | str:
    """Ask two to four images for what they share. Unique: only one category occurs exactly once in every image.

    If nothing else occurs in all of the images, MIG-Bench's wording is true; else the question says that the
    object occurs once in each.
    """
    possible = [category for category, images in desk.once.items() if len(images) >= 2]
    if not possible:
        return "no category occurs exactly once in two or more images"
    for category in desk.rank_categories("common_object", possible):
        for _ in range(TRIES):
            n = min(desk.rng.choice((2, 3, 3, 4)), len(desk.once[category]))
            images = desk.draw(desk.once[category], n)
            desk.rng.shuffle(images)
            counts = [desk.counts[image.record] for image in images]
            shared = set.intersection(*(set(count) for count in counts))
            once = [name for name in shared if all(count[name] == 1 for count in counts)]
            if once != [category]:
                continue
            target = desk.choose_place("common_object", n)
            wording = _SHARED if shared == {category} else _ONCE_IN_EACH
            query = wording.format(place=_NAMES[target])
            box = find_only(images[target], category).box
            return BuiltTask("common_object", tuple(images), query, ((target, box),), category)
    return "whatever occurs once in several images does so together with another category"


def compose_region(desk: Desk) -> BuiltTask | str:
    """Ask where one of up to three pieces was cut out of an image. Unique: there is exactly one such place, and no
    two of the pieces overlap by more than a fifth. Pieces follow the objects, with some of what surrounds them."""
    for image in desk.draw(desk.images, min(TRIES, len(desk.images))):
        pieces = [(i, _widen(i.box, desk.rng)) for i in image.instances if i.alone]
        pieces = [(i, box) for i, box in pieces if _can_crop(image, box) and area(box) <= 0.5]
        desk.rng.shuffle(pieces)
        pieces.sort(key=lambda piece: desk.families_categories["region", piece[0].category])
        chosen: list[tuple[Instance, Box]] = []
        for piece in pieces:
            if all(iou(piece[1], other) <= 0.2 for _, other in chosen):
                chosen.append(piece)
        if not chosen:
            continue
        wanted, others = chosen[0], chosen[1 : 1 + desk.rng.choice((0, 1, 2, 2))]
        k = desk.rng.randrange(len(others) + 1)
        order = [*others[:k], wanted, *others[k:]]
        query = _ONE_REGION if len(order) == 1 else _REGIONS.format(place=_NAMES[k])
        crops = (Crop(image, box) for _, box in order)
        return BuiltTask("region", (image, *crops), query, ((0, wanted[1]),), wanted[0].category)
    return f"no object is large enough to be cut out ({SMALLEST_CROP_PX} pixels each way)"


def compose_refer_grounding(desk: Desk) -> BuiltTask | str:
    """Ask a picture for the like of a piece of another. Unique: the piece's category occurs exactly once there, and
    the piece shows hardly anything else."""
    possible = [category for category, images in desk.once.items() if images]
    for category in desk.rank_categories("refer_grounding", possible):
        for _ in range(TRIES):
            target = desk.draw(desk.once[category], 1)[0]
            other = desk.draw(desk.images, 1)[0]
            if other.record == target.record:
                continue
            shown = [i for i in other.instances if i.category == category and i.alone]
            shown = [i for i in shown if _can_crop(other, i.box) and not _is_crowded(i, other)]
            if not shown:
                continue
            piece = Crop(other, _add_margin(desk.rng.choice(shown).box, 0.06))
            box = find_only(target, category).box
            return BuiltTask("refer_grounding", (piece, target), _SAME_KIND, ((1, box),), category)
    return "no category occurs exactly once in one image and clearly in another"


def compose_group_grounding(desk: Desk) -> BuiltTask | str:
    """Ask two to four images for what fits a description. Unique: the category occurs in one of the images only,
    and once; or the object is by half larger than any other of its category in all of the images."""
    makers = [_compose_lone, _compose_largest]
    desk.rng.shuffle(makers)
    for make in makers:
        task = make(desk)
        if task is not None:
            return task
    return "every category occurs in nearly every image, and several times"


def _compose_lone(desk: Desk) -> BuiltTask | None:
    possible = list(desk.once)
    for category in desk.rank_categories("group_grounding", possible):
        for _ in range(8):
            target_image = desk.draw(desk.once[category], 1)[0]
            without = desk.find_lacking(category)
            n_others = min(desk.rng.choice((1, 2, 2, 3)), len(without))
            if not n_others:
                continue
            box = find_only(target_image, category).box
            return _make_group(desk, target_image, desk.draw(without, n_others), category, category, box)
    return None


def _compose_largest(desk: Desk) -> BuiltTask | None:
    for _ in range(TRIES):
        n = desk.rng.choice((2, 3, 3, 4))
        images = desk.draw(desk.whole, n)
        if len(images) < 2:
            return None
        candidates: dict[str, tuple[Instance, DetectionImage]] = {}
        for category in sorted({i.category for image in images for i in image.instances}):
            found = [(i, image) for image in images for i in image.instances if i.category == category]
            found.sort(key=lambda entry: area(entry[0].box), reverse=True)
            if len(found) < 2 or not all(instance.alone for instance, _ in found):
                continue
            largest, second = (area(instance.box) for instance, _ in found[:2])
            if largest >= SMALLEST_SHARE and largest >= _LARGER_BY * second:
                candidates[category] = found[0]
        if candidates:
            category = desk.rank_categories("group_grounding", list(candidates))[0]
            instance, image = candidates[category]
            others = [other for other in images if other.record != image.record]
            named = f"largest {category} in all of the images"
            return _make_group(desk, image, others, category, named, instance.box)
    return None


def _make_group(
    desk: Desk, image: DetectionImage, others: Sequence[DetectionImage], category: str, named: str, box: Box
) -> BuiltTask:
    shown = list(others)
    target = desk.choose_place("group_grounding", len(others) + 1)
    shown.insert(target, image)
    query = _DESCRIBED.format(named=named)
    return BuiltTask("group_grounding", tuple(shown), query, ((target, box),), category)


def compose_object_tracking(desk: Desk) -> BuiltTask | str:
    """Ask three to six frames for the object boxed in the first. Unique: its track, where tracks are annotated; else
    the category occurs exactly once in every one of the frames."""
    videos: dict[str, list[DetectionImage]] = {}
    for image in desk.images:
        if image.video is not None:
            videos.setdefault(image.video, []).append(image)
    long_enough = sorted(name for name, frames in videos.items() if len(frames) >= 3)
    if not long_enough:
        return "no frames in order: a COCO-video file has them, or name folders of frames with --ordered"
    for _ in range(TRIES):
        frames = sorted(videos[desk.rng.choice(long_enough)], key=lambda image: (image.frame, image.name))
        n = min(desk.rng.randint(3, _FRAMES), len(frames))
        step = desk.rng.randint(1, max(1, min(10, (len(frames) - 1) // (n - 1))))
        start = desk.rng.randrange(len(frames) - step * (n - 1))
        chosen = frames[start : start + step * (n - 1) + 1 : step]
        followed = _find_followed(desk, chosen)
        if followed is None:
            continue
        category, boxes = followed
        target = desk.choose_place("object_tracking", n, first=1)
        query = _MOVING.format(*unit_to_permille(boxes[0]), place=_NAMES[target])
        return BuiltTask("object_tracking", tuple(chosen), query, ((target, boxes[target]),), category)
    return "no object can be followed through three frames"


def _find_followed(desk: Desk, frames: Sequence[DetectionImage]) -> tuple[str, list[Box]] | None:
    """Return the category and the boxes of an object that is in all of the frames."""
    ways: dict[tuple[str, str], list[Box]] = {}
    for image in frames:
        for instance in image.instances:
            if not instance.alone:
                continue
            if instance.track is not None:
                ways.setdefault((instance.category, f"track {instance.track}"), []).append(instance.box)
            elif desk.counts[image.record][instance.category] == 1:
                ways.setdefault((instance.category, "alone"), []).append(instance.box)
    whole = {way: boxes for way, boxes in ways.items() if len(boxes) == len(frames)}
    whole = {way: boxes for way, boxes in whole.items() if min(map(area, boxes)) >= SMALLEST_SHARE / 2}
    if not whole:
        return None
    category = desk.rank_categories("object_tracking", sorted({name for name, _ in whole}))[0]
    way = desk.rng.choice(sorted(way for way in whole if way[0] == category))
    return category, whole[way]


def compose_referring(desk: Desk) -> BuiltTask | str:
    """Ask one image for the only object of its category: each of them once, in an order that is drawn."""
    if desk.alone is None:
        pairs = [(category, image) for category, images in sorted(desk.once.items()) for image in images]
        desk.alone = desk.rng.sample(pairs, len(pairs))
    if not desk.alone:
        return "every object that is the only one of its category in its image was asked for"
    category, image = desk.alone.pop()
    query = _ONLY_ONE.format(named=category)
    return BuiltTask("referring", (image,), query, ((0, find_only(image, category).box),), category)


# --- pieces ---


def _add_margin(box: Box, share: float) -> Box:
    """Return `box` with `share` of its sides added on every side, inside the image."""
    x1, y1, x2, y2 = box
    across, down = share * (x2 - x1), share * (y2 - y1)
    return max(0.0, x1 - across), max(0.0, y1 - down), min(1.0, x2 + across), min(1.0, y2 + down)


def _widen(box: Box, rng: random.Random) -> Box:
    return _add_margin(box, rng.uniform(0.05, 0.35))


def _can_crop(image: DetectionImage, box: Box) -> bool:
    x1, y1, x2, y2 = unit_to_px(box, image.size_wh)
    return min(x2 - x1, y2 - y1) >= SMALLEST_CROP_PX and area(box) >= SMALLEST_SHARE


def _is_crowded(instance: Instance, image: DetectionImage) -> bool:
    """Tell whether much of the object's box is another category's."""
    x1, y1, x2, y2 = instance.box
    for other in image.instances:
        if other.category != instance.category:
            a1, b1, a2, b2 = other.box
            shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if shared > 0.25 * area(instance.box):
                return True
    return False


TASK_FAMILIES: Mapping[str, Compose] = {
    "common_object": compose_common_object,
    "region": compose_region,
    "refer_grounding": compose_refer_grounding,
    "group_grounding": compose_group_grounding,
    "object_tracking": compose_object_tracking,
}
"""The families, in the words of MIG-Bench."""
ALL_FAMILIES: Mapping[str, Compose] = {**TASK_FAMILIES, "referring": compose_referring, **SET_FAMILIES}
"""These, one of single images, and those whose answer is a set, which are made only where they are asked for."""
