"""Find a font that has the letters of a text, so that none is drawn as a square."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from PIL import ImageFont

__all__ = ["Font", "fit_font"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's built-in font has Latin letters without accents and little else; texts beyond it try these, then all others.
_SYSTEM_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf"),
    *("DejaVuSans.ttf", "arial.ttf"),
)
_ASCII = frozenset(map(chr, range(32, 127)))
_BUILT_IN = _ASCII | frozenset("\u00a9\u00b0\u00b1\u00b7\u2018\u2019\u201c\u201d\u2026")
_PLAIN = str.maketrans("\u2013\u2014\u2212\u00d7\u2192\u2190\u2022", "---x><\u00b7")


def fit_font(lines: Sequence[str], size: int) -> tuple[Font, list[str]]:
    """Return a font that has the letters of `lines`, and the lines as they can be drawn: none shows as a square."""
    texts = [_keep_drawable(line) for line in lines]
    letters = frozenset("".join(texts))
    if letters <= _BUILT_IN:
        return _load_font(size), texts
    path, missing = _find_font(letters)
    return _load_font(size, path), [_tell_missing(text, missing) for text in texts]


@lru_cache(maxsize=64)
def _load_font(size: int, path: str | None = None) -> Font:
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=256)
def _find_font(letters: frozenset[str]) -> tuple[str | None, frozenset[str]]:
    """Return the first font that has all `letters`, or else the one that has most of them (None: the built-in one), and
    those that it lacks."""
    best, fewest = None, letters - _BUILT_IN
    for path in _list_fonts():
        with contextlib.suppress(
            OSError, RuntimeError
        ):  # not on this machine, or of bitmaps that have one size only
            found = str(ImageFont.truetype(path, 20).path)
            missing = _find_missing(found, letters | _ASCII)
            if len(missing) < len(fewest) and not missing & _ASCII:
                best, fewest = found, missing & letters
            if not fewest:
                break
    return best, fewest


def _list_fonts() -> Iterator[str]:
    yield from _SYSTEM_FONTS
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    yield from sorted(findSystemFonts())
    yield f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def _find_missing(path: str, letters: frozenset[str]) -> frozenset[str]:
    from matplotlib.ft2font import (
        FT2Font,
    )  # Pillow draws a letter that is not there as a square, and does not say so

    font = FT2Font(path)
    return frozenset(letter for letter in letters if not font.get_char_index(ord(letter)))


def _tell_missing(text: str, missing: frozenset[str]) -> str:
    """Put their number in the place of letters that no font has; of marks on letters, nothing."""
    if missing.isdisjoint(text):
        return text
    kept = (c for c in text if c not in missing or not unicodedata.category(c).startswith("M"))
    lost = re.compile(f"[{re.escape(''.join(missing))}]+")
    return lost.sub(lambda run: f"[letters without a font: {len(run[0])}]", "".join(kept))


def _keep_drawable(text: str) -> str:
    """Return `text` on one line in letters the built-in font has where they exist: é becomes e, a dash becomes -."""
    plain = " ".join(text.translate(_PLAIN).split())
    if _needs_more(plain):
        bare = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
        plain = plain if _needs_more(bare) else bare
    return "".join(c if c.isprintable() else " " for c in plain)


def _needs_more(text: str) -> bool:
    return not _BUILT_IN.issuperset(text)
