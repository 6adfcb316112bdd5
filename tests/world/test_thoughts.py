"""The notes that thoughts put beside things: true of the scenes, of exactly the things that the answer rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from univg.grounding.boxes import iou
from univg.world import Scene, WorldSample, make_sample
from univg.world.scene import Thing, place_name

PLACE = r"(?:upper |lower )?(?:left|right)|top|bottom|center"
NOTE = r"new|again|yes|no|gone|upwards|downwards|to the left|to the right"
NAME = r"\ban? ((?:[a-z]+ ){1,2}[a-z]+)"
NOTED = re.compile(rf"{NAME}(?: at the ({PLACE}))?: ({NOTE})(?=[;.]|$)")
PLACED = re.compile(rf"{NAME} at the ({PLACE})")


def drawn(name: str, n: int = 30) -> Iterator[tuple[WorldSample, str, list[Scene]]]:
    for split in ("train", "test", "unseen"):
        for index in range(n):
            made = make_sample(name, split, 4, index)
            yield made, str(made.sample.thought), [shot for shot in made.shots if isinstance(shot, Scene)]


def say(scene: Scene, thing: Thing) -> tuple[str, str]:
    return str(thing), place_name(scene.box(thing))


@pytest.mark.parametrize(
    ("name", "note"),
    [("view_diff", "new"), ("refer_grounding", "again"), ("referring", "yes"), ("reasoning", None)],
)
def test_the_one_thing_that_is_noted_is_the_one_asked_for(name: str, note: str | None) -> None:
    for made, thought, scenes in drawn(name):
        scene = scenes[made.sample.target_image or 0]
        [(named, place, noted)] = NOTED.findall(thought)
        [target] = [thing for thing in scene.things if scene.box(thing) == made.sample.boxes[0]]
        assert (named, place) == say(scene, target), made.sample.source
        assert noted == (note or ("new" if made.sample.extra["kind"] == "missing" else "yes"))


def test_a_difference_is_noted_on_the_side_that_shows_it() -> None:
    told = set()
    for made, thought, scenes in drawn("diff"):
        [(named, place, noted)] = NOTED.findall(thought)
        told.add(noted)
        if noted == "gone":
            [gone] = set(scenes[0].things) - set(scenes[1].things)
            assert named == str(gone) and "Nothing is new" in thought
        else:
            [new] = set(scenes[1].things) - set(scenes[0].things)
            assert (named, place) == say(scenes[1], new)
            assert iou(scenes[1].box(new), made.sample.boxes[0]) > 0.3
    assert told == {"new", "gone"}


def test_what_is_there_again_was_in_all_pictures_before() -> None:
    for made, thought, scenes in drawn("common_object"):
        views = re.findall(r"The \w+ image shows ([^.]+)\.", thought)
        kept = {str(thing) for thing in scenes[0].things}
        for view, scene in zip(views[1:], scenes[1:], strict=True):
            kept &= {str(thing) for thing in scene.things}
            assert {named for named, _, _ in NOTED.findall(view)} == kept, made.sample.source
        assert len(kept) == 1


def test_of_a_group_the_picture_that_shows_it_alone_has_a_note() -> None:
    for made, thought, scenes in drawn("group_grounding"):
        views = re.findall(r"The \w+ image shows ([^.]+)\.", thought)
        [where] = [i for i, view in enumerate(views) if NOTED.search(view)]
        assert where == made.sample.target_image
        [(named, _, noted)] = NOTED.findall(views[where])
        [target] = [t for t in scenes[where].things if scenes[where].box(t) == made.sample.boxes[0]]
        assert (named, noted) == (str(target), "yes")


def test_films_list_both_ends_from_left_to_right_and_note_what_became_of_whom() -> None:
    for made, thought, scenes in drawn("video"):
        first, last = re.findall(r"The (?:first|last) frame shows ([^.]+)\.", thought)
        for view, scene in ((first, scenes[0]), (last, scenes[-1])):
            across = sorted(scene.things, key=lambda thing: sum(scene.box(thing)[::2]))
            assert PLACED.findall(view) == [say(scene, thing) for thing in across]
        before = {thing.identity: thing for thing in scenes[0].things}
        noted = {(named, place): note for named, place, note in NOTED.findall(last)}
        for thing in scenes[-1].things:
            note, old = noted.get(say(scenes[-1], thing)), before.get(thing.identity)
            if old is None:
                assert note == "new"
                continue
            across, down = round(thing.x - old.x, 3), round(thing.y - old.y, 3)
            ways = {
                "to the right": across > 0,
                "to the left": across < 0,
                "downwards": down > 0,
                "upwards": down < 0,
            }
            assert note == next((way for way, holds in ways.items() if holds), None), made.sample.source


@pytest.mark.parametrize(("name", "note"), [("find_all", "yes"), ("absent", "yes"), ("odd_one_out", "no")])
def test_of_a_set_each_member_is_noted_and_nothing_else(name: str, note: str) -> None:
    for made, thought, scenes in drawn(name):
        if made.sample.extra["kind"] == "relation":
            continue
        views = re.findall(r"(?:The image|The \w+ image) shows ([^.]+)\.", thought)
        found = [
            (i, *say(scenes[i], thing))
            for i, box in made.sample.targets
            for thing in scenes[i].things
            if scenes[i].box(thing) == box
        ]
        noted = [
            (i, named, place)
            for i, view in enumerate(views)
            for named, place, said in NOTED.findall(view)
            if said == note
        ]
        assert noted == found, made.sample.source
