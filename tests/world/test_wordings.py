"""How the world asks: many ways, none that says something false, unseen ones kept from training, and a page of them."""

from __future__ import annotations

import importlib.util
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from univg.grounding.mentions import decide_image
from univg.grounding.prompts import PUBLISHED_WORDING
from univg.world import (
    ALL_FAMILIES,
    FAMILIES,
    SET_FAMILIES,
    SPLITS,
    Scene,
    cross_image,
    make_sample,
    multi_image,
    sets,
    single_image,
)
from univg.world.descriptions import Description
from univg.world.identity import COLOURS, PATTERNS, Identity
from univg.world.questions import ask, number
from univg.world.scene import Studio, Thing
from univg.world.shapes import SHAPES
from univg.world.wordings import names
from univg.world.wordings.choosing import FILM, NOT_PUBLISHED, ODD_ONE, OWN
from univg.world.wordings.single import MORE_USES

DOCS = Path(__file__).parents[2] / "docs"
PUBLISHED = multi_image.WORDINGS | cross_image.WORDINGS | single_image.WORDINGS | sets.WORDINGS
VALUES = {
    "one": "red star",
    "a": "a red star",
    "many": "red stars",
    "these": "these images",
    "attribute": "colour",
    "instruction": "the one that moves",
    "box": "<|box_start|>(11,22),(333,444)<|box_end|>",
    "ref": "<|object_ref_start|>a red star<|object_ref_end|>",
}
NAMES = pytest.mark.parametrize("name", list(OWN))


def family_of(name: str) -> str:
    return name.partition(",")[0]


def plainly(text: str) -> str:
    """A wording without what typing changes: its capitals and its last point."""
    return text.strip().lower().rstrip(".?!")


def list_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", text.lower())))


@pytest.mark.parametrize("family", list(ALL_FAMILIES))
def test_a_family_asks_in_many_ways(family: str) -> None:
    mine = [name for name in OWN if family_of(name) == family]
    seen = {plainly(line) for name in mine for line in (*OWN[name].seen, *PUBLISHED[name]["seen"])}
    unseen = {plainly(line) for name in mine for line in OWN[name].unseen}
    assert len(seen) >= 36 and len(unseen) >= 6 and not seen & unseen
    lines = [line for name in mine for line in OWN[name].seen]
    questions = [line for line in lines if line.endswith("?")]
    sentences = [line for line in lines if line.endswith(".")]
    phrases = [line for line in lines if line[-1] not in ".?"]
    assert min(len(questions), len(sentences)) >= 6 and len(phrases) >= 3


def test_what_is_asked_of_one_scene_twice_differs() -> None:
    """Of several images, no two families share a wording; of one, a thing by its name may be there or not."""
    lines = Counter(
        plainly(line)
        for name, own in OWN.items()
        if name not in ("absent", "find_all", "implicit", "referring", "group_grounding")
        for line in {plainly(each) for each in own.seen + own.unseen}
    )
    assert lines.most_common(1)[0][1] == 1


def test_unseen_wordings_say_otherwise_what_can_be_known() -> None:
    """Held out as wordings; of their words at most two are new to a model that learnt from the others."""
    phrases = [*OWN.values(), ODD_ONE, *FILM.values()]
    known = {word for each in phrases for line in each.seen for word in list_words(line)}
    known |= {word for each in PUBLISHED.values() for line in each["seen"] for word in list_words(line)}
    uses = {shape: single_image.USES[shape][0] + more for shape, (more, _) in MORE_USES.items()}
    known |= {word for lines in uses.values() for line in lines for word in list_words(line)}
    for line in [line for each in phrases for line in each.unseen]:
        assert len(list_words(line) - known) <= 2, line
    for shape, (_, unseen) in MORE_USES.items():
        assert not set(unseen) & set(uses[shape])
        assert all(len(list_words(line) - known) <= 2 for line in unseen)


@NAMES
def test_wordings_are_filled_in_whole_and_kept_apart(name: str) -> None:
    published = {plainly(line) for line in PUBLISHED[name]["seen"]}
    for split in SPLITS:
        allowed = OWN[name].unseen if split == "unseen" else OWN[name].seen
        asked = []
        for index in range(200):
            studio = Studio(split, 3, index, family_of(name), 0.5, 2)
            text = ask(studio, PUBLISHED, name, **VALUES, **number(index % 6))
            wording = studio.wording
            assert text and not re.search(r"[{}]", text)
            assert wording == PUBLISHED_WORDING or not re.search(r"  |^ | $", text)
            asked.append(wording)
            assert wording == PUBLISHED_WORDING or plainly(str(wording)) in published | set(
                map(plainly, allowed)
            )
            if split == "unseen":
                assert wording in allowed
        if split == "train":  # the most frequent one is the benchmark's own
            firsts = {PUBLISHED_WORDING} if name not in NOT_PUBLISHED else set(PUBLISHED[name]["seen"])
            assert {wording for wording, _ in Counter(asked).most_common(len(firsts))} & firsts
            assert 30 <= sum(wording in firsts for wording in asked) <= 75


def list_cases(family: str) -> list[tuple[int, int, int]]:
    """(images, the one asked for, the place that the wording is filled in with), from 0."""
    if family == "diff":
        return [(2, 0, 0), (2, 1, 1)]
    if family == "video":
        return [(n, 2, 2) for n in (4, 5, 6)]
    if family == "region":
        return [(n, 0, place) for n in (2, 3, 4) for place in range(n - 1)]
    least, most = FAMILIES[family].images
    if family in ("common_object", "group_grounding"):
        return [(n, place, place) for n in range(least, most + 1) for place in range(n)]
    if family in ("object_tracking", "multi_view"):
        return [(n, place, place) for n in range(least, most + 1) for place in range(1, n)]
    return [(2, 1, 1)]


@NAMES
def test_a_wording_that_names_an_image_names_the_one_asked_for(name: str) -> None:
    if family_of(name) not in FAMILIES or FAMILIES[family_of(name)].images == (1, 1):
        return  # one image, or an answer that names its images itself
    told = family_of(name) not in ("diff", "group_grounding")
    for line, (n, target, place) in product(OWN[name].seen + OWN[name].unseen, list_cases(family_of(name))):
        found, rule = decide_image(n, None, line.format(**VALUES, **number(place)))
        assert found == target if rule == "question" else not told, (line, n, place)


@pytest.mark.parametrize("name", list(ALL_FAMILIES))
def test_samples_say_how_they_were_asked(name: str) -> None:
    for split, index in product(SPLITS, range(4)):
        sample = make_sample(name, split, 5, index).sample
        wording = sample.extra["wording"]
        published = [line for key in PUBLISHED if family_of(key) == name for line in PUBLISHED[key]["seen"]]
        forms = published if wording == PUBLISHED_WORDING else [wording]
        patterns = [re.sub(r"\\{\w+\\}", "(.+)", re.escape(plainly(form))) for form in forms]
        assert any(re.fullmatch(pattern, plainly(sample.query)) for pattern in patterns), sample.query
        assert "wording" not in make_sample(name, split, 5, index, version=1).sample.extra


# ---- names -------------------------------------------------------------------------------------------------------


def find_word(text: str, table: Sequence[str], others: dict[str, tuple[str, ...]]) -> str | None:
    """The word of a table, or one that means the same, that a name holds: the longest, so that a cup is no plus."""
    forms = [(form, word) for word in table for form in (word, *others.get(word, ()))]
    held = [(form, word) for form, word in forms if re.search(rf"\b{form}(?:s|es)?\b", text)]
    return max(held, key=lambda pair: len(pair[0]))[1] if held else None


def understand(name: str) -> Description:
    behind = {word: names.PATTERNS.get(word, ()) + names.WITH_PATTERN[word] for word in PATTERNS}
    return Description(
        find_word(name, tuple(SHAPES), names.SHAPES),
        find_word(name, tuple(COLOURS), names.COLOURS),
        find_word(name, PATTERNS, behind),
    )


def test_a_name_fits_one_thing_and_no_other() -> None:
    rng = random.Random(4)
    kinds: Counter[tuple[bool, ...]] = Counter()
    for _ in range(1500):
        shapes, colours = rng.sample(list(SHAPES), 3), rng.sample(list(COLOURS), 3)
        drawn = {
            Identity(rng.choice(shapes), rng.choice(colours), rng.choice(PATTERNS)): None for _ in range(5)
        }
        things = [Thing(identity, 0.5, 0.5, 0.1) for identity in drawn]
        target = rng.choice(things)
        name = names.name_one(rng, target, things)
        meant = understand(name)
        assert [thing for thing in things if meant.matches(thing.identity)] == [target], (name, target)
        kinds[meant.shape is not None, meant.colour is not None, meant.pattern is not None] += 1
    assert len(kinds) >= 5


def test_names_of_several_are_plurals_of_the_same() -> None:
    rng = random.Random(5)
    for _ in range(400):
        described = Description(
            rng.choice([None, *SHAPES]), rng.choice([None, *COLOURS]), rng.choice([None, *PATTERNS[1:]])
        )
        name = names.name_things(rng, described)
        assert understand(name.one) == understand(name.many) == described, name
    described = Description("circle", relation="left of", anchor=Description("star", "red"))
    seen = {names.name_things(rng, described) for _ in range(300)}
    assert (
        names.Name("circle left of the red star", "circles left of the red star") in seen and len(seen) > 10
    )


def test_places_and_relations_are_as_they_look() -> None:
    """By the scene's own geometry: the middle and the edges of what is asked for, and of what it is told from."""
    ways = {"left": (0, -1), "right": (0, 1), "upper": (1, -1), "lower": (1, 1)}
    ways |= {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "lowest": (1, 1)}
    told: Counter[str] = Counter()
    for index in range(400):
        made = make_sample("referring", "train", 6, index)
        sample, scene = made.sample, made.shots[0]
        assert isinstance(scene, Scene)
        if sample.extra["kind"] == "attributes":
            continue
        [target] = [thing for thing in scene.things if scene.box(thing) == sample.boxes[0]]
        rest = [thing for thing in scene.things if thing is not target]
        word, of = read_place(str(sample.thought), sample.extra["kind"])
        told[sample.extra["kind"]] += 1
        if sample.extra["kind"] == "relation":
            assert of.find(scene) == [target]
            assert any(form in sample.query.lower() for form in (word, *names.RELATIONS[word]))
            continue
        forms = (names.SIDES | names.EXTREMES)[word]
        assert any(re.search(form.replace("{}", ".+").strip(), sample.query.lower()) for form in forms)
        rest = [thing for thing in rest if of.matches(thing.identity)]
        mine, others = scene.box(target), [scene.box(thing) for thing in rest]
        if word in ways:
            axis, way = ways[word]
            edge = axis if way < 0 else axis + 2
            assert all(way * (mine[edge] - box[edge]) > 0 for box in others)
        else:
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (mine, *others)]
            assert areas[0] == (max if word == "largest" else min)(areas)
    assert min(told[kind] for kind in ("twins", "extreme", "relation")) > 30


def read_place(thought: str, kind: str) -> tuple[str, Description]:
    """The side, extreme or relation that a thought gives, and what the target is told from."""
    if kind == "twins":
        [side] = re.findall(r"and the (\w+) one is asked for", thought)
        [name] = re.findall(rf"for the {side} ([\w ]+?)\.|The {side} ([\w ]+?) is at", thought)[:1]
        return side, understand("".join(name))
    if kind == "relation":
        relations = "left of|right of|above|below|larger than|smaller than"
        phrase = rf"(?:look for the|\. The) ([\w ]+?) ({relations}) the ([\w ]+?)(?:\.| is at)"
        [(name, relation, anchor)] = re.findall(phrase, thought)
        return relation, replace(understand(name), relation=relation, anchor=understand(anchor))
    [(word, of)] = re.findall(r"The (\w+) of (them|the \w+) is the", thought)
    return word, Description() if of == "them" else understand(of)


def test_the_page_of_all_wordings_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_wordings", DOCS / "make_wordings.py")
    assert spec and spec.loader
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (DOCS / "wordings.md").read_text(encoding="utf-8") == maker.make_page(), (
        "run docs/make_wordings.py"
    )
    assert set(SET_FAMILIES) <= {family_of(name) for name in OWN}


def test_the_page_of_the_world_names_every_thing_it_knows() -> None:
    """What a user may ask the embedded model for, with the words that people use besides."""
    text = " ".join((DOCS / "world.md").read_text("utf-8").split())
    shapes = re.search(r"- Shapes: (.*?)\. Composites: (.*?)\. - Colours: (.*?)\. Patterns: (.*?)\.", text)
    assert shapes is not None
    said = [part.split(", ") for part in shapes.groups()]
    assert [*said[0], *said[1]] == [_with_other_words(name, names.SHAPES) for name in SHAPES]
    assert said[2] == [_with_other_words(name, names.COLOURS) for name in COLOURS]
    assert said[3] == [_with_other_words(name, names.PATTERNS) for name in PATTERNS]


def _with_other_words(name: str, others: dict[str, tuple[str, ...]]) -> str:
    words = [word for word in others.get(name, ()) if name not in word.split(" ")]  # a heart shape is a heart
    return f"{name} ({', '.join(words)})" if words else name
