"""The families of `univg.data.building.build`: each looks for images that allow its question, and asks it.

Every function takes the desk and gives a task, or says why the set allows none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from univg.data.building.desk import SMALLEST_SHARE, BuiltTask, Crop, Desk, Shown
from univg.data.readers.detection import DetectionImage, Instance
from univg.grounding.boxes import Box, area, iou, unit_to_permille, unit_to_px

__all__ = ["FAMILIES", "TRIES", "Compose"]

Compose: TypeAlias = Callable[[Desk], "BuiltTask | str"]

TRIES = 60
SMALLEST_CROP_PX = 48
"""Each way: less is a blur, once shown as an image of its own."""
_LARGER_BY = 1.5
_FRAMES = 6
_NAMES = ("first", "second", "third", "fourth", "fifth", "sixth")


def common_object(desk: Desk) -> BuiltTask | str:
    """Two to four images. Unique: of all categories, only the target's can occur exactly once in every image.

    If nothing else occurs in all of the images, MIG-Bench's wording is true; else the question says that the
    object occurs once in each.
    """
    possible = [category for category, images in desk.once.items() if len(images) >= 2]
    if not possible:
        return "no category occurs exactly once in two or more images"
    for category in desk.categories("common_object", possible):
        for _ in range(TRIES):
            n = min(desk.rng.choice((2, 3, 3, 4)), len(desk.once[category]))
            images = desk.draw(desk.once[category], n)
            desk.rng.shuffle(images)
            counts = [desk.counts[image.record] for image in images]
            shared = set.intersection(*(set(count) for count in counts))
            once = [name for name in shared if all(count[name] == 1 for count in counts)]
            if once != [category]:
                continue
            target = desk.place("common_object", n)
            where = f"the {_NAMES[target]} image"
            if shared == {category}:
                query = (
                    f"These images share one object in common. Recognize and locate this object in {where}."
                )
            else:
                query = (
                    "Exactly one kind of object appears exactly once in each of these images. "
                    f"Recognize it and locate it in {where}."
                )
            box = desk.only(images[target], category).box
            return BuiltTask("common_object", tuple(images), query, box, target, category)
    return "whatever occurs once in several images does so together with another category"


def region(desk: Desk) -> BuiltTask | str:
    """An image and one to three pieces of it. Unique: the piece is cut out of exactly one place, and no two of
    the pieces overlap by more than a fifth. Pieces follow the objects, with some of what surrounds them."""
    for image in desk.draw(desk.images, min(TRIES, len(desk.images))):
        pieces = [(i, _widened(i.box, desk.rng)) for i in image.instances if i.alone]
        pieces = [(i, box) for i, box in pieces if _croppable(image, box) and area(box) <= 0.5]
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
        if len(order) == 1:
            query = "You are given a source image followed by one of its regions. Please locate this region picture"
        else:
            query = (
                "You are given a source image followed by its several regions. "
                f"Please locate the {_NAMES[k]} region picture"
            )
        query += " in the source image."
        shown: tuple[Shown, ...] = (image, *(Crop(image, box) for _, box in order))
        return BuiltTask("region", shown, query, wanted[1], 0, wanted[0].category)
    return f"no object is large enough to be cut out ({SMALLEST_CROP_PX} pixels each way)"


def refer_grounding(desk: Desk) -> BuiltTask | str:
    """A piece of one picture, and another picture. Unique: the piece's category occurs exactly once there, and
    the piece shows hardly anything else."""
    possible = [category for category, images in desk.once.items() if images]
    for category in desk.categories("refer_grounding", possible):
        for _ in range(TRIES):
            target = desk.draw(desk.once[category], 1)[0]
            other = desk.draw(desk.images, 1)[0]
            if other.record == target.record:
                continue
            shown = [i for i in other.instances if i.category == category and i.alone]
            shown = [i for i in shown if _croppable(other, i.box) and not _crowded(i, other)]
            if not shown:
                continue
            piece = Crop(other, _margin(desk.rng.choice(shown).box, 0.06))
            query = (
                "Image-1 shows an object. Find the object of the same kind in image-2 and locate it in the "
                "second image."
            )
            box = desk.only(target, category).box
            return BuiltTask("refer_grounding", (piece, target), query, box, 1, category)
    return "no category occurs exactly once in one image and clearly in another"


def group_grounding(desk: Desk) -> BuiltTask | str:
    """Two to four images and a description. Unique: the category occurs in one of the images only, and once; or
    the object is by half larger than any other of its category in all of the images."""
    makers = [_lone_in_group, _largest_in_group]
    desk.rng.shuffle(makers)
    for make in makers:
        task = make(desk)
        if task is not None:
            return task
    return "every category occurs in nearly every image, and several times"


def _lone_in_group(desk: Desk) -> BuiltTask | None:
    possible = list(desk.once)
    for category in desk.categories("group_grounding", possible):
        for _ in range(8):
            target_image = desk.draw(desk.once[category], 1)[0]
            without = [image for image in _some(desk) if not desk.counts[image.record][category]]
            without = [image for image in without if image.record != target_image.record and image.instances]
            n_others = min(desk.rng.choice((1, 2, 2, 3)), len(without))
            if not n_others:
                continue
            box = desk.only(target_image, category).box
            return _group(desk, target_image, desk.draw(without, n_others), category, category, box)
    return None


def _largest_in_group(desk: Desk) -> BuiltTask | None:
    for _ in range(TRIES):
        n = desk.rng.choice((2, 3, 3, 4))
        images = desk.draw(desk.whole, n)
        if len(images) < 2:
            return None
        candidates = []
        for category in sorted({i.category for image in images for i in image.instances}):
            found = [
                (area(i.box), i, image) for image in images for i in image.instances if i.category == category
            ]
            found.sort(key=lambda entry: entry[0], reverse=True)
            if len(found) < 2 or not all(entry[1].alone for entry in found):
                continue
            largest, next_one = found[0], found[1]
            if largest[0] >= SMALLEST_SHARE and largest[0] >= _LARGER_BY * next_one[0]:
                candidates.append((category, largest[1], largest[2]))
        if candidates:
            fewest = desk.categories("group_grounding", [category for category, _, _ in candidates])[0]
            category, instance, image = next(entry for entry in candidates if entry[0] == fewest)
            others = [other for other in images if other.record != image.record]
            named = f"largest {category} in all of the images"
            return _group(desk, image, others, category, named, instance.box)
    return None


def _some(desk: Desk) -> list[DetectionImage]:
    """A draw of images large enough to hold what is looked for, and small enough to look through often."""
    return desk.rng.sample(desk.whole, min(256, len(desk.whole)))


def _group(
    desk: Desk, image: DetectionImage, others: Sequence[DetectionImage], category: str, named: str, box: Box
) -> BuiltTask:
    shown = list(others)
    target = desk.place("group_grounding", len(others) + 1)
    shown.insert(target, image)
    query = (
        "Please find the bounding box coordinates for the area described by: "
        f"<|object_ref_start|>the {named}<|object_ref_end|>."
    )
    return BuiltTask("group_grounding", tuple(shown), query, box, target, category)


def object_tracking(desk: Desk) -> BuiltTask | str:
    """Three to six frames in order. Unique: the object's track, where tracks are annotated; else the category
    occurs exactly once in every one of the frames."""
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
        followed = _followed(desk, chosen)
        if followed is None:
            continue
        category, boxes = followed
        target = desk.place("object_tracking", n, first=1)
        x1, y1, x2, y2 = unit_to_permille(boxes[0])
        query = (
            "These are a sequence of images containing moving objects. For the object in the first image at "
            f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>, please locate it in the {_NAMES[target]} image."
        )
        return BuiltTask("object_tracking", tuple(chosen), query, boxes[target], target, category)
    return "no object can be followed through three frames"


def _followed(desk: Desk, frames: Sequence[DetectionImage]) -> tuple[str, list[Box]] | None:
    """An object that is in all of the frames: its category and its box in each."""
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
    category = desk.categories("object_tracking", sorted({name for name, _ in whole}))[0]
    way = desk.rng.choice(sorted(way for way in whole if way[0] == category))
    return category, whole[way]


# --- pieces ---


def _margin(box: Box, share: float) -> Box:
    """`box` with `share` of its sides added on every side, inside the image."""
    x1, y1, x2, y2 = box
    across, down = share * (x2 - x1), share * (y2 - y1)
    return max(0.0, x1 - across), max(0.0, y1 - down), min(1.0, x2 + across), min(1.0, y2 + down)


def _widened(box: Box, rng: random.Random) -> Box:
    return _margin(box, rng.uniform(0.05, 0.35))


def _croppable(image: DetectionImage, box: Box) -> bool:
    x1, y1, x2, y2 = unit_to_px(box, image.size_wh)
    return min(x2 - x1, y2 - y1) >= SMALLEST_CROP_PX and area(box) >= SMALLEST_SHARE


def _crowded(instance: Instance, image: DetectionImage) -> bool:
    """Whether much of the object's box is another category's."""
    x1, y1, x2, y2 = instance.box
    for other in image.instances:
        if other.category != instance.category:
            a1, b1, a2, b2 = other.box
            shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if shared > 0.25 * area(instance.box):
                return True
    return False


FAMILIES: Mapping[str, Compose] = {
    "common_object": common_object,
    "region": region,
    "refer_grounding": refer_grounding,
    "group_grounding": group_grounding,
    "object_tracking": object_tracking,
}
"""The families, in the words of MIG-Bench."""
