"""JSON, JSON Lines and tables as people have them: each gives its samples, a named fault, or one line that says why."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.formats.rows import detect_container, read_rows
from univg.data.readers import RecordFault, read
from univg.errors import UnivgError

ROW = {"images": ["ü.png"], "query": "Wo ist das 在?", "task": "diff", "boxes": [[0.1, 0.1, 0.5, 0.5]]}
J = json.dumps(ROW, ensure_ascii=False)
PRETTY = json.dumps(ROW, indent=1)
TWICE = J.replace('"boxes"', '"boxes": [[0, 0, 1, 1]], "boxes"')


def every(path: Path) -> tuple[list[str], list[RecordFault]]:
    faults: list[RecordFault] = []
    return [sample.query for sample in read(path, on_fault=faults.append)], faults


READ = [
    ("lines.json", f"{J}\n{J}\n", 2, "JSON Lines in a file called .json"),
    ("list.jsonl", f"[{J},{J}]", 2, "a list in a file called .jsonl"),
    ("one.jsonl", PRETTY, 1, "one object over several lines"),
    ("two.json", f"{PRETTY}\n{PRETTY}", 2, "objects over several lines, one after the other"),
    ("two.jsonl", f"{PRETTY},\n{PRETTY},\n", 2, "the same with commas between them"),
    ("comma.jsonl", f"{J},\n{J},\n", 2, "a comma behind each line of JSON Lines"),
    ("crlf.jsonl", f"{J}\r\n\r\n{J}\r\n", 2, "Windows line ends and blank lines"),
    ("cr.jsonl", f"{J}\r{J}\r", 2, "line ends of old Macs"),
    ("bom.jsonl", f"\ufeff{J}\n{J}", 2, "a byte-order mark"),
    ("utf16.json", f"[{J}]".encode("utf-16"), 1, "UTF-16"),
    ("utf16.jsonl", f"{J}\n{J}\n".encode("utf-16-be"), 2, "UTF-16 without a mark"),
    ("utf32.jsonl", f"{J}\n{J}\n".encode("utf-32"), 2, "UTF-32"),
    ("a.jsonl.gz", gzip.compress(f"{J}\n{J}\n".encode()), 2, "a file packed with gzip, bzip2 or xz"),
    ("b.json.bz2", bz2.compress(f"[{J}]".encode()), 1, "bzip2"),
    ("c.json", lzma.compress(f"[{J}]".encode()), 1, "xz, though the name does not say so"),
]


@pytest.mark.parametrize(("name", "content", "n"), [pytest.param(*row[:3], id=row[3]) for row in READ])
def test_files_that_are_read(name: str, content: str | bytes, n: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert every(path) == ([ROW["query"]] * n, [])


TOLD_OF_RECORDS = [
    ("a.jsonl", f"null\n{J}\n", "a record is an object", "a line that is null"),
    ("a.json", f"[{TWICE},{J}]", "the key 'boxes' stands twice", "a key that stands twice in a record"),
    ("b.jsonl", f"{J}\n{TWICE}\n", "the key 'boxes' stands twice", "the same in JSON Lines"),
    ("c.jsonl", f"{J}\n{J[:-1]},}}\n", "a comma stands before the closing '}'", "a comma too many in a line"),
    ("d.jsonl", f"{J}\n{ROW}\n", "as Python writes it", "a line as Python writes it"),
    ("e.jsonl", f"{J}\n{J[:50]}", "the file ends in the middle of this line", "a last line cut short"),
    ("f.jsonl", f"{J}\n".encode() + f"{J}\n".encode("gb18030"), "not UTF-8", "a line in another encoding"),
    ("g.jsonl", f"{J}\n{J.replace('0.1', 'NaN')}\n", "four finite numbers", "NaN or Infinity in a box"),
    ("h.jsonl", f"{J}\n{J}{J}\n", "Extra data", "two records on one line"),
]


@pytest.mark.parametrize(
    ("name", "content", "told"), [pytest.param(*row[:3], id=row[3]) for row in TOLD_OF_RECORDS]
)
def test_records_that_are_told(name: str, content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    queries, (fault,) = every(path)
    assert queries == [ROW["query"]] and told in fault.cause and fault.fix


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"
TOLD_OF_FILES = [
    ("a.json", f"[{J},{J},]", "a comma stands before the closing ']'", "a comma behind a list's last record"),
    ("b.json", f"[{J}\n{J}]", "a comma is missing between two records", "a comma missing between records"),
    ("c.json", f"[{J},,{J}]", "two commas stand together", "two commas"),
    ("d.json", f"[// mine\n{J}]", "a comment stands here", "a comment"),
    ("e.json", str([ROW]), "written as Python does", "a file as Python prints it"),
    ("f.json", J.replace('"diff"', "None"), "None as Python writes it", "True, False or None"),
    ("g.json", f"[{J},{J[:50]}", "ends in the middle of a record", "a list cut short"),
    ("h.json", f"[{J}]".encode("gb18030"), "perhaps GBK: ", "GBK"),
    ("i.json", b'[{"query": "K\xfcche"}]', "iconv -f CP1252 -t UTF-8", "Windows-1252"),
    (
        "j.json",
        "<!DOCTYPE html>\n<html>404</html>",
        "a web page (HTML)",
        "a web page saved in a file's place",
    ),
    ("k.json", LFS, "a Git LFS pointer", "a Git LFS pointer"),
    ("l.parquet", LFS, "git lfs pull", "a Git LFS pointer in a table's place"),
    ("m.jsonl.gz", gzip.compress(J.encode())[:-12], "packed, and damaged", "a packed file cut short"),
    ("n.json", "[]", "it is empty", "an empty list"),
    (
        "o.json",
        f'{{"images": [], {PRETTY[1:]}',
        "the key 'images' stands twice",
        "a key twice in the only object",
    ),
    ("p.json", b"\x80\x04\x95", "a Python pickle", "a pickle"),
    ("q.json", b"\x89PNG\r\n\x1a\n", "a picture, not data", "a picture"),
    ("r.json", '[{"query": "two\nlines"}]', "a line break or tab", "a line break inside a text"),
]


@pytest.mark.parametrize(
    ("name", "content", "told"), [pytest.param(*row[:3], id=row[3]) for row in TOLD_OF_FILES]
)
def test_files_that_are_told(name: str, content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnivgError) as caught:
        every(path)
    assert told in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_archives_are_to_be_unpacked_first(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.json", "w") as archive:
        archive.writestr("inside.json", J)
    with pytest.raises(UnivgError, match=r"a zip archive.*unpack it first"):
        every(tmp_path / "a.json")


def test_a_folder_of_parts_is_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, rows in ((10, [{**ROW, "query": "last"}]), (2, [ROW, ROW])):
        text = json.dumps(rows) if number == 10 else "\n".join(map(json.dumps, rows))
        (tmp_path / f"part-{number}.{'json' if number == 10 else 'jsonl'}").write_text(text)
    assert every(tmp_path) == ([ROW["query"], ROW["query"], "last"], [])
    assert [position for position, _ in read_rows(tmp_path)][::2] == ["part-2.jsonl/line 1", "part-10.json/0"]


def test_tables_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffname;"a ; b"\r\nx;"1\r\n2"\r\ny;3;4\r\n'.encode())
    assert detect_container(path) == "table"
    (_, first), (place, second) = read_rows(path)
    assert first == {"name": "x", "a ; b": "1\r\n2"} and place == "line 4"
    assert "3 cell(s), and the first line names 2" in str(second)
    path.write_text(f"{J}\n{J}\n")
    assert detect_container(path) == "lines"


@given(
    st.text("[]{}'\",:\n\r aN1-\u00e9\ufeff\0", max_size=30), st.sampled_from(["utf-8", "utf-16", "cp1252"])
)
def test_no_text_at_all_ends_in_a_traceback(text: str, encoding: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.json", "a.jsonl", "a.csv"):
            path = Path(folder, name)
            path.write_bytes(text.encode(encoding, "replace"))
            told = ""
            try:
                every(path)
            except UnivgError as error:
                told = str(error)
            assert "\n" not in told
