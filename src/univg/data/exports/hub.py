"""Write samples as hubs show them and `datasets` loads them: Parquet with the pictures inside, and a data set card.

DIR/README.md                            the card: licence, features, counts by task, source, digest
DIR/data/train-00000-of-00002.parquet    rows with the fields of a sample, pictures as `datasets` keeps them

`univg data` and everything that reads data takes the folder again, with --images for the place of the pictures.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import univg
from univg.data.dataset import digest_parts
from univg.data.exports.settings import Export, check_folder
from univg.data.formats.faults import Unusable
from univg.data.formats.rows import import_pyarrow
from univg.files import replacing, write_whole
from univg.grounding.samples import GroundingSample
from univg.report.markdown import table

__all__ = ["CARD", "HubSet", "write_hub"]

CARD = "README.md"
PART_BYTES = 400 << 20
"""Pictures of one Parquet file; hubs advise files below half a gigabyte."""
_BATCH = 64
_FIELDS: dict[str, tuple[Any, str]] = {
    "images": ({"_type": "List", "feature": {"_type": "Image"}}, "the pictures, in the question's order"),
    "query": ({"_type": "Value", "dtype": "string"}, "the question, without any prompt's words"),
    "task": ({"_type": "Value", "dtype": "string"}, "the task family"),
    "boxes": (
        {"_type": "List", "feature": {"_type": "List", "feature": {"_type": "Value", "dtype": "float64"}}},
        "the true boxes, x1 y1 x2 y2 as shares (0–1) of width and height of the upright picture",
    ),
    "target_image": (
        {"_type": "Value", "dtype": "int64"},
        "the picture that they lie on, from 0; null: not known, or several",
    ),
    "box_images": (
        {"_type": "List", "feature": {"_type": "Value", "dtype": "int64"}},
        "of an answer that is a set: the picture of each box",
    ),
    "complete": (
        {"_type": "Value", "dtype": "bool"},
        "whether the boxes are all that the question asks for; then none means that nothing is there",
    ),
    "thought": ({"_type": "Value", "dtype": "string"}, "a chain of thought that leads to the boxes, or null"),
    "thinking": (
        {"_type": "Value", "dtype": "bool"},
        "false: a simple reference, answered without a thought",
    ),
    "source": ({"_type": "Value", "dtype": "string"}, "the set and the record that it came from"),
    "extra": ({"_type": "Value", "dtype": "string"}, "what else the file said, as JSON"),
}
"""The columns: what `datasets` calls them, and what the card says."""


@dataclass
class HubSet:
    """What the card says of a set: `name`, `source` (the file it was read from), `licence` as the hub calls it, and the
    `splits` that the repository then has (none: the one that is written)."""

    name: str
    source: str
    licence: str | None = None
    splits: Sequence[str] = ()
    tasks: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    pictures: int = 0

    def add(self, sample: GroundingSample) -> None:
        """Count a sample."""
        self.tasks[sample.task] += 1
        self.keys.append(sample.key)
        self.pictures += len(sample.images)
        if sample.thought:
            origin: Any = sample.extra.get("thought")  # as `univg construct` writes it
            known = origin.get("teacher") if isinstance(origin, Mapping) else None
            self.teachers[str(known or "nobody recorded")] += 1


def write_hub(folder: Path, samples: Iterator[GroundingSample], how: Export, about: HubSet) -> list[str]:
    """Write the folder; return the names of its files. `how.split` names the files. Raises UnivgError."""
    pa = import_pyarrow("Parquet files")
    check_folder(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    schema = _make_schema(pa)
    parts: list[Path] = []
    rows = _make_rows(samples, how, about)
    while (first := next(rows, None)) is not None:
        path = folder / "data" / f"{how.split}-{len(parts):05d}.parquet"
        with replacing(path) as partial, pa.parquet.ParquetWriter(partial, schema) as writer:
            size, batch = 0, [first]
            while batch:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                size += sum(len(one["bytes"]) for row in batch for one in row["images"])
                batch = list(islice(rows, _BATCH)) if size < PART_BYTES else []
        parts.append(path)
    names = []
    for number, path in enumerate(parts):
        named = path.with_name(f"{how.split}-{number:05d}-of-{len(parts):05d}.parquet")
        os.replace(path, named)
        names.append(f"data/{named.name}")
    write_whole(folder / CARD, _write_card(about, how.split))
    return [*names, CARD]


def _make_rows(samples: Iterator[GroundingSample], how: Export, about: HubSet) -> Iterator[dict[str, Any]]:
    for sample in samples:
        with how.reporting(sample):
            row = sample.to_json()
            row["images"] = [_embed(name, how) for name in sample.images]
            row["box_images"] = row.get("box_images")
            row["complete"] = sample.complete
            row["extra"] = json.dumps(row["extra"], ensure_ascii=False) if row["extra"] else None
            about.add(sample)
            yield row


def _embed(name: str, how: Export) -> dict[str, Any]:
    path = how.images.find(name) if how.images is not None else Path(name)
    if path is None or not path.is_file():
        raise Unusable("missing_image", f"{name} is to be embedded", "say with --images where it lies")
    return {"bytes": path.read_bytes(), "path": name}


def _make_schema(pa: Any) -> Any:
    """Return the columns' types, with what `datasets` writes beside them, by which it knows pictures."""

    def type_of(feature: Any) -> Any:
        if feature["_type"] == "List":
            return pa.list_(type_of(feature["feature"]))
        if feature["_type"] == "Image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}[
            feature["dtype"]
        ]

    features = {name: feature for name, (feature, _) in _FIELDS.items()}
    schema = pa.schema([(name, type_of(feature)) for name, feature in features.items()])
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _write_card(about: HubSet, split: str) -> str:
    from huggingface_hub import DatasetCardData

    count = about.tasks.total()
    header = DatasetCardData(
        license=about.licence,
        pretty_name=about.name,
        task_categories=["image-text-to-text"],
        tags=["visual-grounding", "univg", *(["chain-of-thought"] if about.teachers else [])],
        size_categories=[_name_size(count)],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": one, "path": f"data/{one}-*"} for one in about.splits or (split,)],
            }
        ],
    )
    others = ", ".join(f"`{one}`" for one in about.splits if one != split)
    written = f"Written by univg {univg.__version__}."
    if others:
        written += f" These figures are of the split `{split}` alone; there are also {others}."
    licence = f"`{about.licence}`" if about.licence else "not stated: that of the source and of its pictures"
    thoughts = ", ".join(f"{n} by {teacher}" for teacher, n in about.teachers.most_common())
    return f"""---
{header.to_yaml()}
---

# {about.name}

{count} questions on {about.pictures} pictures, with the boxes that answer them. {written}

- **Source**: {about.source}.
- **Licence**: {licence}.
- **Thoughts**: {thoughts or "none"}.
- **Digest** (SHA-256 of the samples' keys): `{digest_parts(about.keys)[:32]}`.

## Samples by task

{table(("task", "samples"), sorted(about.tasks.items()))}

## Columns

{table(("column", "meaning"), [(name, said) for name, (_, said) in _FIELDS.items()])}

## Use

```python
from datasets import load_dataset

rows = load_dataset("REPOSITORY", split="{split}")
```

Or download the folder and train on it with univg: `data: [{{reader: univg, path: FOLDER, images: PICTURES}}]`; pictures
are written to the folder PICTURES when they are read first.
"""


def _name_size(count: int) -> str:
    """Name the size as hubs do.

    >>> _name_size(999), _name_size(12_000)
    ('n<1K', '10K<n<100K')
    """
    bounds = [(1000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M")]
    if count < 1000:
        return "n<1K"
    for (_, low), (high, name) in pairwise(bounds):
        if count < high:
            return f"{low}<n<{name}"
    return "n>10M"
