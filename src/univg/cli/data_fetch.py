"""`univg data fetch`: published sets from the hub, their sizes and checksums shown before anything is loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.table import Table

from univg.cli.data_reading import progress_bar, screen
from univg.errors import UnivgError


@dataclass(frozen=True)
class Published:
    """A set on the hub: its repository, the files that matter, and what to know before taking it."""

    repository: str
    files: tuple[str, ...]
    title: str
    reader: str


PUBLISHED: dict[str, Published] = {
    "mig_bench": Published("Michael4933/MIG-Bench", ("*",), "MIG-Bench, annotations and images", "mig_bench"),
    "mgrounding": Published(
        "Michael4933/MGrounding-630k", ("*",), "MGrounding-630k, everything", "mgrounding"
    ),
    "mgrounding_json": Published(
        "Michael4933/MGrounding-630k", ("*.json",), "MGrounding-630k, annotations only", "mgrounding"
    ),
    "univg_r1": Published(
        "GD-ML/UniVG-R1-data", ("*",), "UniVG-R1's stage 1 and 2 and evaluation files", "cotsft, rl"
    ),
    "refcoco": Published("lmms-lab/RefCOCO", ("*.parquet",), "RefCOCO rows with images", "refcoco"),
    "refcoco_plus": Published("lmms-lab/RefCOCOplus", ("*.parquet",), "RefCOCO+ rows with images", "refcoco"),
    "refcocog": Published("lmms-lab/RefCOCOg", ("*.parquet",), "RefCOCOg rows with images", "refcoco"),
}
"""What can be fetched. ReasonSeg, LLM-Seg40K, ReasonVOS and ReVOS are published elsewhere: docs/data.md says where."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its size in bytes, and its SHA-256 where the hub states one (large files)."""

    name: str
    size: int
    sha256: str | None


def fetch(name: str | None, out: Path, yes: bool, only: Sequence[str]) -> None:
    """List the sets, or show one set's files, and with `yes` download and check them."""
    console = screen()
    if name is None:
        table = Table(
            "name", "what", "hub repository", "--format", box=None, pad_edge=False, header_style="bold"
        )
        for key, published in PUBLISHED.items():
            table.add_row(key, published.title, published.repository, published.reader)
        console.print(table)
        return
    if name not in PUBLISHED:
        raise UnivgError(f"no such set: {name}: choose from {', '.join(PUBLISHED)}")
    published = PUBLISHED[name]
    revision, files = list_files(published.repository)
    patterns = only or published.files
    files = [file for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]
    if not files:
        raise UnivgError(f"no file of {published.repository} is called {' or '.join(patterns)}: check --only")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("file", "size", "sha256"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for file in files:
        table.add_row(file.name, human(file.size), file.sha256 or "- (small; checked by size)")
    console.print(table)
    total = human(sum(file.size for file in files))
    console.print(f"{len(files)} files, {total}, of {published.repository} at revision {revision[:12]}")
    if not yes:
        console.print(f"nothing was downloaded; to do so: univg data fetch {name} --out {out} --yes")
        return
    with progress_bar("files", len(files)) as advance:
        for file in files:
            download(published.repository, revision, file, out)
            advance()
    console.print(f"downloaded and checked  {out}")
    console.print(f"next: univg data validate FILE --images {out}")


def list_files(repository: str) -> tuple[str, list[HubFile]]:
    """The current revision of a dataset repository, and its files. `UnivgError` without a connection."""
    _check_online(repository)
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().dataset_info(repository, files_metadata=True)
    except Exception as error:
        raise _unreachable(repository, error) from error
    files = [
        HubFile(str(entry.rfilename), int(entry.size or 0), getattr(entry.lfs, "sha256", None))
        for entry in info.siblings or ()
    ]
    return str(info.sha), sorted(files, key=lambda file: file.name)


def download(repository: str, revision: str, file: HubFile, out: Path) -> None:
    """One file to `out`, going on where an interrupted download stopped, then checked."""
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            hf_hub_download(repository, file.name, repo_type="dataset", revision=revision, local_dir=out)
        )
    except OSError as error:
        raise UnivgError(f"download failed ({_brief(error)}): {file.name}: run the command again") from error
    except Exception as error:
        raise _unreachable(repository, error) from error
    check_file(path, file)


def check_file(path: Path, file: HubFile) -> None:
    """`UnivgError` unless the file has the size and the checksum that the hub states."""
    size = path.stat().st_size
    if size != file.size:
        cause = f"{size} bytes came of {file.size}"
    elif file.sha256 is not None and _sha256(path) != file.sha256:
        cause = "its SHA-256 is not the one the hub states"
    else:
        return
    raise UnivgError(f"damaged download ({cause}): {path}: remove it and run the command again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_online(repository: str) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "TRUE", "YES", "ON"):
            raise UnivgError(
                f"offline ({variable} is set): {repository}: unset {variable} where there is a network"
            )


def _unreachable(repository: str, error: BaseException) -> UnivgError:
    cause = _brief(error)
    return UnivgError(
        f"the hub gave no answer ({cause}): {repository}: check the network, or fetch it elsewhere"
    )


def _brief(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:120]}" if lines else type(error).__name__


def human(size: int) -> str:
    """A number of bytes for people.

    >>> human(0), human(1420), human(1_420_000_000)
    ('0 B', '1.4 kB', '1.4 GB')
    """
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
