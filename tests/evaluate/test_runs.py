"""A run's folder: whole rows survive anything, and never mix with another run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.errors import UnivgError
from univg.evaluate.runs import (
    OtherRun,
    claim,
    fingerprint_id,
    list_differences,
    open_rows,
    read_rows,
    read_run,
    read_state,
    write_state,
)

FINGERPRINT = {"model": "a", "decoding": {"samples": 1}}
ID = fingerprint_id(FINGERPRINT)


def row(key: str, **columns: Any) -> dict[str, Any]:
    return {"key": key, "fingerprint": ID, **columns}


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_keeps_its_whole_rows(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run")
    with open_rows(folder, (0, 1)) as writer:
        writer.append(row(str(number), text="ö\n  " * number) for number in range(5))
        path = writer.path
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert list(read_rows(folder, ID)) == [str(number) for number in range(kept)]
    with open_rows(folder, (0, 1)) as writer:
        writer.append([row("more")])
    assert list(read_rows(folder, ID)) == [*map(str, range(kept)), "more"]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_torn_line_longer_than_a_block_is_removed(tmp_path: Path) -> None:
    with open_rows(tmp_path, (0, 1)) as writer:
        writer.append([row("a")])
        whole = writer.path.read_bytes()
    writer.path.write_bytes(whole + b'{"key": "' + b"x" * 200_000)
    with open_rows(tmp_path, (0, 1)):
        assert writer.path.read_bytes() == whole


def test_one_process_writes_a_shard(tmp_path: Path) -> None:
    with open_rows(tmp_path, (0, 2)):
        with open_rows(tmp_path, (1, 2)):
            pass
        with (
            pytest.raises(UnivgError, match=r"another process writes here: .*rows-0-of-2"),
            open_rows(tmp_path, (0, 2)),
        ):
            pass
    with open_rows(tmp_path, (0, 2)):
        pass


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows-0-of-1.jsonl"
    path.write_text(f"{json.dumps(row('a'))}\nnot a row\n{json.dumps(row('b'))}\n")
    with pytest.raises(UnivgError, match=r"a damaged row: .*rows-0-of-1.jsonl, line 2"):
        read_rows(tmp_path, ID)


def test_rows_of_another_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows-0-of-1.jsonl").write_text(json.dumps({"key": "a", "fingerprint": "0" * 16}) + "\n")
    with pytest.raises(UnivgError, match="a row of another run"):
        read_rows(tmp_path, ID)


def test_a_folder_belongs_to_one_fingerprint(tmp_path: Path) -> None:
    assert claim(tmp_path, FINGERPRINT, {"images": "here"}) == ID
    assert claim(tmp_path, dict(reversed(FINGERPRINT.items())), {"images": "elsewhere"}) == ID
    assert read_run(tmp_path)["about"] == {"images": "here"}
    with pytest.raises(OtherRun, match=r"decoding.samples: 1 -> 4\).*give another --out"):
        claim(tmp_path, {**FINGERPRINT, "decoding": {"samples": 4}}, {})


def test_what_stands_as_a_digest_is_told_in_words(tmp_path: Path) -> None:
    about = {"model": "embedded", "seed": 0, "split": "test"}
    claim(tmp_path, {"data": "aa", "model": "11", "dtype": "float32"}, about)
    with pytest.raises(UnivgError, match=r"another run \(seed: 0 -> 1\)"):
        claim(tmp_path, {"data": "bb", "model": "11", "dtype": "float32"}, {**about, "seed": 1})
    with pytest.raises(UnivgError, match=r'\(model: "embedded" -> "mine"; dtype: "float32" -> "bfloat16"\)'):
        claim(tmp_path, {"data": "aa", "model": "22", "dtype": "bfloat16"}, {**about, "model": "mine"})
    with pytest.raises(UnivgError, match=r"\(model: another content under the same name \(embedded\)\)"):
        claim(tmp_path, {"data": "aa", "model": "22", "dtype": "float32"}, about)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"id": "x", "fingerprint": {}, "about": {}}', '{"id": 1}']
)
def test_a_damaged_description_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UnivgError, match="cannot be read"):
        claim(tmp_path, FINGERPRINT, {})


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnivgError, match="no run here"):
        read_run(tmp_path)
    (tmp_path / "rows-0-of-1.jsonl").write_text("")
    with pytest.raises(UnivgError, match="rows without a run"):
        claim(tmp_path, FINGERPRINT, {})


def test_differences_name_what_is_new_and_what_is_gone() -> None:
    assert list_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "d": "x"}}) == [
        'a.d: null -> "x"',
        "c: 2 -> null",
    ]


def test_faults_that_were_put_right_are_no_faults(tmp_path: Path) -> None:
    fault = {"key": "a", "source": "s#1", "kind": "image", "why": "no such file"}
    record = {"key": None, "source": "s#2", "kind": "record", "why": "no box"}
    write_state(tmp_path, (0, 2), 9, [fault, record])
    write_state(tmp_path, (1, 2), 9, [record])
    assert read_state(tmp_path, {}) == (9, [fault, record])
    assert read_state(tmp_path, {"a": row("a")}) == (9, [record])
