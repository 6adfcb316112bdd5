"""JSON as a stream: the same values as json.load whatever the pieces, and errors that say where."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.formats import json_stream
from univg.data.formats.json_stream import read_items
from univg.errors import UnivgError

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def flat(value: Any) -> list[tuple[str | None, Any]]:
    """What read_items should give for a value that json.loads gave."""
    if isinstance(value, list):
        return [(None, item) for item in value]
    pairs: list[tuple[str | None, Any]] = []
    for key, inner in value.items():
        pairs += [(key, item) for item in inner] if isinstance(inner, list) else [(key, inner)]
    return pairs


@given(
    st.lists(VALUES, max_size=6) | st.dictionaries(st.text(), VALUES, max_size=5),
    st.integers(1, 40),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_any_json_in_any_pieces(value: Any, piece: int, indent: int | None, ascii_only: bool) -> None:
    import tempfile

    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "a.json")
        path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        patch.setattr(json_stream, "PIECE", piece)
        try:
            path.read_text("utf-8")
        except UnicodeDecodeError:
            return  # half of a surrogate pair is no UTF-8
        assert list(read_items(path)) == flat(json.loads(text))


@pytest.mark.parametrize(
    ("text", "got", "told"),
    [
        ('[{"a": 1}, {"b": 2', 1, "the file ends in the middle of a record"),
        ('[{"a": 1}', 1, "the file ends in the middle"),
        ('[{"a": 1} {"b": 2}]', 1, "']' should stand here"),
        ('[{"a": 1}, {"b": nonsense, "c": "a long enough text behind it"}]', 1, "not JSON (Expecting value)"),
        ('[{"a": 1}] []', 1, "more text follows"),
        ('{"a": 1}\n{"b": 2}', 1, "if it is JSON Lines, name it .jsonl"),
        ("7", 0, "neither a JSON list nor an object"),
        ("", 0, "neither a JSON list nor an object"),
        ('{a: 1, "b": "and enough text behind it"}', 0, "a key in quotes should stand here"),
        ("[" * 100_000, 0, "a record"),
    ],
)
def test_what_is_not_json_is_told(text: str, got: int, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    items = []
    with pytest.raises(UnivgError) as caught:
        items.extend(read_items(path))  # what came before the error stays in the list
    assert len(items) == got
    assert told in str(caught.value) or (text.startswith("[[") and "nested too deeply" in str(caught.value))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_objects_keys_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [{"id": 1}], "annotations"')
    with pytest.raises(UnivgError, match=r"after 1 record\(s\), character 37"):
        list(read_items(tmp_path / "a.json"))


def test_marks_encodings_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + '["Küche", "\U0001f600"]'.encode())
    assert [value for _, value in read_items(path)] == ["Küche", "\U0001f600"]
    path.write_bytes('["Küche"]'.encode("cp1252"))
    with pytest.raises(UnivgError, match="not UTF-8"):
        list(read_items(path))
    path.write_text(json.dumps(["x" * 5_000_000]))
    with pytest.raises(UnivgError, match="one record of more than 1 MiB"):
        list(read_items(path, largest=1 << 20))
    assert len(next(read_items(path))[1]) == 5_000_000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    record = {"images": ["a" * 60] * 4, "conversations": [{"from": "human", "value": "b" * 300}] * 4}
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + ",\n".join([json.dumps(record)] * 12_000) + "]")
    assert path.stat().st_size > 15_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_items(path)) == 12_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
