"""Families whose answer is a set: what is asked for, and nothing else, by the geometry of the scenes themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from univg.cli import main as cli
from univg.errors import UnivgError
from univg.grounding.mentions import find_images_named
from univg.grounding.prompts import PromptStyle, render_answer
from univg.grounding.reading import Asked, read
from univg.grounding.samples import read_jsonl
from univg.grounding.scoring import score
from univg.world import (
    FAMILIES,
    SET_FAMILIES,
    SPLITS,
    Scene,
    WorldSample,
    list_families,
    make_sample,
    stream,
)
from univg.world.questions import ORDINALS
from univg.world.scene import Identity, Thing, place_name
from univg.world.shapes import SHAPES
from univg.world.wordings import names as words_for
from univg.world.writing import write_world

EVERY = pytest.mark.parametrize("name", list(SET_FAMILIES))
HARD = pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])


def drawn(name: str, difficulty: float = 0.5, n: int = 25, seed: int = 11) -> Iterator[WorldSample]:
    for split in SPLITS:
        for index in range(n):
            yield make_sample(name, split, seed, index, difficulty)


def scenes_of(made: WorldSample) -> list[Scene]:
    return [shot for shot in made.shots if isinstance(shot, Scene)]


def across(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: scene.box(thing)[0] + scene.box(thing)[2])


def looks(asked: Mapping[str, Any], identity: Identity) -> bool:
    return all(asked.get(name) in (None, getattr(identity, name)) for name in ("shape", "colour", "pattern"))


def measure(scene: Scene, thing: Thing) -> dict[str, float]:
    """Where its middle is, and how large it looks (in units of the image's height)."""
    x1, y1, x2, y2 = scene.box(thing)
    width, height = (x2 - x1) * scene.aspect, y2 - y1
    return {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "side": max(width, height), "area": width * height}


def stands(word: str, thing: Mapping[str, float], anchor: Mapping[str, float]) -> bool:
    """Whether it stands so to the anchor: clearly, or clearly not."""
    if word in ("larger than", "smaller than"):
        more, less = (thing, anchor) if thing["area"] > anchor["area"] else (anchor, thing)
        assert more["side"] >= 1.09 * less["side"] and more["area"] >= 1.24 * less["area"]
        return (more is thing) == (word == "larger than")
    axis = "x" if word in ("left of", "right of") else "y"
    assert abs(thing[axis] - anchor[axis]) >= 0.079
    return (thing[axis] < anchor[axis]) == (word in ("left of", "above"))


def find(asked: Mapping[str, Any], scene: Scene) -> list[Thing]:
    fitting = [thing for thing in across(scene) if looks(asked, thing.identity)]
    if "relation" not in asked:
        return fitting
    anchors = [thing for thing in scene.things if looks(asked["anchor"], thing.identity)]
    assert len(anchors) <= 1, "the anchor is not one thing"
    return [
        thing
        for anchor in anchors
        for thing in fitting
        if thing is not anchor and stands(asked["relation"], measure(scene, thing), measure(scene, anchor))
    ]


def say(word: str) -> tuple[str, ...]:
    """All that people say for a word of a description."""
    kinds = (
        words_for.SHAPES,
        words_for.COLOURS,
        words_for.PATTERNS,
        words_for.WITH_PATTERN,
        words_for.RELATIONS,
    )
    return (word, *(form for kind in kinds for form in kind.get(word, ())))


@pytest.mark.parametrize("name", ["find_all", "absent"])
@HARD
def test_every_target_is_what_is_asked_for_and_nothing_else_is(name: str, difficulty: float) -> None:
    for made in drawn(name, difficulty):
        asked, scenes = made.sample.extra["asked"], scenes_of(made)
        expected = [(i, scene.box(thing)) for i, scene in enumerate(scenes) for thing in find(asked, scene)]
        assert made.sample.complete and list(made.sample.targets) == expected, made.sample.source
        words = [value for value in asked.values() if isinstance(value, str)]
        assert all(any(form in made.sample.query.lower() for form in say(word)) for word in words)


@HARD
def test_the_odd_ones_break_the_only_rule_that_most_things_keep(difficulty: float) -> None:
    for made in drawn("odd_one_out", difficulty):
        things = [(i, scene, t) for i, scene in enumerate(scenes_of(made)) for t in across(scene)]
        readings = []
        for attribute in ("colour", "shape", "pattern"):
            values = Counter(getattr(t.identity, attribute) for _, _, t in things)
            for value, number in values.items():
                if len(things) / 2 < number < len(things):
                    readings.append((attribute, value))
        assert readings == [(made.sample.extra["kind"], made.sample.extra["shared"])], made.sample.source
        [(attribute, shared)] = readings
        odd = [(i, scene.box(t)) for i, scene, t in things if getattr(t.identity, attribute) != shared]
        assert (
            list(made.sample.targets) == odd and 1 <= len(odd) <= 3 and len(things) - len(odd) >= len(odd) + 2
        )


NAMED = re.compile(
    r"(?:the|an?) ((?:[a-z]+ ){1,2}[a-z]+) at the ((?:upper |lower )?(?:left|right)|top|bottom|center)"
)


@EVERY
@HARD
def test_thoughts_say_what_each_image_shows_and_where_each_target_is(name: str, difficulty: float) -> None:
    for made in drawn(name, difficulty):
        sample, scenes = made.sample, scenes_of(made)
        thought, n = str(sample.thought), len(scenes)
        conclusion = thought
        for i, scene in enumerate(scenes):
            view = "The image shows " if n == 1 else f"The {ORDINALS[i]} image shows "
            _, _, rest = thought.partition(view)
            told, _, conclusion = rest.partition(".")
            things = across(scene)
            if name != "absent" and sample.extra["kind"] != "relation":
                boxed = [box for at, box in sample.targets if (at or 0) == i]
                fitting = [t for t in things if (scene.box(t) in boxed) == (name == "find_all")]
                things = [*fitting, *(t for t in things if t not in fitting)]
                assert told.startswith("something else: ") == (not fitting)
            shown = [(str(t), place_name(scene.box(t))) for t in things]
            assert NAMED.findall(told) == shown, sample.source
        if sample.extra["kind"] == "relation":
            conclusion = re.split(r"\. (?=I find|There is none)", conclusion)[-1]
        targets = [
            (str(t), place_name(scenes[i].box(t)))
            for i, box in sample.targets
            for t in scenes[i or 0].things
            if scenes[i or 0].box(t) == box
        ]
        if not targets:
            assert "There is no" in conclusion
            continue
        assert NAMED.findall(conclusion) == targets, sample.source
        if n > 1:
            on = re.findall(r"of the (\w+) image", conclusion)
            assert [ORDINALS.index(word) for word in on] == [i for i, _ in sample.targets]
            assert find_images_named(n, conclusion) == {i for i, _ in sample.targets}


@HARD
def test_what_a_relation_is_said_of_is_true_in_every_image(difficulty: float) -> None:
    n = 0
    for made in drawn("find_all", difficulty):
        if made.sample.extra["kind"] != "relation":
            continue
        asked, thought = made.sample.extra["asked"], str(made.sample.thought)
        said = re.findall(
            r"(No [a-z ]+ is there)\.|(?:left|right|above|below|than)(?: of)? it: ([a-z, ]+)\.", thought
        )
        assert len(said) == len(made.shots)
        for (no_anchor, names), scene in zip(said, scenes_of(made), strict=True):
            anchored = any(looks(asked["anchor"], t.identity) for t in scene.things)
            assert bool(no_anchor) != anchored
            if anchored:
                expected = [f"the {t}" for t in find(asked, scene)] or ["none"]
                assert re.split(", | and ", names) == expected
                n += 1
    assert n > 20


@EVERY
def test_the_taught_answer_reads_back_whole(name: str) -> None:
    styles: tuple[PromptStyle, ...] = ("set", "set_direct")
    for made in drawn(name):
        sample = made.sample
        for style in styles:
            reading = read(render_answer(sample, style), Asked.of(sample, style))
            result = score(sample, reading)
            assert reading.fault is None and result.match is not None and result.match.image_f1 == 1
            # Integers 0-1000 round the corners.
            assert result.iou > 0.97 and result.match.f1(0.95) == 1, sample.source
            assert reading.says_none == (not sample.boxes)
            assert style == "set_direct" or reading.thought == sample.thought


def test_none_to_four_are_asked_for_over_one_to_four_images_by_every_kind() -> None:
    samples = [make_sample("find_all", "train", 2, index).sample for index in range(300)]
    counts = Counter(len(sample.boxes) for sample in samples)
    assert set(counts) == set(range(5)) and min(counts.values()) > 35
    assert set(Counter(len(sample.images) for sample in samples)) == {1, 2, 3, 4}
    assert min(Counter(sample.extra["kind"] for sample in samples).values()) > 60
    assert {sample.extra["asked"].get("relation") for sample in samples} > {"left of", "below", "larger than"}
    spread = [sample for sample in samples if len(sample.images) > 1 and sample.boxes]
    uneven = [
        s
        for s in spread
        if len(set(Counter(i for i, _ in s.targets).values())) > 1
        or len({i for i, _ in s.targets}) < len(s.images)
    ]
    assert len(uneven) > 0.8 * len(spread)


def test_no_image_holds_only_what_is_asked_for() -> None:
    """Boxing all that is there is never right."""
    for made in drawn("find_all", 0.0):
        for scene in scenes_of(made):
            assert len(find(made.sample.extra["asked"], scene)) < len(scene.things)


@HARD
def test_half_of_the_absent_are_there_and_nothing_else_tells(difficulty: float) -> None:
    n_things: dict[bool, list[int]] = {True: [], False: []}
    for index in range(200):
        made = make_sample("absent", "train", 6, index, difficulty)
        asked, things = made.sample.extra["asked"], [t for s in scenes_of(made) for t in s.things]
        assert len(made.sample.boxes) <= 1
        n_things[bool(made.sample.boxes)].append(len(things))

        def shared(one: Identity, asked: Mapping[str, Any] = asked) -> int:
            return sum(getattr(one, name) == value for name, value in asked.items())

        near = [t for t in things if shared(t.identity) == len(asked) - 1]
        assert near, "nothing is nearly what is asked for"
    there, not_there = (n_things[found] for found in (True, False))
    assert 75 < len(there) < 125
    assert abs(sum(there) / len(there) - sum(not_there) / len(not_there)) < 0.6


@EVERY
def test_held_out_pairs_are_asked_for_in_unseen_alone(name: str) -> None:
    for index in range(60):
        for split in SPLITS:
            made = make_sample(name, split, 3, index)
            shown = any(t.identity.held_out for scene in scenes_of(made) for t in scene.things)
            asked = made.sample.extra.get("asked", {})
            named = (
                "shape" in asked and "colour" in asked and Identity(asked["shape"], asked["colour"]).held_out
            )
            assert (shown or named) == (split == "unseen")
            targets = [
                t
                for i, box in made.sample.targets
                for t in scenes_of(made)[i or 0].things
                if scenes_of(made)[i or 0].box(t) == box
            ]
            if split == "unseen" and targets:
                assert any(t.identity.held_out for t in targets)


def test_unseen_wordings_never_stand_in_training() -> None:
    def wording(sample: Any) -> str:
        query = re.sub(rf"\b(?:{'|'.join(SHAPES)})(?:e?s)?\b", "THING", sample.query)
        return re.sub(r"\b(?:red|green|blue|yellow|purple|orange|cyan|black|white|an?)\b ?", "", query)

    for name in SET_FAMILIES:
        trained, tested, unseen = (
            {wording(make_sample(name, split, 1, index).sample) for index in range(300)} for split in SPLITS
        )
        assert not trained & unseen and trained & tested


def test_no_image_of_one_split_is_an_image_of_another() -> None:
    expected = {"train": {2, 3}, "test": {0}, "unseen": {1}}
    for name in SET_FAMILIES:
        for made in drawn(name, n=8):
            split = made.sample.source.removeprefix("world#v2-").partition("-")[0]
            assert all(sum(scene.background.tone) % 4 in expected[split] for scene in scenes_of(made))


def test_difficulty_brings_more_things_and_more_that_are_alike() -> None:
    def crowd(name: str, difficulty: float) -> float:
        made = [make_sample(name, "train", 8, index, difficulty) for index in range(80)]
        return sum(len(scene.things) / len(m.shots) for m in made for scene in scenes_of(m)) / len(made)

    assert crowd("find_all", 1.0) > crowd("find_all", 0.0) + 0.5
    assert crowd("absent", 1.0) > crowd("absent", 0.0) + 0.5
    told = [
        sum(
            sample.extra["kind"] in sample.query
            for sample in (make_sample("odd_one_out", "train", 8, i, d).sample for i in range(80))
        )
        for d in (0, 1)
    ]
    assert told[0] > 10 and told[1] == 0


def test_one_sample_to_the_letter() -> None:
    sample = make_sample("find_all", "train", 3, 0, version=1).sample
    assert sample.query == "Which cars do you see in these images? Box them all."
    assert sample.thought == (
        "I need every car. The first image shows something else: a cyan striped pan at the center. The second "
        "image shows a red striped car at the left, and besides a yellow circle at the bottom. The third image shows a "
        "yellow car at the right, and besides an orange ring at the lower left, a yellow circle at the center. I find "
        "the red striped car at the left of the second image and the yellow car at the right of the third image: two."
    )
    assert render_answer(sample, "set_direct") == "Image-2: (80,392),(500,676); Image-3: (689,483),(979,671)"


# ---- by name ----------------------------------------------------------------------------------------------------


def test_sets_are_drawn_where_they_are_named_and_nowhere_else() -> None:
    assert not FAMILIES.keys() & SET_FAMILIES.keys()
    assert list_families() == tuple(FAMILIES) and list_families(["sets"]) == tuple(SET_FAMILIES)
    assert [made.sample.task for made in islice(stream(), len(FAMILIES))] == list(FAMILIES)
    assert [made.sample.task for made in islice(stream(families=["sets", "diff"]), 5)] == [
        *SET_FAMILIES,
        "diff",
        "find_all",
    ]
    with pytest.raises(ValueError, match=r"choose from diff.*odd_one_out"):
        make_sample("find_al")


def test_the_command_writes_sets_and_draws_each_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    arguments = ["world", "--family", "sets", "--n", "9", "--size", "64", "--out", str(out)]
    assert cli.main(arguments) == 0
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert [sample.task for sample in samples] == list(SET_FAMILIES) * 3
    assert all(sample.complete for sample in samples) and {bool(s.boxes) for s in samples} == {True, False}
    assert all((out / name).is_file() for sample in samples for name in sample.images)
    assert (out / "contact-sheet.png").stat().st_size > 10_000
    assert cli.main([*arguments, "--seed", "1"]) == 0  # what lies there is known as ours
    assert cli.main(["world", "--family", "find_al", "--out", str(tmp_path / "x")]) == 2
    assert "did you mean 'find_all'" in capsys.readouterr().err
    with pytest.raises(UnivgError, match="no such task family"):
        write_world(tmp_path / "y", 1, families=["set"])
