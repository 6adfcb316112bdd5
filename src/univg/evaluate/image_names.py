"""Find which image a box of an answer is on where other programs say so otherwise: by a file's name, or from 0."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from univg.evaluate.matching import count_shared, split_path

__all__ = ["counts_from_zero", "number_images"]

_FILE = re.compile(r'"(?:image|img|image_?(?:name|file|path)|file_?name)"(\s*:\s*)"([^"\n]{1,500})"')
"""What stands under a key for a picture: a file's name, or words ("the second one")."""
_NUMBER = re.compile(r'"(image|img)"(\s*:\s*)(\d{1,3})(?=\s*[,}])')


def number_images(
    text: str,
    images: Sequence[str],
    from_zero: bool = False,
    on_unknown: Callable[[str], None] = lambda why: None,
) -> str:
    """Return an answer with the names of files beside its boxes as the numbers of `images`, from 0.

    Meant is the picture of that name, with or without its suffix, in capitals or not; of several the one whose folders
    it shares as well. A file's name that is none's, or several', gets a number that no picture has, which reading
    tells (`unknown_image`), and `on_unknown` is told which. `from_zero`: numbers under `image` count from 0
    (:func:`counts_from_zero`).

    >>> number_images('{"bbox_2d": [1, 2, 3, 4], "image": "b.png"}', ["in/a.png", "in/b.png"])
    '{"bbox_2d": [1, 2, 3, 4], "image_index": 1}'
    """

    def number(found: re.Match[str]) -> str:
        try:
            name = json.loads(f'"{found[2]}"')
        except ValueError:  # a backslash as it stands
            name = found[2]
        index = _find(name, images)
        if index is None and not re.search(r"\.\w{2,5}$", name):
            return found[0]  # words
        if index is None:
            on_unknown(f"{name!r} is {_say_why(name, images)}")
        return f'"image_index"{found[1]}{len(images) if index is None else index}'

    named = _FILE.sub(number, text)
    return _NUMBER.sub(r'"image_index"\2\3', named) if from_zero else named


def counts_from_zero(texts: Sequence[str], counts: Sequence[int]) -> bool:
    """Tell whether the answers of a file number images from 0 under `image`: one says 0, and none its question's count.

    >>> counts_from_zero(['[{"bbox_2d": [1, 2, 3, 4], "image": 0}]', '[{"bbox_2d": [1, 2, 3, 4], "image": 1}]'], [2, 2])
    True
    """
    said = [
        (int(found[3]), count)
        for text, count in zip(texts, counts, strict=True)
        for found in _NUMBER.finditer(text)
    ]
    return any(number == 0 for number, _ in said) and all(number < count for number, count in said)


def _find(name: str, images: Sequence[str]) -> int | None:
    """Return the place of the one image that a name may mean; None for none or several."""
    for change in (str, str.lower, _strip):
        shared = [count_shared([change(name)], [change(image)]) for image in images]
        most = max(shared)
        if most:
            return shared.index(most) if shared.count(most) == 1 else None
    return None


def _strip(path: str) -> str:
    path = path.replace("\\", "/").lower()
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).name else path


def _say_why(name: str, images: Sequence[str]) -> str:
    last = split_path(name)[-1].lower()
    alike = [image for image in images if split_path(image)[-1].lower() == last]
    if alike:
        return f"the name of {' and of '.join(alike)}: give its folder too"
    shown = ", ".join(images[:6]) + (", …" if len(images) > 6 else "")
    return f"none of {shown}"
