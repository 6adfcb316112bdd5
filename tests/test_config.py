"""Configs: what wins over what, and that every fault is one line naming its place and its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from univg.cli.presets import PRESETS
from univg.config import Config, find_config, load_config, save_config
from univg.errors import UnivgError
from univg.training.config import PretrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"


class Optimizer(Config):
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"


class Stage(Config):
    steps: int
    mixture: dict[str, float] = Field({})


class Run(Config):
    name: str = "run"
    seed: int = 0
    images: Path | None = None
    optimizer: Optimizer = Optimizer(weight_decay=0.1)
    stages: tuple[Stage, ...] = (Stage(steps=5),)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_then_the_base_then_the_file_then_the_overrides(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "name: base\nseed: 1\noptimizer: {lr: 0.5, schedule: constant}\n")
    path = write(tmp_path, "run.yaml", "extends: base.yaml\nname: top\noptimizer:\n  lr: 1e-4\n")
    run = load_config(Run, path, ["seed=7", "stages.0.steps=9", "stages.0.mixture.diff=.5"])
    assert (run.name, run.seed) == ("top", 7)
    assert run.optimizer == Optimizer(lr=1e-4, schedule="constant", weight_decay=0.1)
    assert run.stages == (Stage(steps=9, mixture={"diff": 0.5}),)


def test_a_key_in_a_nested_default_leaves_its_neighbours_alone() -> None:
    assert load_config(Run, overrides=["optimizer.lr=1"]).optimizer == Optimizer(lr=1, weight_decay=0.1)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(Run, write(tmp_path, "empty.yaml", "# nothing yet\n")) == Run()


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Run().seed = 1  # type: ignore[misc]


FAULTY_OVERRIDES = {  # override -> how what is said of it begins
    "optimizer.lrr=1": "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?",
    "lr=1": "unknown key 'lr'; did you mean 'optimizer.lr'?",
    "stages.0.stepz=1": "unknown key 'stages.0.stepz'; did you mean 'stages.0.steps'?",
    "qqq=1": "unknown key 'qqq'; known: name, seed, images, optimizer, optimizer.lr, ",
    "optimizer.schedule=step": "optimizer.schedule: Input should be 'cosine' or 'constant', got 'step'",
    "optimizer.lr=-1": "optimizer.lr: Input should be greater than 0, got -1",
    "optimizer.lr=.inf": "optimizer.lr: Input should be a finite number, got inf",
    "seed=two": "seed: Input should be a valid integer",
    "seed.x=1": "seed: Input should be a valid integer",
    "stages.3.steps=1": "'stages' is [{'steps': 5, 'mixture': {}}], which has no '3'",
    "seed": "write it as key=value, with dots between nested keys",
    ".=1": "write it as key=value, with dots between nested keys",
    "seed=[1": "not a YAML value: ",
}


@pytest.mark.parametrize(("override", "said"), FAULTY_OVERRIDES.items())
def test_a_faulty_override_is_quoted(override: str, said: str) -> None:
    with pytest.raises(UnivgError) as caught:
        load_config(Run, overrides=[override])
    assert str(caught.value).startswith(f"override {override!r}: {said}")
    assert "\n" not in str(caught.value)


FAULTY_FILES = {  # text -> the line that is named, and a part of what is said
    "seed: 1\noptimiser:\n  lr: 1\n": (2, "unknown key 'optimiser'; did you mean 'optimizer'?"),
    "optimizer:\n  lr: 1\n  decay: 0\n": (
        3,
        "unknown key 'optimizer.decay'; did you mean 'optimizer.weight_decay'?",
    ),
    "seed: 1\nname: 3\n": (2, "name: Input should be a valid string, got 3"),
    "stages:\n  - steps: 1\n  - mixture: {}\n": (3, "'stages.1.steps' has no default and must be given"),
    "seed: 1\nseed: 2\n": (2, "'seed' twice"),
    "seed: [1\n": (2, "not YAML"),
    "\nextends: nowhere.yaml\n": (2, "extends 'nowhere.yaml': no such config file"),
    "extends: [a.yaml]\n": (1, "'extends' names one file"),
    "- 1\n": (None, "a config is a mapping"),
    "stages: &s [*s]\n": (None, ""),
}


@pytest.mark.parametrize(("text", "expected"), FAULTY_FILES.items())
def test_a_faulty_file_is_named_with_its_line(
    tmp_path: Path, text: str, expected: tuple[int | None, str]
) -> None:
    path = write(tmp_path, "run.yaml", text)
    line, part = expected
    with pytest.raises(UnivgError) as caught:
        load_config(Run, path)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else str(path))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_fault_has_its_own_line(tmp_path: Path) -> None:
    path = write(tmp_path, "run.yaml", "seed: x\nnaem: y\n")
    with pytest.raises(UnivgError) as caught:
        load_config(Run, path, ["optimizer.lr=0"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("base", ["tiny-base", "tiny-base.yaml"])
def test_a_file_of_ones_own_extends_a_preset_by_its_name(tmp_path: Path, base: str) -> None:
    path = write(tmp_path, "mine.yaml", f"extends: {base}\nbatch: 7\n")
    mine, preset = load_config(PretrainConfig, path), load_config(PretrainConfig, "tiny-base")
    assert mine == preset.model_copy(update={"batch": 7})


def test_a_file_that_is_not_text_or_extends_itself(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnivgError, match=r"run\.yaml: cannot be read"):
        load_config(Run, path)
    write(tmp_path, "run.yaml", "extends: other.yaml\n")
    write(tmp_path, "other.yaml", "extends: run.yaml\n")
    with pytest.raises(UnivgError, match="extends itself"):
        load_config(Run, path)


def test_a_missing_file_and_an_unknown_preset() -> None:
    with pytest.raises(UnivgError, match=r"^nowhere/run\.yaml: no such config file$"):
        load_config(Run, "nowhere/run.yaml")
    with pytest.raises(UnivgError, match=r"^no preset named 'nothing-like-it'; "):
        find_config("nothing-like-it")


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ["1e3", "null", "on", "~"]
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.builds(
    Run,
    name=TEXTS,
    seed=st.integers(),
    images=st.sampled_from([None, Path("a b/c")]),
    optimizer=st.builds(Optimizer, lr=FLOATS.filter(lambda lr: lr > 0), weight_decay=FLOATS),
    stages=st.lists(
        st.builds(Stage, steps=st.integers(), mixture=st.dictionaries(TEXTS, FLOATS, max_size=2)), max_size=2
    ).map(tuple),
)


@given(run=RUNS)
def test_what_is_saved_loads_equal(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    path = tmp_path_factory.getbasetemp() / "saved" / "run.yaml"
    save_config(run, path)
    assert load_config(Run, path) == run
    assert [file.name for file in path.parent.iterdir()] == ["run.yaml"]


def test_every_preset_file_is_declared_and_loads() -> None:
    assert sorted(PRESETS) == sorted(file.stem for file in CONFIGS.glob("*.yaml"))
    for name, cls in PRESETS.items():
        assert find_config(name).parent == CONFIGS
        load_config(cls, name)
