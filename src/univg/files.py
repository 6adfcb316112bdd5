"""Write files that are whole or absent, append to journals that survive a kill, and name content by digests.

`replacing` and `write_whole` make a file appear complete or not at all, whoever is killed when and however many
processes write it. A `Journal` only grows: whole JSON lines, each on disk before its writer goes on. What a killed
process leaves behind is whole lines and at most one cut-off line, which the next writer removes before it appends.
A line counts only with its newline.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from univg.errors import UnivgError

try:
    import fcntl
except ImportError:  # Windows: two writers of one file are then not noticed
    fcntl = None  # type: ignore[assignment]

ASSETS = Path(__file__).resolve().parent / "assets"
"""What the package ships besides code: the embedded checkpoints, example images."""
EXAMPLES = ASSETS / "examples"

__all__ = [
    "ASSETS",
    "EXAMPLES",
    "Journal",
    "canonical",
    "check_exists",
    "check_writable",
    "create_whole",
    "digest_blocks",
    "digest_file",
    "naming_paths",
    "replacing",
    "unwritable",
    "whole_lines",
    "write_whole",
]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes `path`'s place when the block ends, and is removed if it fails.

    The name is this writer's alone, so two processes that write one file cannot mix. Missing folders are made.
    A folder may be written as well, if there is none at `path` yet. Raises OSError as writing does.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    import shutil

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if partial.is_file():
            with open(partial, "rb") as written:
                os.fsync(written.fileno())
        os.replace(partial, target)
    except OSError as error:
        if error.filename is not None and str(error.filename) == str(partial):
            error.filename = str(target)  # the name that people know
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file that is complete or not there; text as UTF-8, line ends as they stand."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def create_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file unless there is one: of two processes that write it, the first one's stays, complete.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> create_whole(path, "first")
    >>> create_whole(path, "second")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('first', 1)
    """
    with suppress(FileExistsError), replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        try:
            os.link(partial, path)
        except OSError:  # there is one; or the file system has no hard links
            if Path(path).exists():
                raise FileExistsError(path) from None


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_BLOCK = 1 << 26


def digest_blocks(paths: Sequence[Path]) -> list[str]:
    """Return a digest of each file's whole content, 64 hexadecimal digits, computed on all cores.

    It is the SHA-256 of the SHA-256s of the content's blocks of 64 MB, since one core digests only about 1 GB/s.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> path.write_text("content")
    7
    >>> digest_blocks([path])[0][:8]
    'c4eec85e'
    """
    from concurrent.futures import ThreadPoolExecutor

    blocks = [(path, at) for path in paths for at in range(0, path.stat().st_size, _BLOCK)]
    together = {path: hashlib.sha256() for path in paths}
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for (path, _), digest in zip(blocks, pool.map(_digest_block, blocks), strict=True):
            together[path].update(digest)
    return [together[path].hexdigest() for path in paths]


def _digest_block(block: tuple[Path, int]) -> bytes:
    path, start = block
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while (left := start + _BLOCK - file.tell()) and (piece := file.read(min(left, 1 << 20))):
            sha.update(piece)
    return sha.digest()


def check_exists(path: str | os.PathLike[str], key: str = "") -> None:
    """Raise UnivgError, which begins with `key`, unless there is such a file or folder."""
    if not os.path.exists(path):
        raise UnivgError(f"{key}no such file or folder", path, "check the path")


def check_writable(folder: Path) -> None:
    """Raise UnivgError unless files can be written under `folder`; nothing is left there."""
    if folder.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and not folder.is_dir():
        raise UnivgError("--out names a folder, not a picture", folder, "leave the file name out")
    if folder.resolve().is_relative_to(ASSETS.parent):
        remedy = "name a folder elsewhere with --out, or start the command in another one"
        raise UnivgError("a folder of the univg package itself", folder, remedy)
    try:
        above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not above.is_dir():
            raise UnivgError(
                "--out cannot be a folder", f"{above} is a file", "name another folder with --out"
            )
        if not os.access(above, os.W_OK | os.X_OK):
            raise unwritable(folder, PermissionError(13, "permission denied"))
        trial = (
            above / f".univg-{secrets.token_hex(8)}"
        )  # some file systems refuse what the permissions allow
        trial.mkdir()
        trial.rmdir()
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def unwritable(path: str | os.PathLike[str], error: Exception) -> UnivgError:
    """Return the one-line error for a folder or file that could not be written, and why."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UnivgError(f"cannot write ({reason.lower()})", path, "name another folder with --out")


@contextmanager
def naming_paths() -> Iterator[None]:
    """Turn an OSError within into the one-line error that says which file could not be read or written, and why."""
    try:
        yield
    except OSError as error:
        reason = f"cannot be read or written ({error.strerror or error})"
        raise UnivgError(reason, error.filename or "the output folder", "check the path") from error


def canonical(value: Any) -> str:
    """Return JSON text that is equal for equal values.

    >>> canonical({"b": 1, "a": [2]})
    '{"a":[2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


class Journal:
    """Append JSON objects to one file; no other process can write to it meanwhile.

    What `append` was given is on disk when it returns. Entering raises UnivgError if another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> Journal:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lifts it if we are killed
            self._cut_torn_line()
        except BlockingIOError:
            self._close()
            raise UnivgError("another process writes here", self.path, "wait for it to end") from None
        except BaseException:  # Ctrl-C as well: nobody else will shut the file
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(row, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n" for row in rows]
        rest = memoryview(b"".join(lines))
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        end, block = size, 1 << 16
        while end > 0:
            start = max(0, end - block)
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that end in a newline."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
