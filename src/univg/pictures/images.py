"""Pictures from real files: whatever a camera, phone or scanner wrote becomes one upright 8-bit RGB image.

`open_picture` is the only door through which files become pixels. What cannot become a picture is an
`ImageFault` that says, on one line, what is wrong, with which file, and what to do.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageMath, ImageOps, UnidentifiedImageError

from univg.errors import UnivgError, one_line

if TYPE_CHECKING:
    from os import PathLike

MAX_MEGAPIXELS = 100.0
MAX_ASPECT = 200
"""Qwen2-VL's preprocessing refuses images whose longer side is more than 200 times the shorter one."""

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
"""Raster formats only. Pillow also knows EPS and WMF, which start other programs to be drawn, and icons, which it
decodes before it says how large they are: never those."""

_STRIP = 1 << 20  # pixels that are converted at a time
_SEE_THROUGH = ("RGBA", "LA", "PA", "RGBa", "La")


def names_picture(name: str | PathLike[str]) -> bool:
    """Tell by its suffix whether a file is called a picture that can be opened.

    >>> names_picture("a/b.JPG"), names_picture("b.eps"), names_picture("b.v2")
    (True, False, False)
    """
    Image.init()
    return Image.EXTENSION.get(PurePath(name).suffix.lower()) in FORMATS


_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"RIFF": "WebP",
}

# What Pillow's readers raise on damaged files, beyond OSError; a reader's own mistake is not ours to explain.
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError),
    *(TypeError, AttributeError, OverflowError, RuntimeError),
)


class ImageFault(UnivgError):
    """Report a file that cannot become a picture; caught where one sample of many is left out, with its cause.

    >>> print(ImageFault("a.png", "the file is empty", "export or copy it again"))
    the file is empty: a.png: export or copy it again
    """

    def __init__(self, path: str | PathLike[str], cause: str, remedy: str) -> None:
        super().__init__(one_line(cause), path, remedy)
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.cause, self.remedy)  # crosses process borders (data loaders)


@dataclass(frozen=True)
class Picture:
    """An upright 8-bit RGB `image`, the `path` it came from, and `notes` on what had to be done to get it."""

    image: Image.Image
    path: str
    notes: tuple[str, ...] = ()


def open_picture(path: str | PathLike[str], max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """Open an image file as an upright 8-bit RGB picture.

    EXIF rotation is applied; alpha and transparent palettes are laid over white; CMYK, grey, 1-bit and 16-bit
    images are converted (16 bits are scaled, not cut off); of an animation the first frame is taken, and
    a note says so.

    Errors: `ImageFault` for a file that is missing, not regular, unreadable, empty, no image, damaged, larger
    than `max_megapixels` (checked on the header, before any pixel is decoded), or longer than 200:1.
    """
    _check_file(path)
    return _decode(path, path, max_megapixels)


def read_picture(
    data: bytes,
    name: str,
    max_megapixels: float = MAX_MEGAPIXELS,
    formats: Sequence[str] = FORMATS,
    halve_jpeg: bool = False,
) -> Picture:
    """Return an encoded image in memory (an upload, say) as an upright 8-bit RGB picture, as `open_picture` opens a
    file. `halve_jpeg`: a JPEG that is too large, but not four times so, is read at half its width and height, and
    at no time held as a whole.

    Errors: `ImageFault` with `name` in the file's place, also for a file in none of these `formats`.
    """
    if not data:
        raise ImageFault(name, "the image is empty", "send it again")
    return _decode(io.BytesIO(data), name, max_megapixels, formats, halve_jpeg)


def _decode(
    source: str | PathLike[str] | io.BytesIO,
    path: str | PathLike[str],
    max_megapixels: float,
    formats: Sequence[str] = FORMATS,
    halve_jpeg: bool = False,
) -> Picture:
    """Decode a picture that messages call `path`."""
    Image.init()  # registers every reader, so that FORMATS can be filtered by what this Pillow was built with
    try:
        with warnings.catch_warnings():
            # Our own limit is stated in megapixels and enforced below; Pillow's warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # e.g. corrupt EXIF that stops no decoding
            with Image.open(source, formats=[name for name in formats if name in Image.OPEN]) as opened:
                halving = halve_jpeg and opened.format in ("JPEG", "MPO")
                _check_size(path, opened.size, max_megapixels * (4 if halving else 1))
                if opened.width * opened.height > max_megapixels * 1e6:
                    opened.draft(None, (opened.width // 2, opened.height // 2))
                opened.load()
                notes = _note_frames(opened)
                _turn_upright(opened)
                image, more = _convert_to_rgb(opened)
    except ImageFault:
        raise
    except Image.DecompressionBombError as error:
        raise _report_too_large(path, max_megapixels) from error
    except UnidentifiedImageError as error:
        raise _report_unidentified(path, source, formats) from error
    except MemoryError as error:
        raise ImageFault(path, "not enough memory to decode the image", "shrink it first") from error
    except _DECODE_ERRORS as error:
        cause = f"the image is damaged or cut off ({_shorten(error)})"
        raise ImageFault(path, cause, "export or download it again") from error
    return Picture(image, str(path), notes + more)


def as_picture(image: Image.Image, name: str) -> Picture:
    """Return a Pillow image as an upright 8-bit RGB picture, converted as `open_picture` converts a file's.

    Errors: `ImageFault` with `name` in the file's place, for pixels that cannot be decoded or a shape longer
    than 200:1.
    """
    check_aspect(name, image.size)
    try:
        upright = image.copy()
        _turn_upright(upright)
        rgb, notes = _convert_to_rgb(upright)
    except _DECODE_ERRORS as error:
        cause = f"the image cannot be converted to RGB ({_shorten(error)})"
        raise ImageFault(name, cause, "convert it to RGB first") from error
    return Picture(rgb, name, notes)


def check_aspect(path: str | PathLike[str], size_wh: tuple[int, int]) -> None:
    """Raise `ImageFault` if the model cannot take an image of this shape (longer than 200:1)."""
    long, short = max(size_wh), min(size_wh)
    if short < 1:
        raise ImageFault(path, f"the image has no pixels ({size_wh[0]}x{size_wh[1]})", "export it again")
    if long > MAX_ASPECT * short:
        size = f"{size_wh[0]}x{size_wh[1]}"
        cause = f"the image is {size}, longer than {MAX_ASPECT}:1, which the model cannot take"
        raise ImageFault(path, cause, "crop or split it")


def _check_file(path: str | PathLike[str]) -> None:
    if "://" in str(path):
        raise ImageFault(path, "this is an address, not a file", "download the image first and give its path")
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageFault(path, "this is a folder, not an image", "name the image files inside it")
        if not stat.S_ISREG(found.st_mode):
            raise ImageFault(path, "this is no regular file", "save the image to disk and give that path")
        if found.st_size == 0:
            raise ImageFault(path, "the file is empty", "export or download it again")
        with Path(path).open("rb"):
            pass
    except FileNotFoundError as error:
        raise ImageFault(path, "no such file", "check the path") from error
    except PermissionError as error:
        raise ImageFault(path, "no permission to read the file", "change its permissions") from error
    except OSError as error:
        raise ImageFault(path, f"the file cannot be read ({_shorten(error)})", "check the path") from error
    except ImageFault:
        raise
    except ValueError as error:  # a path with a null byte
        raise ImageFault(path, "this is no valid path", "check the path") from error


def _check_size(path: str | PathLike[str], size_wh: tuple[int, int], max_megapixels: float) -> None:
    if size_wh[0] * size_wh[1] > max_megapixels * 1e6:
        raise _report_too_large(path, max_megapixels, size_wh)
    check_aspect(path, size_wh)


def _report_too_large(
    path: str | PathLike[str], max_megapixels: float, size_wh: tuple[int, int] | None = None
) -> ImageFault:
    size = f" ({size_wh[0]}x{size_wh[1]})" if size_wh else ""
    cause = f"the image{size} is larger than {max_megapixels:g} megapixels and was not decoded"
    return ImageFault(path, cause, "shrink it first")


def _report_unidentified(
    path: str | PathLike[str], source: str | PathLike[str] | io.BytesIO, formats: Sequence[str]
) -> ImageFault:
    if isinstance(source, io.BytesIO):
        head = source.getvalue()[:16]
    else:
        with Path(source).open("rb") as file:
            head = file.read(16)
    remedy = "give a PNG, JPEG, WebP, GIF or BMP file"
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature) and (name != "WebP" or head[8:12] in (b"WEBP", b"")):
            if name.upper() not in formats:
                return ImageFault(path, f"{name} images are not read here", remedy)
            return ImageFault(path, f"the {name} image is damaged or cut off", "export or download it again")
    return ImageFault(path, "this is no image that can be read", remedy)


def _shorten(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (one_line(text[:80]) or type(error).__name__)[:80]


def _note_frames(opened: Image.Image) -> tuple[str, ...]:
    try:
        # Whether there is a second one: to count them, Pillow reads all, in time that grows with their square.
        several = bool(getattr(opened, "is_animated", False))
    except _DECODE_ERRORS:  # the first frame decoded; what follows it is damaged and not needed
        several = True
    if not several:
        return ()
    kinds = {"TIFF": "several pages, first one used", "MPO": "several pictures in one file, first one used"}
    return (kinds.get(opened.format or "", "animated, first frame used"),)


def _turn_upright(image: Image.Image) -> None:
    with suppress(*_DECODE_ERRORS):  # unreadable EXIF says nothing about rotation; the pixels are fine
        ImageOps.exif_transpose(image, in_place=True)


def _convert_to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert any mode that Pillow opens to 8-bit RGB, transparency laid over white.

    What takes several steps is done in strips, so that no step's result is held as a whole.
    """
    grey = _scale_grey(image) if image.mode.startswith("I;16") or image.mode in ("I", "F") else None
    if grey is None and image.mode not in _SEE_THROUGH and "transparency" not in image.info:
        return image.convert("RGB"), ()
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_lay_over_white(_convert_to_8_bit(strip, grey) if grey else strip), (0, top))
    return rgb, (grey.note,) if grey else ()


def _lay_over_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBa", "La"):  # premultiplied: only convertible to their own plain kind
        image = image.convert(image.mode.upper())
    if image.mode not in _SEE_THROUGH and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


class _Scaling(NamedTuple):
    """How grey values become 8 bits: times `scale`, plus `offset`; and the note that says so."""

    scale: float
    offset: float
    note: str


def _scale_grey(image: Image.Image) -> _Scaling:
    """Return how grey of 16 bits, 32 bits or floats becomes 8 bits, by the range the values are written for."""
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:
        low, high = (float(v) for v in image.getextrema())  # type: ignore[arg-type]  # one band: two numbers
    if not (low > float("-inf") and high < float("inf")):
        raise ValueError("values that are not finite numbers")
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and high <= 65535):
        low, high, note = 0.0, 65535.0, "16-bit grey scaled to 8"
    elif low >= 0 and high <= 1:
        low, high, note = 0.0, 1.0, "float grey 0-1 scaled to 8 bits"
    elif low >= 0 and high <= 255:
        low, high, note = 0.0, 255.0, "grey values 0-255 taken as they are"
    else:
        note = f"grey values {low:g} to {high:g} stretched to 8 bits"
    scale = 255.0 / (high - low) if high > low else 0.0
    return _Scaling(scale, 0.5 - low * scale, note)


def _convert_to_8_bit(image: Image.Image, scaling: _Scaling) -> Image.Image:
    hole = image.info.get("transparency")
    wide = image if image.mode in ("I", "F") else image.convert("I")
    # Pillow takes "v * scale + offset" as an affine map on wide modes.
    grey = wide.convert("F").point(lambda v: v * scaling.scale + scaling.offset).convert("L")
    if isinstance(hole, int) and image.mode != "F":
        opaque = ImageMath.lambda_eval(lambda a: a["convert"]((a["v"] != hole) * 255, "L"), v=wide)
        grey = Image.merge("LA", (grey, opaque))
    grey.info.pop("transparency", None)
    return grey
