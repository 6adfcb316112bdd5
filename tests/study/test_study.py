"""The study's rows, tables and pictures, and the whole command at its smallest size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.cli.main import main
from univg.cli.study import StudyCommand
from univg.config import load_config
from univg.errors import UnivgError
from univg.grounding.samples import read_jsonl
from univg.report.tables import render_markdown
from univg.study.config import StudyConfig
from univg.study.rows import (
    ARMS,
    CLAIMS,
    choose_arms,
    configure_stage,
    fingerprint,
    list_stages,
    read_rows,
    write_row,
)
from univg.study.tables import average_accuracy, build_study_tables, format_over_seeds, write_pictures
from univg.study.thoughts import SOURCES
from univg.training.config import GrpoConfig, SftConfig


def row(arm: str, seed: int, test: float, unseen: float, n: int = 20) -> dict[str, Any]:
    """A row whose shares of hits are `test` and `unseen` in each of two families."""

    def ious(share: float) -> dict[str, list[float]]:
        hits = round(share * n)
        return {family: [0.8] * hits + [0.1] * (n - hits) for family in ("diff", "region")}

    curve = [
        {
            "step": step,
            "iou": 0.3 + step / 100,
            "format": 0.9,
            "length": 50,
            "easy": 0.2,
            "medium": 0.5,
            "hard": 0.3,
        }
        for step in range(1, 31)
    ]
    return {
        "arm": arm,
        "seed": seed,
        "fingerprint": "f",
        "ious": {"world": ious(test), "world_unseen": ious(unseen)},
        "faults": {"world": 0.05, "world_unseen": 0.1},
        "stages": [{"name": name, "steps": 10, "samples": 80, "seconds": 60.0} for name in ARMS[arm].stages],
        "curve": curve if ARMS[arm].stages[-1:] and "grpo" in ARMS[arm].stages[-1] else [],
    }


ROWS = [
    row(arm, seed, share + seed / 20, share - 0.2)
    for arm, share in (("base", 0.3), ("cot-sft", 0.5), ("cot-sft-grpo", 0.75), ("cot-sft-grpo-exp", 0.75))
    for seed in (0, 1)
]


def markdown(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(render_markdown, build_study_tables(rows)))


def line(text: str, start: str) -> list[str]:
    return [
        cell.strip()
        for cell in next(x for x in text.splitlines() if x.startswith(f"| {start}")).split("|")[1:-1]
    ]


def test_a_table_states_the_mean_over_seeds_and_its_interval() -> None:
    # 30 and 35: mean 32.5, standard error 2.5, t with one degree of freedom 12.71
    assert line(markdown(ROWS), "base")[1:] == ["2", "32.5 ± 31.8", "10.0 ± 0.0", "32.8", "5.0 %"]


def test_a_claim_holds_only_where_the_interval_over_samples_excludes_zero() -> None:
    text = markdown(ROWS)
    assert line(text, "RL adds to the cold start")[-1] == "holds"
    assert line(text, "Difficulty weights (exp)")[1:] == ["2", "0.0 ± 0.0", "+0.0 to +0.0", "not shown"]
    assert "Reasoning beats answering" not in text, "an arm that has not run makes no claim"


def test_a_claim_of_one_seed_is_marked() -> None:
    rows = [row("cot-sft", 0, 0.2, 0.2), row("cot-sft-grpo", 0, 0.9, 0.9)]
    assert line(markdown(rows), "RL adds to the cold start")[-1] == "holds, one seed"


def test_a_claim_that_another_run_might_not_repeat_is_said() -> None:
    rows = [row("cot-sft", 0, 0.2, 0.2), row("cot-sft", 1, 0.55, 0.5)]
    rows += [row("cot-sft-grpo", 0, 0.9, 0.9), row("cot-sft-grpo", 1, 0.5, 0.5)]
    assert line(markdown(rows), "RL adds to the cold start")[-1] == "holds, not over seeds"


def test_a_question_asked_of_more_seeds_is_no_further_question() -> None:
    seeds = [
        row(arm, seed, share, share)
        for arm, share in (("cot-sft", 0.4), ("cot-sft-grpo", 0.55))
        for seed in range(5)
    ]
    one = [each for each in seeds if each["seed"] == 0]
    [asked_once, asked_five_times] = (
        line(markdown(rows), "RL adds to the cold start") for rows in (one, seeds)
    )
    assert asked_once[3] == asked_five_times[3], "the same answers to the same questions, five times"


def test_what_a_last_stage_did_to_each_family_is_a_table() -> None:
    before, after = row("cot-sft", 0, 0.5, 0.5), row("cot-sft-grpo", 0, 0.5, 0.5)
    after["ious"]["world"]["region"] = [0.9] * 20  # 10 of 20 before
    text = markdown([before, after]).partition("What an arm's last stage did")[2]
    assert line(text, "family")[1:] == ["CoT-SFT + GRPO"], "nothing comes before the cold start here"
    assert line(text, "diff")[1:] == ["+0.0 (+0.0 to +0.0)"]
    gain, low, high = (float(number) for number in re.findall(r"[+-][\d.]+", line(text, "region")[1]))
    assert gain == 50 and 20 < low < 50 < high < 80


def test_whether_rollouts_got_better_is_a_table() -> None:
    text = markdown(ROWS).partition("Mean IoU × 100 of rollouts")[2]
    # steps 1 to 6 of 30 against 25 to 30, of both seeds alike: 0.3 + step / 100
    assert line(text, "CoT-SFT + GRPO ")[1:5] == ["33.5", "57.5", "24.0 ± 0.0", "90.0 %"]
    taught = row("cot-sft", 0, 0.5, 0.5) | {"curve": [{"step": 1, "loss": 0.7}]}
    assert "of rollouts" not in markdown([taught, row("base", 0, 0.3, 0.3)]), "none without GRPO"


def test_pictures_show_what_there_is(tmp_path: Path) -> None:
    assert [path.name for path in write_pictures(ROWS, tmp_path)] == ["arms.png", "curves.png", "shares.png"]
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 400
    assert [path.name for path in write_pictures(ROWS[:2], tmp_path)] == ["arms.png"], "no curves without RL"


def test_average_is_over_families_not_samples() -> None:
    uneven = row("base", 0, 0.0, 0.0)
    uneven["ious"]["world"] = {"diff": [0.9] * 30, "region": [0.1] * 10}
    assert average_accuracy(uneven, "world") == 50.0
    assert format_over_seeds([10.0, 10.0, 10.0]) == "10.0 ± 0.0"


def test_rows_are_read_back_in_the_tables_order(tmp_path: Path) -> None:
    for one in reversed(ROWS):
        write_row(tmp_path / f"{one['arm']}-seed{one['seed']}.json", one)
    assert [(one["arm"], one["seed"]) for one in read_rows(tmp_path)] == [
        (one["arm"], one["seed"]) for one in ROWS
    ]
    (tmp_path / "base-seed0.json").write_text("{torn")
    with pytest.raises(UnivgError, match=r"not a row.*base-seed0.json: delete it"):
        read_rows(tmp_path)


def test_arms_of_a_seed_see_the_same_data_and_stages_see_different_data() -> None:
    config = StudyConfig()
    stages = {stage for name in choose_arms(config) for stage in ARMS[name].stages}
    made = {stage: configure_stage(config, stage, 3, "m") for stage in stages}
    second = {stage: c for stage, c in made.items() if stage.startswith("grpo-") or stage == "more-sft"}
    first = {stage: c for stage, c in made.items() if stage not in second}
    assert {c.data[0].seed for c in first.values()} == {6} and {c.data[0].seed for c in second.values()} == {
        7
    }
    assert all(c.seed == 3 and c.model == "m" for c in made.values())
    sft = made["sft-answers"], made["sft-thoughts"]
    assert all(isinstance(c, SftConfig) for c in sft)
    same = [c.model_dump(exclude={"prompt_style"}) for c in sft]
    assert same[0] == same[1], "the arms with and without thinking differ in nothing else"
    weightings = {c.weighting for c in made.values() if isinstance(c, GrpoConfig)}
    assert weightings == {"none", "exp", "power", "log"}


def test_where_the_start_thinks_already_only_what_follows_is_run() -> None:
    config = load_config(StudyConfig, "study-rl", ["arms=[]"])
    chains = {name: list_stages(config, name) for name in choose_arms(config)}
    assert chains["cot-sft"] == () and chains["cot-sft-grpo-exp"] == ("grpo-exp",)
    assert not chains.keys() & {"base", "rl", "sft"} and all(len(chain) < 2 for chain in chains.values())
    assert choose_arms(load_config(StudyConfig, "study-rl")) == list(
        load_config(StudyConfig, "study-rl").arms
    )


def test_arms_of_even_weights_differ_in_that_alone() -> None:
    found = [configure_stage(StudyConfig(), f"grpo-{name}", 0, "m") for name in ("exp", "exp-even")]
    assert [one.even_weights for one in found if isinstance(one, GrpoConfig)] == [False, True]
    assert len({one.model_copy(update={"even_weights": False}).model_dump_json() for one in found}) == 1


def test_a_row_counts_only_for_the_study_that_made_it() -> None:
    config = StudyConfig()
    was = fingerprint(config, "cot-sft", 0, "digest")
    assert (
        fingerprint(config.model_copy(update={"seeds": (0,), "arms": ("base",)}), "cot-sft", 0, "digest")
        == was
    )
    assert fingerprint(config.model_copy(update={"more_sft_steps": 7}), "cot-sft", 0, "digest") == was
    for changed in ({"samples": 3}, {"sft": SftConfig(learning_rate=0.1)}):
        assert fingerprint(config.model_copy(update=changed), "cot-sft", 0, "digest") != was
    assert fingerprint(config, "cot-sft", 0, "another base") != was


def test_rows_of_two_studies_do_not_share_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither is written over by the other, nor are both in one table; nothing is trained before that is said."""
    kept = tmp_path / "cot-sft-seed1.json"
    write_row(kept, row("cot-sft", 1, 0.5, 0.5))
    before = kept.read_bytes()
    command = ["study", "--config", "study-rl", "--rows", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*command, "--arm", "cot-sft"]) == 2
    told = capsys.readouterr().err
    assert (
        f"error: a row of another study, or of another base, is here: {kept}: choose another --out or --rows"
        in told
    )
    assert kept.read_bytes() == before and not (tmp_path / "out").exists()
    write_row(tmp_path / "base-seed0.json", row("base", 0, 0.5, 0.5, n=10))
    assert main(["study", "--tables", "--rows", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "answers other questions" in told and "cot-sft-seed1.json" in told


def test_each_study_has_its_own_folder() -> None:
    def place(*arguments: str) -> Path:
        return StudyCommand(
            config=arguments[0], **dict(zip(("out",), map(Path, arguments[1:]), strict=False))
        ).place()

    assert place("study-rl") == Path("runs/study-rl") != place("study")
    assert place("mine/my.yaml") == Path("runs/my") and place("study", "here") == Path("here")


def test_every_claim_is_about_arms_that_exist() -> None:
    assert {name for _, *names in CLAIMS for name in names} <= set(ARMS)


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(UnivgError, match=r"no arm 'cot': choose from base, rl"):
        choose_arms(StudyConfig(arms=("cot",)))


def test_a_study_of_thoughts_has_an_arm_for_each_source_and_none_of_the_ablation() -> None:
    config = load_config(StudyConfig, "study-thoughts")
    names = choose_arms(config)
    assert {stage for name in names for stage in ARMS[name].stages} == {
        f"sft-on-{source}" for source in SOURCES
    }
    assert not set(names) & set(choose_arms(StudyConfig()))
    stages = [configure_stage(config, f"sft-on-{source}", 1, "start", Path("t")) for source in SOURCES]
    assert len({stage.data[0].path for stage in stages}) == len(SOURCES)
    assert len({stage.model_copy(update={"data": ()}).model_dump_json() for stage in stages}) == 1, (
        "equal else"
    )


def test_rows_of_other_thoughts_do_not_count() -> None:
    config = load_config(StudyConfig, "study-thoughts")
    was = fingerprint(config, "thoughts-own", 0, "digest")
    other = load_config(StudyConfig, "study-thoughts", ["thoughts.chains=5"])
    assert fingerprint(other, "thoughts-own", 0, "digest") != was


@pytest.mark.slow
def test_a_study_of_thoughts_runs(tmp_path: Path) -> None:
    """Every source gives the same samples, in the same order, with its own thoughts; wrong chains are left out."""
    sizes = ["prologue=null", "model=embedded", "thoughts.samples=20", "samples=1", "sft.max_steps=2"]
    sizes += ["sft.batch=4", "sft.micro_batch=4"]
    run = ["study", "--config", "study-thoughts", "--out", str(tmp_path), "--rows", str(tmp_path / "rows")]
    assert main([*run, "--seed", "0", "--keep", *sizes]) == 0
    made = {
        source: {one.key: one.thought for one in read_jsonl(tmp_path / "seed0/thoughts" / f"{source}.jsonl")}
        for source in SOURCES
    }
    assert len(made["exact"]) == 20 and len(made["verified"]) == len(made["selected"]) < 20
    for thoughts in made.values():
        assert set(thoughts) <= set(made["exact"]) and all(thoughts.values())
    assert made["verified"] != {key: made["exact"][key] for key in made["verified"]}
    assert len(list((tmp_path / "rows").glob("thoughts-*-seed0.json"))) == 1 + len(SOURCES)


def test_tables_are_drawn_from_rows_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in ROWS:
        write_row(tmp_path / f"{one['arm']}-seed{one['seed']}.json", one)
    assert main(["study", "--tables", "--rows", str(tmp_path)]) == 0
    assert "| CoT-SFT + GRPO | 2 |" in (tmp_path / "table.md").read_text()
    assert "3 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--tables"],
            "no rows of the study: rows: give the folder of its rows (ARM-seedN.json); without --tables it is run",
        ),
        (["--quick", "--arm", "cot"], "no arm 'cot': choose from base, rl"),
        (["samples=0"], "override 'samples=0': samples: Input should be greater than 0"),
        (
            ["--config", "study-rl", "--arm", "rl"],
            "no arm 'rl': cold_start=false leaves only arms that begin with one: choose from cot-sft",
        ),
        (
            ["--config", "study-thoughts", "cold_start=false"],
            "cold_start: a study of thoughts compares cold starts, and cannot leave them out",
        ),
        (["--config", "stud"], "no preset named 'stud'; did you mean 'study'?"),
    ],
)
def test_what_can_be_put_right_is_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "--rows", "rows", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: ") and line in told


@pytest.mark.parametrize("preset", ["study", "study-quick", "study-rl", "study-thoughts"])
def test_presets_load(preset: str) -> None:
    assert load_config(StudyConfig, preset).samples > 0


def run_twice(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a study and run it again, which must change no row; return the rows by file name."""
    command = ["study", "--out", str(folder), "--keep", *arguments]
    assert main(command) == 0
    rows = {path.name: path.read_bytes() for path in (folder / "rows").glob("*.json")}
    assert main(command) == 0
    assert rows == {path.name: path.read_bytes() for path in (folder / "rows").glob("*.json")}
    return {name: json.loads(text) for name, text in rows.items()}


TINY = [
    *("samples=1", "splits=[world]", "families=[diff, region]", "max_new_tokens=16", "more_sft_steps=1"),
    *("sft.workers=0", "sft.max_steps=1", "sft.batch=2", "sft.micro_batch=2"),
    *(
        "grpo.workers=0",
        "grpo.max_steps=1",
        "grpo.prompts_per_step=2",
        "grpo.rollouts=2",
        "grpo.micro_batch=4",
    ),
    "grpo.max_completion_tokens=16",
]


def test_a_study_runs_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    """Every kind of stage, at the smallest size: arms that begin alike share their first stage."""
    arms = ["base", "cot-sft-more", "cot-sft-grpo-exp-even"]
    rows = run_twice(tmp_path, "--quick", *(word for arm in arms for word in ("--arm", arm)), *TINY)
    assert sorted(rows) == sorted(f"{arm}-seed0.json" for arm in arms)
    assert all({*row["ious"]["world"]} == {"diff", "region"} for row in rows.values())
    steps = {row["arm"]: [stage["steps"] for stage in row["stages"]] for row in rows.values()}
    assert steps == {"base": [], "cot-sft-more": [1, 1], "cot-sft-grpo-exp-even": [1, 1]}
    shared = [row["stages"][0] for row in rows.values() if row["arm"].startswith("cot")]
    assert shared[0] == shared[1]
    (point,) = rows["cot-sft-grpo-exp-even-seed0.json"]["curve"]
    assert point["step"] == point["weight"] == 1


def test_a_start_that_nothing_is_trained_for_is_evaluated_once(tmp_path: Path) -> None:
    rows = run_twice(tmp_path, "--quick", "--arm", "base", "--seed", "0", "--seed", "1", *TINY)
    first, second = rows["base-seed0.json"], rows["base-seed1.json"]
    assert first["ious"] == second["ious"] and (first["seed"], second["seed"]) == (0, 1)
    assert [folder.name for folder in tmp_path.glob("seed*")] == ["seed0"]


@pytest.mark.slow
def test_the_quick_study_runs_all_arms(tmp_path: Path) -> None:
    rows = run_twice(tmp_path, "--quick")
    assert len(rows) == len(choose_arms(StudyConfig()))
    assert all(len(row["ious"]["world"]) == 10 for row in rows.values())
