"""What thoughts say of several pictures is true of their scenes, thing by thing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from univg.files import EXAMPLES
from univg.grounding.samples import read_jsonl
from univg.world import Scene, WorldSample, make_sample
from univg.world.scene import Thing, place_name

PLACE = r"(?:upper |lower )?(?:left|right)|top|bottom|center"
NAMED = re.compile(rf"\ban? ((?:[a-z]+ ){{1,2}}[a-z]+?)(?: at the ({PLACE}))?(?=[,.]| and |$)")
COMPARED = re.compile(r"shows (?:from another viewpoint )?again ([^.]+), and besides ([^.]+?)(?:\.|, which)")


def drawn(name: str, n: int = 30) -> Iterator[tuple[WorldSample, str, list[Scene]]]:
    for split in ("train", "test", "unseen"):
        for index in range(n):
            made = make_sample(name, split, 4, index)
            yield made, str(made.sample.thought), [shot for shot in made.shots if isinstance(shot, Scene)]


def across(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: sum(scene.box(thing)[::2]))


def names(text: str) -> list[str]:
    return [name for name, _ in NAMED.findall(text)]


def expect(scene: Scene, before: Scene) -> tuple[list[str], list[tuple[str, str]]]:
    """What is there again, as the scene before was named, and what is there besides, with its place."""
    is_of = {str(thing): thing for thing in scene.things}
    again = [str(old) for old in across(before) if str(old) in is_of]
    besides = [(str(t), place_name(scene.box(t))) for t in across(scene) if str(t) not in again]
    return again, besides


@pytest.mark.parametrize("name", ["diff", "view_diff", "reasoning"])
def test_what_is_there_again_is_named_before_what_is_new(name: str) -> None:
    kinds = set()
    for made, thought, scenes in drawn(name):
        compared = COMPARED.findall(thought)
        if name == "reasoning" and made.sample.extra["kind"] != "missing":
            assert not compared
            continue
        kinds.add(made.sample.extra["kind"])
        pairs = [(scenes[1], scenes[0]), (scenes[0], scenes[1])][: len(compared)]
        assert len(compared) == (2 if made.sample.extra["kind"] == "vanishes" else 1)
        for (again, besides), pair in zip(compared, pairs, strict=True):
            kept, new = expect(*pair)
            assert names(again) == kept, made.sample.source
            assert NAMED.findall(besides) == new and bool(new) == (besides != "nothing"), made.sample.source
    assert kinds == {"diff": {"appears", "vanishes", "changes"}, "view_diff": {"appears", "changes"}}.get(
        name, {"missing"}
    )


def test_films_list_both_ends_and_last_of_all_what_moved_or_changed() -> None:
    for made, thought, scenes in drawn("video"):
        views = re.findall(r"The (?:first|last) frame shows ([^.]+)\.", thought)
        where = {thing.identity: (thing.x, thing.y) for thing in scenes[0].things}
        actor = scenes[-1].things[-1]
        if made.sample.extra["kind"] != "direction":
            [changed] = [t for t in scenes[-1].things if where.get(t.identity) != (t.x, t.y)]
            assert changed is actor
        ends = [across(scenes[0]), [*(t for t in across(scenes[-1]) if t is not actor), actor]]
        for view, scene, things in zip(views, (scenes[0], scenes[-1]), ends, strict=True):
            said = [(str(thing), place_name(scene.box(thing))) for thing in things]
            assert NAMED.findall(view) == said, made.sample.source


def test_the_closest_thing_is_it_or_lacks_what_is_said() -> None:
    told = set()
    for made, thought, scenes in drawn("absent"):
        asked = made.sample.extra["asked"]

        def like(thing: Thing, asked: dict[str, str] = asked) -> int:
            return sum(getattr(thing.identity, name) == value for name, value in asked.items())

        [(name, verdict)] = re.findall(r"The closest is the ([a-z ]+) at the [^:]+: that is (\w+)", thought)
        everything: Sequence[Thing] = [thing for scene in scenes for thing in scene.things]
        closest = [thing for thing in everything if str(thing) == name]
        assert like(closest[0]) == max(map(like, everything)), made.sample.source
        assert (verdict == "it") == bool(made.sample.boxes) == (like(closest[0]) == len(asked))
        if verdict != "it":
            [lacking] = re.findall(r"that is (?:no|not) (\w+)\.", thought)
            assert lacking in asked.values() and lacking not in name.split()
        told.add(verdict)
    assert told == {"it", "no", "not"}


def test_parts_do_their_job_by_their_number() -> None:
    """Wheels carry, a trunk carries."""
    for made, thought, _ in drawn("correspondence"):
        said = re.findall(r"the (\w+) of the \w+, which (\w+) .*Its (\w+) (\w+) ", thought)
        assert said, made.sample.source
        for part, verb in zip(said[0][::2], said[0][1::2], strict=True):
            assert part.endswith("s") == (verb == "are" or not verb.endswith("s")), thought


def test_the_bundled_examples_have_the_world_s_thoughts() -> None:
    for sample in read_jsonl(EXAMPLES / "samples.jsonl"):
        split, family, seed, index = str(sample.source).removeprefix("world#v2-").rsplit("-", 3)
        made = make_sample(family, split, int(seed), int(index), size=200).sample
        assert (sample.query, sample.boxes, sample.thought) == (made.query, made.boxes, made.thought)
