"""What a run may vary: what is left open, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from univg.config import load_config
from univg.construct.config import ConstructConfig, Plan
from univg.construct.verify import Rules
from univg.errors import UnivgError

SERVED = {"teacher": "openai:m", "base_url": "http://127.0.0.1:9/v1"}
OPEN: list[tuple[dict[str, Any], Plan, str | None]] = [
    ({"teacher": "world"}, Plan(1, True, False, max_new_tokens=256), None),
    ({"teacher": "embedded"}, Plan(3, True, False, max_new_tokens=256), None),
    ({"teacher": "embedded", "judge": "same"}, Plan(3, True, False, max_new_tokens=256), "embedded"),
    ({"teacher": "embedded", "truth": "shown"}, Plan(3, True, True, max_new_tokens=256), None),
    (SERVED, Plan(), "openai:m"),
    (SERVED | {"judge": "none", "chains": 1}, Plan(1, temperature=0.0), None),
    (SERVED | {"judge": "embedded", "together": True}, Plan(together=True), "embedded"),
    (SERVED | {"truth": "hidden", "temperature": 0.5}, Plan(shown=False, temperature=0.5), "openai:m"),
    (SERVED | {"min_words": 3, "copies": 0}, Plan(rules=Rules(min_words=3, copies=0.0)), "openai:m"),
    (SERVED | {"max_new_tokens": 9, "sampling_seed": 4}, Plan(max_new_tokens=9, seed=4), "openai:m"),
]


@pytest.mark.parametrize(("values", "plan", "judge"), OPEN)
def test_what_is_left_open_is_as_the_teacher_wants_it(
    values: dict[str, Any], plan: Plan, judge: str | None
) -> None:
    config = ConstructConfig(out=Path("out"), **values)
    assert config.plan == plan and config.judge_name == judge


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"teacher": "world", "judge": "world"}, "the world judges nothing: --judge world: name another judge"),
    ({"teacher": "world", "judge": "same"}, "the world judges nothing: --judge same: leave it out"),
    (
        {"teacher": "embedded", "data": __file__},
        f"a teacher must see the images: --data {__file__}: give --images",
    ),
    ({"teacher": "world", "images": "no/such"}, "no such folder: --images no/such: name the folder"),
    ({"teacher": "openai:"}, "no address: --teacher openai:: give --base-url"),
    ({"teacher": "world", "judge": "openai:j"}, "no address: --judge openai:j: give --base-url"),
    (SERVED | {"field": ["stream=true"]}, "messages, model and stream are ours: --field: leave them out"),
    (SERVED | {"field": ["x="]}, "not NAME=JSON: --field x=: write it as"),
    (SERVED | {"budget_cost": 1}, "a budget in money needs prices: --budget-cost: give --price-in"),
]


@pytest.mark.parametrize(("values", "told"), REFUSED)
def test_what_cannot_be_done_is_refused(values: dict[str, Any], told: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UnivgError) as error:
        ConstructConfig(out=Path("out"), **values)
    assert str(error.value).startswith(told)


def test_each_has_its_own_server(monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://env/v1")
    config = ConstructConfig(out=Path("out"), teacher="openai:m", judge_url="http://judge/v1")
    assert (config.find_url("--teacher"), config.find_url("--judge")) == ("http://env/v1", "http://judge/v1")


def test_it_is_read_from_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "teacher: openai:m\nbase_url: http://a/v1\nfield: ['top_k=4', 'seed=null']\n"
    )
    config = load_config(ConstructConfig, tmp_path / "run.yaml", ["out=x", "task=[diff]"])
    assert config.fields == {"top_k": 4, "seed": None} and config.task == ("diff",)


def test_it_loads_no_torch() -> None:
    made = "from univg.construct.config import ConstructConfig as C; C(teacher='world', out='x')"
    program = f"import sys; {made}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
