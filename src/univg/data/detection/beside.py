"""Find the picture beside each annotation file, in formats that keep one file an image.

Files in the wild keep the name of before they were renamed, leave its suffix out, or name another machine's path; so a
file's own name is believed before what stands in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from univg.data.detection.listing import ListedImage
from univg.data.formats.faults import RecordFault, Unusable, report
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.pictures.images import names_picture

__all__ = ["PictureSearch", "choose_file", "list_pictures"]

_PICTURES = ("JPEGImages", "images")


def list_pictures(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures below a folder by their path in it without suffix, as "a/b" of "a/b.JPG"."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if names_picture(path):
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return dict(found)


def choose_file(folder: Path, files: list[Path], one: str, several: str, fix: str) -> Path:
    """Return the only one of the files that a folder holds; `UnivgError` that says what there is instead."""
    if len(files) == 1:
        return files[0]
    if not files:
        raise UnivgError(f"no {one} in this folder", folder, fix)
    names = ", ".join(file.relative_to(folder).as_posix() for file in files[:5])
    raise UnivgError(f"{len(files)} {several} in this folder ({names})", folder, "give one of them")


@dataclass
class PictureSearch:
    """Find the picture of each annotation file: the one of its own name, in the same place below the pictures' folder.

    - `folder`, `files`: the annotation files, and the folder that they lie below.
    - `set_name`: what records are called after; `field`: where a file names its picture, as faults call it.
    """

    source: Source
    folder: Path
    files: list[Path]
    set_name: str
    field: str

    def record(self, file: Path) -> str:
        """Return the name of a file's record: its path below the folder of annotations, without suffix."""
        return f"{self.set_name}#{self._own(file)}"

    def _own(self, file: Path) -> str:
        return file.relative_to(self.folder).with_suffix("").as_posix()

    @cached_property
    def _annotated(self) -> set[str]:
        return {self._own(file) for file in self.files}

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(file.stem for file in self.files)

    @cached_property
    def _listings(self) -> list[Mapping[str, list[Path]]]:
        """The pictures below each folder that may hold them, the likeliest folder first."""
        images = self.source.images
        above = [images.folder] if images is not None else [self.folder.parent, self.folder]
        # What lies above the folder that was given, and is called nothing in particular, belongs to somebody else.
        searched = (
            above[::-1] if images is not None or self.source.path in self.folder.parents else [self.folder]
        )
        places = [place / name for place in above for name in _PICTURES] + searched
        return [list_pictures(place) for place in dict.fromkeys(places) if place.is_dir()]

    def find(self, file: Path, filename: str, exact: Path | None = None) -> Path | None:
        """Return the picture that a file is about; None if there is none, and its size must be stated.

        `filename` is what the file names, `exact` the very file that this means, where the format says so.
        """
        own = self._own(file)
        written = PurePosixPath(filename.replace("\\", "/")).name
        same_place = PurePosixPath(own).parent
        by_name = self._look(str(same_place / PurePosixPath(written).stem), file) if written else []
        named = [path for path in by_name if path.name == written] or by_name
        mine = self._look(own, file)
        if exact is not None:
            named = [exact]
            mine = named if exact.stem == file.stem else mine
        if mine:
            return self._choose(file, mine, named, written)
        if not named and not mine:
            if self.source.images is not None:
                cause = f"no {own}.* and no {written or 'other name'} under {self.source.images.folder}"
                raise Unusable("missing_image", cause)
            return None
        other = str(same_place / named[0].stem)
        if other in self._annotated:
            cause = f"no {own}.*, and {written}, which it names, is annotated by {other}{file.suffix}"
            raise Unusable("missing_image", cause, "fetch the picture, or give it the annotation's name")
        if len(named) > 1:
            raise Unusable("missing_image", f"{filename} may be {_join(named)}", "write the suffix")
        return named[0]

    def list_images(self, list_image: Callable[[PictureSearch, Path], ListedImage]) -> list[ListedImage]:
        """Return what `list_image` makes of each file, without those that cannot be used."""
        listed = []
        for file in self.files:
            with self.source.reporting(self.record(file)):
                listed.append(list_image(self, file))
        return self._settle(listed)

    def _settle(self, listed: list[ListedImage]) -> list[ListedImage]:
        """Leave out the images that files only name, where another file is about the same: whose it is nobody knows."""
        claims: dict[str, list[ListedImage]] = defaultdict(list)
        for entry in listed:
            claims[str(entry.path or entry.name)].append(entry)
        settled = []
        for entry in listed:
            name = PurePosixPath(str(entry.path or entry.name).replace("\\", "/"))
            others = [one for one in claims[str(entry.path or entry.name)] if one is not entry]
            own = PurePosixPath(entry.record.partition("#")[2]).name
            with self.source.reporting(entry.record):
                if others and own != name.stem:
                    cause = f"it names {name.name}, and so does {others[0].record}: one of them is wrong"
                    raise Unusable(
                        "other_name", cause, f"correct {self.field}, or give files their pictures' names"
                    )
                settled.append(entry)
        return settled

    def _choose(self, file: Path, mine: list[Path], named: list[Path], written: str) -> Path:
        both = [path for path in mine if path in named]
        chosen = both or mine
        if len(chosen) > 1:
            cause = f"{_join(chosen)} are there, and which is meant is not said"
            raise Unusable("missing_image", cause, f"write the suffix in {self.field}, or keep one")
        if named and not both:
            cause = (
                f"it names {written}, which is there too; taken to be about {chosen[0].name}, by its own name"
            )
            report(RecordFault(self.record(file), "other_name", cause, usable=True), self.source.on_fault)
        return chosen[0]

    def _look(self, own: str, file: Path) -> list[Path]:
        """Return the pictures at a path without suffix; of a file whose name is no other's also those further up."""
        names = [own]
        if "/" in own and self._stems[file.stem] == 1:
            names.append(PurePosixPath(own).name)
        return next((listing[name] for name in names for listing in self._listings if name in listing), [])


def _join(paths: Iterable[Path]) -> str:
    return " and ".join(path.name for path in paths)
