"""Families of sets by name, wherever a family of the world is named: data sets, benchmarks, training, construction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from univg.construct.config import ConstructConfig
from univg.data.dataset import Dataset, reopen_pictures
from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_world
from univg.grounding.prompts import SET_DIRECT_SUFFIX, SET_SUFFIX, render_answer, render_response
from univg.training.config import DataSource, Phase, SftConfig
from univg.training.pretrain.batches import render_dialogue, spell_out
from univg.training.run.prechecks import check_stage
from univg.training.run.sources import open_sources
from univg.world import FAMILIES, SET_FAMILIES, make_sample

SETS = list(SET_FAMILIES)


def test_data_sets_of_the_world() -> None:
    data = Dataset.from_world(4, families=["sets"], size=64)
    items = list(data.items())
    assert [item.sample.task for item in items] == [*SETS, SETS[0]]
    row = {"task": items[1].sample.task, "source": items[1].sample.source}
    assert [one.tobytes() for one in reopen_pictures(row, data.origin)] == [
        one.tobytes() for one in items[1].pictures()
    ]


def test_benchmarks_hold_sets_only_where_they_are_asked_for() -> None:
    default = open_world("world", 1)
    assert [item.sample.task for item in default.items()] == list(FAMILIES)
    asked = open_world("world", 1, tasks=["sets", "diff"])
    assert [item.sample.task for item in asked.items()] == ["diff", *SETS]
    # A run of one-box families is extended by others of them, as ever; sets drawn otherwise are other data.
    assert open_world("world", 1, tasks=["diff"]).digest == default.digest != asked.digest
    with pytest.raises(UnivgError, match=r"no task 'find_al' in this benchmark.*find_all"):
        open_world("world", 1, tasks=["find_al"])


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (("sets",), {*SETS}),
        (("absent", "diff"), {"absent", "diff"}),
        ({"sets": 3.0, "diff": 1.0}, {*SETS, "diff"}),
        (None, {*FAMILIES}),
    ],
)
def test_training(families: Any, expected: set[str]) -> None:
    config = SftConfig(data=(DataSource(families=families, image_px=56),))
    [source] = open_sources(config, teach=True)
    drawn = Counter(source.data.item(k).sample.task for k in range(200))
    assert set(drawn) == expected
    if isinstance(families, dict):  # a quarter
        assert 20 < drawn["diff"] < 80


def test_training_checks_names_before_it_begins() -> None:
    with pytest.raises(
        UnivgError, match=r"data.0.families: no task family 'find_al': did you mean 'find_all'"
    ):
        check_stage(SftConfig(data=(DataSource(families=("sets", "find_al")),)))


def test_pretraining_teaches_sets_in_their_own_style() -> None:
    mixture = spell_out(Phase(name="a", steps=1, mixture={"sets/think": 3.0, "absent/direct": 1.0}))
    assert mixture == {**{(name, "think"): 1.0 for name in SETS}, ("absent", "direct"): 1.0}
    assert len(spell_out(Phase(name="a", steps=1, mixture={"*/think": 1.0}))) == len(FAMILIES)
    with pytest.raises(UnivgError, match="odd_one_out"):
        spell_out(Phase(name="a", steps=1, mixture={"find_al/think": 1.0}))
    made = make_sample("find_all", index=1)
    for style, suffix, taught in (("think", SET_SUFFIX, "set"), ("direct", SET_DIRECT_SUFFIX, "set_direct")):
        chat, answer = render_dialogue(made, style)
        assert chat[0]["content"][-1]["text"] == made.sample.query + suffix
        assert answer == render_answer(made.sample, taught)  # type: ignore[arg-type]
    one = make_sample("diff")
    assert render_dialogue(one, "think")[1] == render_response(one.sample.boxes[0], one.sample.thought)


def test_construction(tmp_path: Path) -> None:
    assert ConstructConfig(out=tmp_path, data="world", teacher="world", task=("sets", "diff")).task == (
        "sets",
        "diff",
    )
    with pytest.raises(UnivgError, match="no such task family: --task find_al"):
        ConstructConfig(out=tmp_path, data="world", teacher="world", task=("find_al",))
