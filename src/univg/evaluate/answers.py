"""Read answers that other programs wrote, whatever they call the response: lists, lines, tables, maps of ids.

Known besides plain `id` and `text`: OpenAI's, Gemini's and Anthropic's batch files, lmms-eval's samples, VLMEvalKit's
tables, ms-swift's and LLaMA-Factory's predictions, and what the reference's MIG-Bench evaluation keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg.data.formats.faults import OnFault, RecordFault, Unusable
from univg.data.formats.fields import name_kind, read_box, shorten
from univg.data.formats.rows import read_rows
from univg.errors import UnivgError
from univg.files import check_exists
from univg.grounding.boxes import Box

__all__ = ["Given", "find_truth", "read_given"]

RESPONSES = (
    *("text", "response", "prediction", "predict", "pred", "output", "outputs", "completion"),
    *("generated_text", "generation", "model_output", "model_answer", "model_response", "raw_response"),
    *("raw_output", "resps", "filtered_resps", "thinking_process", "result", "choices", "content"),
)
"""What responses are called, the likelier first; `answer` is one where there is none of these."""
TRUTHS = ("answer", "groundtruth", "ground_truth", "gt", "target")
_INSIDE = ("body", "choices", "message", "candidates", "content", "parts", "text", "output_text", "output")
"""What leads to the text in an answer of a server's interface, the outer first."""


@dataclass(frozen=True)
class Given:
    """One answer: where it stands in its file, its text ("" for none), and the fields beside it."""

    place: str
    text: str
    row: Mapping[str, Any]


def read_given(path: Path, on_fault: OnFault, with_truth: bool = False, sets: bool = False) -> list[Given]:
    """Read all answers of a file or folder; what is none goes to `on_fault`. Raises UnivgError for what is no file.

    `with_truth`: each stands beside its truth, so that a box called `answer` is no response. `sets`: a response may be
    a list of boxes, or an empty one; else the first of a list is taken, as of several responses.
    """
    if path.suffix.lower() in (".xlsx", ".xls"):
        raise UnivgError("an Excel workbook", path, "save it as CSV or TSV and give that")
    check_exists(path)
    if path.is_file() and not path.read_bytes().strip():
        raise UnivgError("no predictions", path, "give one JSON object a line")
    rows = list(read_rows(path))
    found = []
    for place, row in _unfold(*rows[0]) if len(rows) == 1 else rows:
        try:
            if not _is_summary(row):
                found.append(_read_one(place, row, with_truth, sets))
        except Unusable as error:
            on_fault(RecordFault(place, error.kind, error.cause, error.fix))
    return found


def _unfold(place: str, row: Any) -> Iterator[tuple[str, Any]]:
    """Yield the answers of an object: itself, those of its lists, or one for each of its keys, which are ids."""
    if not isinstance(row, dict) or not row or _has_response(row):
        yield place, row
        return
    lists = {name: value for name, value in row.items() if _is_list_of_objects(value)}
    for name, values in lists.items():
        for number, one in enumerate(values):
            yield f"{name}/{number}", {"task": name, **one} if len(lists) > 1 else one
    if not lists:
        for name, value in row.items():
            fields = value if isinstance(value, dict) and _has_response(value) else {"text": value}
            yield name, {"id": name, **fields}


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _is_summary(row: Any) -> bool:
    """Tell whether a row is what the reference's evaluation writes last: counts of each task, no answer."""
    return (
        isinstance(row, dict)
        and bool(row)
        and all(isinstance(v, dict) and "TOTAL" in v for v in row.values())
    )


def _has_response(row: Mapping[str, Any]) -> bool:
    return any(name in row for name in (*RESPONSES, "answer"))


def _read_one(place: str, row: Any, with_truth: bool, sets: bool) -> Given:
    if isinstance(row, Unusable):
        raise row
    if isinstance(row, str):
        return Given(place, row, {})
    if not isinstance(row, dict):
        cause = f"an answer is an object with named fields, or a text, not {name_kind(row)}"
        raise Unusable("bad_field", cause, "write one object a line")
    name = next((name for name in RESPONSES if row.get(name) is not None), None)
    name = name or next((name for name in RESPONSES if name in row), "answer")
    if name not in row or (with_truth and name == "answer" and isinstance(row[name], list)):
        raise Unusable("missing_field", "no response", "give the raw response as `text`")
    text = json.dumps(row[name]) if sets and _is_set(row[name], name) else _find_text(row[name], name)
    if text is None and (row.get("error") or isinstance(row[name], dict)):
        raise Unusable("failed_request", f"its request failed: {shorten(row.get('error') or row[name])}")
    doc = row["doc"] if isinstance(row.get("doc"), dict) else {}  # lmms-eval's: the record that was asked
    rest = {field: value for field, value in row.items() if field != name}
    return Given(place, text or "", {**doc, **rest})


def _is_set(value: Any, name: str) -> bool:
    """Tell whether a response is a list of boxes, or of objects that hold no text but a box."""
    if not isinstance(value, list) or name in ("choices", "candidates"):
        return False
    no_box = {*_INSIDE, "type", "error", "thought"}
    return all(
        len(one) == 4 and all(isinstance(edge, (int, float)) for edge in one)
        if isinstance(one, list)
        else isinstance(one, dict) and not no_box & one.keys()
        for one in value
    )


def _find_text(value: Any, name: str) -> str | None:
    """Return the text of a response: of several the first, of one in parts all; None for none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        if value and not isinstance(value[0], dict):
            is_box = len(value) == 4 and all(isinstance(one, (int, float)) for one in value)
            return json.dumps(value) if is_box else _find_text(value[0], name)
        said = [part for part in value if not part.get("thought")] if _is_list_of_objects(value) else []
        several = said[:1] if name in ("choices", "candidates") else said
        texts = [text for part in several if (text := _find_text(part, name)) is not None]
        return "".join(texts) if texts else None
    if isinstance(value, dict):
        inside = next((key for key in _INSIDE if key in value), None)
        if inside is not None:
            return _find_text(value[inside], inside)
        is_none = "type" in value or "error" in value  # a part that is no text, a request that failed
        return None if is_none else json.dumps(value, ensure_ascii=False)
    raise Unusable("bad_field", f"no text: {name!r} is {shorten(value)}", "give the raw response as `text`")


def find_truth(row: Mapping[str, Any]) -> Box | None:
    """Return the box that a row gives as the truth; None if it gives none. Raises `Unusable` for one that is no box.

    >>> find_truth({"answer": "It is at (1,2),(3,4)", "groundtruth": [1, 2, 3, 4]})
    (1.0, 2.0, 3.0, 4.0)
    """
    name = next((name for name in TRUTHS if isinstance(row.get(name), list)), None)
    if name is None:
        return None
    return read_box(row[name], name)
