"""Fetch published sets from the hub: their files are listed with sizes and checksums before anything is loaded.

The hub's own dry run states no checksums and asks for every file by itself, so the list is one question of ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from univg.errors import UnivgError, offer
from univg.files import digest_file

__all__ = ["SETS", "HubFile", "HubSet", "check_file", "download", "find_set", "list_files", "say_size"]


@dataclass(frozen=True)
class HubSet:
    """A set on the hub: its repository, the files that matter, what it is, and the formats of its files."""

    repository: str
    files: tuple[str, ...]
    title: str
    formats: str


SETS: dict[str, HubSet] = {
    "mig_bench": HubSet("Michael4933/MIG-Bench", ("*",), "MIG-Bench, annotations and images", "mig_bench"),
    "mgrounding": HubSet("Michael4933/MGrounding-630k", ("*",), "MGrounding-630k, everything", "mgrounding"),
    "mgrounding_json": HubSet(
        "Michael4933/MGrounding-630k", ("*.json",), "MGrounding-630k, annotations only", "mgrounding"
    ),
    "univg_r1": HubSet(
        "GD-ML/UniVG-R1-data", ("*",), "UniVG-R1's stage 1 and 2 and evaluation files", "cotsft, rl"
    ),
    "refcoco": HubSet("lmms-lab/RefCOCO", ("*.parquet",), "RefCOCO rows with images", "refcoco"),
    "refcoco_plus": HubSet("lmms-lab/RefCOCOplus", ("*.parquet",), "RefCOCO+ rows with images", "refcoco"),
    "refcocog": HubSet("lmms-lab/RefCOCOg", ("*.parquet",), "RefCOCOg rows with images", "refcoco"),
    "ref_l4": HubSet(
        "JierunChen/Ref-L4", ("*.parquet", "images.tar.gz"), "Ref-L4, rows and images", "ref_l4"
    ),
    "refcoco_m": HubSet("moondream/refcoco-m", ("*.parquet",), "RefCOCO-M rows with images", "refcoco_m"),
    "groundingme": HubSet(
        "lirang04/GroundingME", ("*.parquet",), "GroundingME rows with images", "groundingme"
    ),
    "openref": HubSet("Wuzj/OpenRef", ("*",), "OpenRef, annotations and images", "openref"),
}
"""What can be fetched. ReasonSeg, LLM-Seg40K, ReasonVOS and ReVOS are published elsewhere: docs/data.md says where."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its size in bytes, and its SHA-256 where the hub states one (large files)."""

    name: str
    size: int
    sha256: str | None


def find_set(name: str) -> HubSet:
    """Return a set by its name. Raises UnivgError for a name that is none."""
    if name not in SETS:
        raise UnivgError("no such set", name, offer(name, SETS))
    return SETS[name]


def list_files(repository: str, patterns: Sequence[str]) -> tuple[str, list[HubFile]]:
    """Return the current revision of a dataset repository, and its files whose names match a pattern.

    Raises UnivgError without a connection, and if no file matches.
    """
    _check_online(repository)
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().dataset_info(repository, files_metadata=True)
    except Exception as error:  # the hub's, and those of every layer of the network below it
        raise _unreachable(repository, error) from error
    files = [
        HubFile(str(entry.rfilename), int(entry.size or 0), getattr(entry.lfs, "sha256", None))
        for entry in info.siblings or ()
    ]
    chosen = [file for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]
    if not chosen:
        raise UnivgError(f"no file of {repository} is called {' or '.join(patterns)}", remedy="check --only")
    return str(info.sha), sorted(chosen, key=lambda file: file.name)


def download(repository: str, revision: str, file: HubFile, out: Path) -> None:
    """Load one file into `out`, going on where an interrupted download stopped, and check it.

    Raises UnivgError without a connection, and for a file that is not what the hub states.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repository, file.name, repo_type="dataset", revision=revision, local_dir=out)
    except OSError as error:
        raise UnivgError(f"download failed ({_brief(error)})", file.name, "run the command again") from error
    except Exception as error:  # as above
        raise _unreachable(repository, error) from error
    check_file(Path(path), file)


def check_file(path: Path, file: HubFile) -> None:
    """Raise UnivgError unless the file has the size and the checksum that the hub states."""
    size = path.stat().st_size
    if size != file.size:
        cause = f"{size} bytes came of {file.size}"
    elif file.sha256 is not None and digest_file(path) != file.sha256:
        cause = "its SHA-256 is not the one the hub states"
    else:
        return
    raise UnivgError(f"damaged download ({cause})", path, "remove it and run the command again")


def say_size(size: int) -> str:
    """Return a number of bytes as people say it.

    >>> say_size(0), say_size(1420), say_size(1_420_000_000)
    ('0 B', '1.4 kB', '1.4 GB')
    """
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _check_online(repository: str) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "TRUE", "YES", "ON"):
            raise UnivgError(
                f"offline ({variable} is set)", repository, f"unset {variable} where there is a network"
            )


def _unreachable(repository: str, error: BaseException) -> UnivgError:
    cause = f"the hub gave no answer ({_brief(error)})"
    return UnivgError(cause, repository, "check the network, or fetch it elsewhere")


def _brief(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:120]}" if lines else type(error).__name__
