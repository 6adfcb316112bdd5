"""Samples: frozen, validated, keyed by content; JSON Lines that stream and survive an interrupted writer."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.samples import GroundingSample, LineFault, SampleError, read_jsonl, write_jsonl

FULL = GroundingSample(
    images=("a.png", "b.png"),
    query="Where is the 红 one?\u2028 ",
    task="diff",
    boxes=((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.4, 1.003)),
    target_image=1,
    thought="Left\nof it.",
    source="mig_bench#7",
    extra={"note": [1, {"deep": None}]},
)
BARE = GroundingSample(("a.png",), "Where?", "referring")


def test_a_sample_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.query = "other"
    with pytest.raises(TypeError):
        FULL.extra["new"] = 1


def test_extra_is_a_copy_of_what_was_given():
    given_extra = {"rows": [1]}
    sample = GroundingSample(("a.png",), "q", "t", extra=given_extra)
    given_extra["rows"].append(2)
    sample.to_json()["extra"]["rows"].append(3)
    assert sample.extra == {"rows": [1]}


def test_equal_content_makes_equal_samples_whatever_the_containers():
    listed = dataclasses.replace(FULL, images=list(FULL.images), boxes=[list(box) for box in FULL.boxes])
    assert listed == FULL
    assert hash(listed) == hash(FULL)
    assert (
        GroundingSample(("a",), "q", "t", boxes=[(0, 0, 1, 1)]).key
        == GroundingSample(("a",), "q", "t", boxes=[(-0.0, 0.0, 1.0, 1)]).key
    )


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_samples_travel_to_workers(clone):
    assert clone(FULL) == FULL
    assert clone(FULL).key == FULL.key


BAD = [
    ({"images": ()}, "images"),
    ({"images": "a.png"}, "images"),
    ({"images": ("",)}, "images"),
    ({"images": (1,)}, "images"),
    ({"query": "  "}, "query"),
    ({"query": None}, "query"),
    ({"task": ""}, "task"),
    ({"boxes": [(0, 0, 1)]}, "boxes"),
    ({"boxes": [(0, 0, 1, math.nan)]}, "boxes"),
    ({"boxes": [(0, 0, 1, math.inf)]}, "boxes"),
    ({"boxes": [(0, 0, 1, "1")]}, "boxes"),
    ({"boxes": [(0, 0, 1, True)]}, "boxes"),
    ({"boxes": ["1234"]}, "boxes"),
    ({"boxes": (0, 0, 1, 1)}, "boxes"),
    ({"boxes": 3}, "boxes"),
    ({"target_image": 2}, "target_image"),
    ({"target_image": -1}, "target_image"),
    ({"target_image": 1.0}, "target_image"),
    ({"target_image": True}, "target_image"),
    ({"thought": 3}, "thought"),
    ({"thinking": 1}, "thinking"),
    ({"source": None}, "source"),
    ({"extra": {1: 2}}, "extra"),
    ({"extra": [1]}, "extra"),
]


@pytest.mark.parametrize(("change", "field"), BAD)
def test_a_bad_field_is_named(change, field):
    with pytest.raises(SampleError, match=f"^{field}: "):
        dataclasses.replace(FULL, **change)


def test_bad_ground_truth_is_kept_as_published():
    # MIG-Bench holds inverted boxes and edges beyond 1: a reader must be able to report them
    assert FULL.boxes[1] == (0.5, 0.5, 0.4, 1.003)


CHANGES = [
    {"images": ("b.png", "a.png")},
    {"query": "Where?"},
    {"task": "view_diff"},
    {"boxes": FULL.boxes[:1]},
    {"boxes": FULL.boxes[::-1]},
    {"target_image": 0},
    {"target_image": None},
    {"thinking": False},
]


def test_the_key_tells_apart_what_changes_question_or_answer():
    keys = [FULL.key, *(dataclasses.replace(FULL, **change).key for change in CHANGES)]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


@pytest.mark.parametrize("change", [{"thought": None}, {"source": "x#1"}, {"extra": {}}])
def test_the_key_ignores_what_does_not(change):
    assert dataclasses.replace(FULL, **change).key == FULL.key


def test_the_key_is_the_same_in_every_process():
    # results on disk are matched by it, so it is pinned: changing it throws away every run ever made
    assert BARE.key == "e2028e82327e1062360437eadb387efc"
    assert FULL.key == "9c8e3dc753b0218e48a57b00dc222b79"
    code = "from univg.grounding.samples import GroundingSample as G; print(G(('a.png',), 'Where?', 'referring').key)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == BARE.key


text = st.text(max_size=20)
json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
finite = st.floats(allow_nan=False, allow_infinity=False)
samples = st.builds(
    GroundingSample,
    images=st.lists(text.filter(bool), min_size=1, max_size=3),
    query=text.map(lambda t: "q" + t),
    task=text.map(lambda t: "t" + t),
    boxes=st.lists(st.tuples(finite, finite, finite, finite), max_size=2),
    target_image=st.none() | st.just(0),
    thought=st.none() | text,
    thinking=st.booleans(),
    source=text,
    extra=st.dictionaries(text, json_value, max_size=3),
)


@given(st.lists(samples, max_size=4))
def test_files_give_back_what_was_written(tmp_path_factory, batch):
    path = tmp_path_factory.mktemp("jsonl") / "samples.jsonl"
    assert write_jsonl(path, batch) == len(batch)
    assert path.read_bytes().count(b"\n") == len(batch)
    assert [item.name for item in path.parent.iterdir()] == ["samples.jsonl"]
    assert list(read_jsonl(path)) == batch


def test_half_a_surrogate_pair_survives(tmp_path):
    sample = GroundingSample(("a.png",), "broken \ud83d end", "t")
    write_jsonl(tmp_path / "s.jsonl", [sample, FULL])
    assert list(read_jsonl(tmp_path / "s.jsonl")) == [sample, FULL]
    assert "红" in (tmp_path / "s.jsonl").read_text("utf-8")  # and elsewhere the file stays readable


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**BARE.to_json(), "boxs": []}, "boxs"),
        ({"images": ["a.png"], "task": "t"}, "query"),
        ([1], "list"),
        ("text", "str"),
    ],
)
def test_from_json_names_the_field(record, message):
    with pytest.raises(SampleError, match=message):
        GroundingSample.from_json(record)


def line(sample):
    return json.dumps(sample.to_json()).encode()


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_torn_last_line_is_reported_not_fatal(tmp_path, kept):
    path = tmp_path / "torn.jsonl"
    path.write_bytes(line(BARE) + b"\n" + line(FULL)[:kept])
    faults: list[LineFault] = []
    assert list(read_jsonl(path, faults.append)) == [BARE]
    assert [(fault.path, fault.line_number) for fault in faults] == [(str(path), 2)]
    with pytest.warns(UserWarning, match=r"torn\.jsonl, line 2"):
        assert list(read_jsonl(path)) == [BARE]


def test_a_line_torn_inside_a_character_is_reported_too(tmp_path):
    path = tmp_path / "torn.jsonl"
    path.write_bytes(line(BARE) + b'\n{"query": "' + "红".encode()[:1])
    faults: list[LineFault] = []
    assert list(read_jsonl(path, faults.append)) == [BARE]
    assert len(faults) == 1


@pytest.mark.parametrize("bad", [b'{"images": ["a', b"\xff\xfe", b"[" * 100_000, b"nonsense"])
def test_a_bad_line_in_the_middle_is_fatal_and_located(tmp_path, bad):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(line(BARE) + b"\n" + bad + b"\n" + line(FULL) + b"\n")
    with pytest.raises(SampleError, match=r"bad\.jsonl, line 2: "):
        list(read_jsonl(path, lambda fault: None))


def test_a_complete_last_line_that_is_no_sample_is_fatal(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(line(BARE) + b'\n{"images": ["a.png"], "task": "t"}')
    with pytest.raises(SampleError, match=r"line 2: missing field.*query"):
        list(read_jsonl(path, lambda fault: None))


def test_blank_lines_windows_ends_and_a_byte_order_mark_are_no_matter(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line(BARE) + b"\r\n\r\n  \n" + line(FULL) + b"\n\n")
    assert list(read_jsonl(path)) == [BARE, FULL]


def test_an_empty_file_holds_no_samples(tmp_path):
    (tmp_path / "e.jsonl").write_bytes(b"")
    assert list(read_jsonl(tmp_path / "e.jsonl")) == []


def test_reading_streams(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(line(BARE) + b"\n" + line(BARE) + b"\n" + b"broken\n" + line(BARE) + b"\n")
    assert list(itertools.islice(read_jsonl(path), 2)) == [
        BARE,
        BARE,
    ]  # the broken third line was never reached


def test_a_file_can_be_rewritten_from_its_own_stream(tmp_path):
    path = tmp_path / "s.jsonl"
    write_jsonl(path, [BARE, FULL])
    assert write_jsonl(path, (dataclasses.replace(s, source="new#1") for s in read_jsonl(path))) == 2
    assert [s.source for s in read_jsonl(path)] == ["new#1", "new#1"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "s.jsonl"
    write_jsonl(path, [BARE])

    def failing():
        yield FULL
        raise RuntimeError("source failed")

    with pytest.raises(RuntimeError, match="source failed"):
        write_jsonl(path, failing())
    with pytest.raises(SampleError, match="extra is not JSON"):
        write_jsonl(path, [dataclasses.replace(BARE, extra={"x": math.nan})])
    with pytest.raises(SampleError, match="extra is not JSON"):
        write_jsonl(path, [dataclasses.replace(BARE, extra={"x": object})])
    assert list(read_jsonl(path)) == [BARE]
    assert [item.name for item in tmp_path.iterdir()] == ["s.jsonl"]


def test_what_a_set_adds_stands_behind_the_other_fields() -> None:
    """Calls that give the fields in order mean what they meant."""
    sample = GroundingSample(("a.png",), "Where?", "diff", (), 0, None, True, "set#1", {"note": 1})
    assert (sample.source, sample.extra["note"], sample.complete) == ("set#1", 1, False)
