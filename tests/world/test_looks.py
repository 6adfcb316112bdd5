"""Version 2 of the world: many looks, boxes that stay exact, names of colours that a person agrees with."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from PIL import Image, ImageChops

from univg.data.dataset import Dataset, reopen_pictures
from univg.world import ALL_FAMILIES, SIZES, TRAINED_SIZES, Scene, make_sample
from univg.world.dressing import ONE_LOOK
from univg.world.identity import COLOURS, Identity
from univg.world.looks import FINISHES, GREYS, HUES, RGB, TYPED, Finish, Look, contrast, draw_palette
from univg.world.render import render
from univg.world.scene import Background, Thing
from univg.world.shapes import SHAPES
from univg.world.wider import LEAST_PX

PAPER = Background((255, 255, 252), (255, 255, 252), "flat", 0)


def scenes(family: str, n: int, **settings: object) -> list[list[Scene]]:
    made = (make_sample(family, "train", 11, index, **settings) for index in range(n))  # type: ignore[arg-type]
    return [[shot for shot in one.shots if isinstance(shot, Scene)] for one in made]


def difference(one: Image.Image, other: Image.Image) -> Image.Image:
    red, green, blue = ImageChops.difference(one, other).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


# ---- what is drawn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("finish", FINISHES)
def test_a_box_is_the_extent_of_what_is_painted_in_every_look(finish: Finish, smooth: bool) -> None:
    """Strokes count, hand-drawn ones too. Anti-aliased, a pixel that is covered by half a pixel or less is tinted."""
    for number, shape in enumerate(SHAPES):
        rng = random.Random(f"{finish} {shape}")
        at = [rng.uniform(0.4, 0.6) for _ in range(2)]
        thing = Thing(Identity(shape, "red"), *at, rng.choice((0.1, 0.2, 0.33)), rng.uniform(-0.3, 0.3))
        look = Look(rng.choice((90, 160)), dict(TYPED[0]), finish, smooth, rim_share=0.08, seed=number)
        scene = Scene((thing,), PAPER, look=look, aspect=rng.choice((1, 1.5, 0.6)))
        changed = difference(render(scene), render(replace(scene, things=())))
        least = 0.2 * changed.getextrema()[1]  # type: ignore[operator]
        found = changed.point([255 if level >= least else 0 for level in range(256)]).getbbox()
        width, height = changed.size
        exact = [side * length for side, length in zip(scene.box(thing), (width, height) * 2, strict=True)]
        assert found is not None
        assert max(abs(a - b) for a, b in zip(found, exact, strict=True)) <= (1.0 if smooth else 0.51), shape


def test_every_thing_can_be_seen_on_its_ground() -> None:
    """Take it away, and the picture changes clearly where it was: along its line at least.

    One in a hundred may not: the grey rim of a small black thing on a ground of middling grey can cover all of it.
    """
    unseen, things = [], 0
    for family in ("referring", "find_all"):
        for shots in scenes(family, 25, size=150):
            for scene in shots:
                assert scene.look is not None
                clean = replace(scene, look=replace(scene.look, noise=0, quality=0, tones=0, blur=0.0))
                for i, thing in enumerate(scene.things):
                    # Those that lie on top of it are gone too.
                    below = replace(clean, things=scene.things[:i])
                    changed = difference(render(replace(clean, things=scene.things[: i + 1])), render(below))
                    x1, y1, x2, y2 = scene.box(thing)
                    area = (x2 - x1) * (y2 - y1) * changed.size[0] * changed.size[1]
                    clear = sum(changed.histogram()[40:])
                    things += 1
                    if clear <= 0.12 * area:
                        unseen.append((family, str(thing), scene.look, scene.background))
    assert len(unseen) <= 0.01 * things, unseen
    assert all(thing.startswith("black") for _, thing, *_ in unseen), unseen


def test_a_circle_of_lines_alone_never_meets_a_ring() -> None:
    met = 0
    for family in ("referring", "absent", "common_object"):
        for index in range(60):
            made = make_sample(family, "train", 3, index)
            shots = [shot for shot in made.shots if isinstance(shot, Scene)]
            hollow = any(shot.look is not None and shot.look.finish == "lines" for shot in shots)
            rings = any(thing.identity.shape == "ring" for shot in shots for thing in shot.things)
            met += hollow
            assert not (hollow and (rings or " ring" in made.sample.query))
    assert met > 5


def test_noise_jpeg_blur_and_few_tones_change_a_picture_and_not_its_scene() -> None:
    look = Look(120, dict(TYPED[0]))
    thing = Thing(Identity("star", "blue"), 0.5, 0.5, 0.3)
    plain = render(Scene((thing,), PAPER, look=look))
    for worn in ({"noise": 20}, {"quality": 30}, {"blur": 0.8}, {"scribbles": 5, "seed": 1}, {"labels": 3}):
        other = render(Scene((thing,), PAPER, look=replace(look, **worn)))  # type: ignore[arg-type]
        assert other.size == plain.size and other.tobytes() != plain.tobytes(), worn
    few = render(Scene((thing,), PAPER, look=replace(look, tones=8)))
    assert len(few.getcolors(2**20)) <= 8 < len(plain.getcolors(2**20))


# ---- colours -----------------------------------------------------------------------------------------------------


def test_no_colour_is_near_one_of_another_name() -> None:
    rng = random.Random(0)
    drawn: dict[str, list[RGB]] = {name: [] for name in COLOURS}
    for _ in range(120):
        for name, colour in draw_palette(rng).items():
            drawn[name].append(colour)
    names = list(drawn)
    assert set(names) == {*HUES, *GREYS}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert min(contrast(a, b) for a in drawn[one] for b in drawn[other]) > 70, (one, other)
    # Each over a range: light and dark ones of a name are farther apart than some neighbours are.
    for name in ("red", "green", "blue", "purple"):
        assert max(contrast(a, b) for a in drawn[name] for b in drawn[name]) > 200


# ---- how often ---------------------------------------------------------------------------------------------------


def test_sizes_aspects_and_things_take_their_whole_range() -> None:
    drawn = [shots[0] for shots in scenes("referring", 400, size=SIZES, difficulty=0.7)]
    sides = [scene.look.longest for scene in drawn if scene.look]
    assert (
        min(sides) >= 60
        and max(sides) <= 1000
        and sum(side < 150 for side in sides) > 80 < sum(side > 400 for side in sides)
    )
    aspects = [scene.aspect for scene in drawn]
    assert 1 / 3 - 0.01 <= min(aspects) < 0.45 and 2.2 < max(aspects) <= 3.01
    heights = [2 * thing.extent for scene in drawn for thing in scene.things]
    assert min(heights) < 0.07 and max(heights) > 0.7
    for scene in drawn:
        short = min(scene.aspect, 1 / scene.aspect) * scene.look.longest  # type: ignore[union-attr]
        assert all(
            2 * thing.extent * short >= min(LEAST_PX["simple"], 0.26 * short) - 0.1 for thing in scene.things
        )


def test_a_plain_drawing_is_the_most_frequent_look() -> None:
    drawn = [shots[0] for shots in scenes("referring", 200)]
    looks = [(scene.look, scene.background.kind) for scene in drawn]
    plain = [
        look for look, kind in looks if look and kind == "flat" and look.finish == "flat" and not look.noise
    ]
    assert len(plain) > 0.25 * len(drawn)
    assert {look.finish for look, _ in looks if look} == set(FINISHES)
    assert len({kind for _, kind in looks}) == 7


@pytest.mark.parametrize("family", sorted(ONE_LOOK - {"region"}))
def test_pictures_that_are_compared_have_one_look(family: str) -> None:
    for shots in scenes(family, 12):
        looks = [replace(scene.look, grain=0) for scene in shots if scene.look]
        assert len(looks) == len(shots) and all(look == looks[0] for look in looks)
        assert len({scene.background for scene in shots}) == 1


def test_other_pictures_of_one_question_share_a_look_or_have_their_own() -> None:
    shared = [len({scene.background for scene in shots}) == 1 for shots in scenes("common_object", 40)]
    assert 3 < sum(shared) < 37


def test_it_draws_100_pictures_of_training_a_second_on_one_core() -> None:
    """On an idle core it is three times as many; see docs/world.md."""
    started = time.process_time()
    for name in ALL_FAMILIES:
        for index in range(4):
            make_sample(name, "train", 0, index, size=TRAINED_SIZES).draw()
    assert 4 * len(ALL_FAMILIES) / (time.process_time() - started) > 100


# ---- by name -----------------------------------------------------------------------------------------------------


def test_kept_results_draw_their_pictures_again() -> None:
    for version, size in ((2, None), (2, 90), (2, (70, 80)), (1, None)):
        data = Dataset.from_world(3, "test", 2, ("diff", "region"), size=size, version=version)
        item = data.item(2)
        row = {"task": item.sample.task, "source": item.sample.source, "images": item.sample.images}
        origin = {**data.origin, "size_px": list(size) if isinstance(size, tuple) else data.origin["size_px"]}
        again = [image.tobytes() for image in reopen_pictures(row, origin)]
        assert again == [image.tobytes() for image in item.pictures()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 3}, "world version 3: choose from 1, 2"),
        ({"size": (90, 60)}, "the least and the greatest"),
        ({"size": (60, 90), "version": 1}, "give one number"),
        ({"split": "drawn", "version": 1}, "newer than world version 1"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sample("diff", **settings)  # type: ignore[arg-type]
