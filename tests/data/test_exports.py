"""Every format written and read back; what each framework asks of it; what cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from univg.data.exports import EXPORTS, PICTURED, SUFFIXES, Export, export
from univg.data.readers import ImageRoot, RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.prompts import DIRECT_SUFFIX, SIMPLE_PREFIX, THINK_SUFFIX
from univg.grounding.samples import GroundingSample

FRAMEWORKS = [name for name in EXPORTS if name not in PICTURED]


def sample(**fields: Any) -> GroundingSample:
    given: dict[str, Any] = {
        "images": ("x/a.jpg", "b.jpg"),
        "query": "Where is it in the second image? ",
        "task": "diff",
        "boxes": ((0.1234567, 0.2, 0.3, 0.4),),
        "target_image": 1,
        "thought": "It moved.",
        "source": "set#1",
        "extra": {"need_format": True, "deep": [1, {"a": None}]},
    }
    return GroundingSample(**{**given, **fields})


SAMPLES = [
    sample(),
    sample(source="set#2", boxes=((0, 0, 1, 1), (0.5, 0.5, 0.6, 0.6)), target_image=None),
    sample(source="set#3", images=("c.jpg",), target_image=0, thinking=False, thought=None, query="The dog."),
    sample(source="set#4", query='Küche \U0001f600 \u2028 "quoted"\nsecond line', extra={}),
    sample(source="set#5", boxes=((0.5, 0.5, 1.04, 0.9),)),
]


def written(path: Path, to: str, samples: list[GroundingSample], **how: Any) -> tuple[int, list[RecordFault]]:
    if SUFFIXES[to] == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    faults: list[RecordFault] = []
    return export(samples, to, path, Export(on_fault=faults.append, **how)), faults


@pytest.mark.parametrize("to", FRAMEWORKS)
def test_round_trip(to: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{SUFFIXES[to]}"
    assert written(path, to, SAMPLES) == (len(SAMPLES), [])
    back = list(read(path))
    assert back == SAMPLES
    assert [one.key for one in back] == [one.key for one in SAMPLES]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [path.name, *(["dataset_info.json"] if to == "llamafactory" else [])]
    )


@pytest.mark.parametrize("to", [name for name in FRAMEWORKS if name != "jsonl"])
def test_round_trip_in_the_direct_style(to: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{SUFFIXES[to]}"
    bare = [sample(thought=None), sample(source="set#2")]
    assert written(path, to, bare, style="direct") == (2, [])
    assert list(read(path)) == bare


@settings(max_examples=25)
@given(
    st.text(min_size=1).filter(lambda text: text.strip() and "<" not in text),
    st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.01, 0.1)] * 2).map(
        lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
    ),
    st.sampled_from(["sharegpt", "trl"]),
)
def test_round_trip_of_any_question(query: str, box: Any, to: str) -> None:
    import tempfile

    one = sample(query=query, boxes=(box,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data{SUFFIXES[to]}")
        export([one], to, path, Export())
        (back,) = read(path)
    assert back.boxes == one.boxes and back.query.strip() == one.query.strip()


def test_llamafactory_file_and_entry(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"other": {"file_name": "o.json"}}')
    assert written(tmp_path / "cot.json", "llamafactory", SAMPLES[:3])[0] == 3
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["other"] == {"file_name": "o.json"}
    assert info["cot"]["formatting"] == "sharegpt" and info["cot"]["file_name"] == "cot.json"
    assert info["cot"]["columns"] == {"messages": "conversations", "images": "images"}
    rows = json.loads((tmp_path / "cot.json").read_text())
    for row in rows:
        assert sum(turn["value"].count("<image>") for turn in row["conversations"]) == len(row["images"])
    assert (
        rows[0]["conversations"][0]["value"]
        == f"<image><image>Where is it in the second image?{THINK_SUFFIX}"
    )
    assert rows[0]["conversations"][1]["value"] == (
        "<think>It moved.</think><answer>(123,200),(300,400)</answer>"
    )
    assert rows[2]["conversations"][0]["value"] == f"<image>{SIMPLE_PREFIX}The dog."
    (tmp_path / "dataset_info.json").write_text("[broken")
    with pytest.raises(UnivgError, match="repair or remove it"):
        written(tmp_path / "cot.json", "llamafactory", SAMPLES)


def test_trl_rows(tmp_path: Path) -> None:
    path = tmp_path / "trl.jsonl"
    written(path, "trl", [sample(), sample(thought=None)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["prompt"] == [
        {"role": "user", "content": f"Where is it in the second image?{THINK_SUFFIX}"}
    ]
    assert (
        rows[0]["solution"] == "(123,200),(300,400)"
        and "<think>It moved." in rows[0]["completion"][0]["content"]
    )
    assert "completion" not in rows[1]
    written(path, "trl", [sample(thought=None)], style="direct")
    assert json.loads(path.read_text())["prompt"][0]["content"].endswith(DIRECT_SUFFIX)


def test_verl_and_easyr1_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("x/a.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    root, path = ImageRoot(tmp_path), tmp_path / "a.parquet"
    written(path, "verl", [sample()], images=root)
    (row,) = parquet.read_table(path).to_pylist()
    assert row["prompt"][0]["content"].startswith("<image><image>Where")
    assert row["images"][0] == {"image": str((tmp_path / "x/a.jpg").resolve())}
    assert row["reward_model"] == {"style": "rule", "ground_truth": "(123,200),(300,400)"}
    assert row["data_source"] == "univg/diff"
    written(path, "verl", [sample()], images=root, embed=True)
    (row,) = parquet.read_table(path).to_pylist()
    assert row["images"][1] == {"bytes": (tmp_path / "b.jpg").read_bytes()}
    written(path, "easyr1", [sample()])
    (row,) = parquet.read_table(path).to_pylist()
    assert (row["images"], row["answer"]) == (["x/a.jpg", "b.jpg"], "(123,200),(300,400)")
    written(path, "easyr1", [sample()], images=root, embed=True)
    (row,) = parquet.read_table(path).to_pylist()
    assert row["images"][0] == {"bytes": (tmp_path / "x/a.jpg").read_bytes(), "path": "x/a.jpg"}


@pytest.mark.parametrize(
    ("fields", "to", "kind"),
    [
        ({"thought": None}, "sharegpt", "no_thought"),
        ({"boxes": ()}, "sharegpt", "no_answer"),
        ({"boxes": ()}, "trl", "no_answer"),
        ({"boxes": ((0.5, 0.5, 0.1, 0.6),)}, "trl", "inverted_box"),
        ({"boxes": ((0.5, 0.5, 0.5, 0.6),)}, "sharegpt", "degenerate_box"),
        ({"boxes": ((100, 200, 300, 400),)}, "trl", "wrong_scale"),
        ({"query": "What is <image>?"}, "sharegpt", "image_tags"),
    ],
)
def test_what_cannot_be_written_is_reported(fields: Any, to: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIXES[to]}"
    count, faults = written(path, to, [sample(), sample(**fields, source="set#bad"), sample()])
    assert count == 2 and [(fault.kind, fault.record) for fault in faults] == [(kind, "set#bad")]
    with pytest.raises(UnivgError):
        export([sample(**fields)], to, tmp_path / f"b{SUFFIXES[to]}", Export())
    assert not list(tmp_path.glob("*b*"))  # neither half a file nor a temporary one


def test_text_answers_are_taught_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    one = sample(boxes=(), thought=None, target_image=None, extra={"answer": "a red kite"})
    assert written(path, "sharegpt", [one]) == (1, [])
    assert json.loads(path.read_text())[0]["conversations"][1]["value"] == "a red kite"
    assert list(read(path)) == [one]


def test_paths_are_written_as_the_files_lie(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / name).touch()
    path = tmp_path / "a.jsonl"
    lost = sample(images=("gone.jpg",), target_image=0)
    count, faults = written(path, "jsonl", [sample(), lost], images=ImageRoot(tmp_path / "x"))
    assert count == 1 and [fault.kind for fault in faults] == ["missing_image"]
    assert next(iter(read(path))).images == ("a.jpg", "b.jpg")


def test_an_edited_answer_wins_over_the_column_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    written(path, "sharegpt", [sample()])
    path.write_text(path.read_text().replace("(123,200),(300,400)", "(500,500),(600,600)"))
    (back,) = read(path)
    assert back.boxes == ((0.5, 0.5, 0.6, 0.6),) and back.task == "diff"


def test_trl_loads_what_was_written_for_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets comes with the train extra")
    path = tmp_path / "a.jsonl"
    written(path, "trl", SAMPLES)
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == len(SAMPLES) and loaded[0]["images"] == ["x/a.jpg", "b.jpg"]


@pytest.mark.parametrize("to", FRAMEWORKS)
def test_no_format_is_taken_for_another(to: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIXES[to]}"
    written(path, to, [sample()])
    names = {"jsonl": "univg", "sharegpt": "cotsft", "llamafactory": "cotsft"}
    assert detect(path) == names.get(to, to)


def test_the_way_to_pictures_that_the_docs_show_trl_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets comes with the train extra")
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    code = page.partition("TRL expects pictures, not paths:\n\n```python\n")[2].partition("```")[0]
    folder, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    for name in ("x/a.jpg", "b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    written(tmp_path / "a.jsonl", "trl", [sample()])
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found: dict[str, object] = {}
    exec(
        code.replace('"MIG-Bench"', repr(str(folder))).replace(
            '"mig.jsonl"', repr(str(tmp_path / "a.jsonl"))
        ),
        found,
    )
    pictures = found["data"][0]["images"]  # type: ignore[index]
    assert [picture.size for picture in pictures] == [(8, 6)] * len(sample().images)
