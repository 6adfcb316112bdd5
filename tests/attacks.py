"""Requests that are made to cost a server much more than they cost their sender.

`BODIES` are JSON of a chosen size, `PICTURES` are files. What a server does with each is up to its tests; that it goes
on answering others, in bounded memory, is what they have in common.
"""

from __future__ import annotations

import io
import json
import re
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from univg.pictures.pages import data_url

__all__ = ["BODIES", "PICTURES", "list_processes", "measure_bodies", "read_mib", "with_picture"]

HEAD = b'{"model": "embedded", "max_tokens": 1, "messages": [{"role": "user", "content": '
IMAGE = b'[{"type":"image_url","image_url":"data:'


def with_picture(data: bytes, count: int = 1) -> bytes:
    """Return a body that shows a file, `count` times."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": data_url(data, "png")}}] * count
    return HEAD + json.dumps([*parts, "Where?"]).encode() + b"}]}"


def _fill(start: bytes, piece: bytes, end: bytes, glue: bytes = b",") -> Callable[[int], bytes]:
    """Return a function that makes a body of `size` bytes, most of them `piece` again and again."""
    return lambda size: start + (piece + glue) * (size // len(piece + glue) - 1) + piece + end


def _content(start: bytes, piece: bytes, end: bytes, glue: bytes = b",") -> Callable[[int], bytes]:
    return _fill(HEAD + start, piece, end + b"}]}", glue)


def _field(start: bytes, piece: bytes, end: bytes, glue: bytes = b",") -> Callable[[int], bytes]:
    return _fill(HEAD + b'"a"}], ' + start, piece, end + b"}", glue)


def _keys(start: bytes, length: int, end: bytes) -> Callable[[int], bytes]:
    """Return a function that makes a body of many different keys."""

    def make(size: int) -> bytes:
        keys = [b'"%0*d":1' % (length, at) for at in range(size // (length + 5))]
        return HEAD + b'"a"}], ' + start + b",".join(keys) + end + b"}"

    return make


BODIES: Mapping[str, Callable[[int], bytes]] = {
    "messages that are numbers": _fill(b'{"model": "embedded", "messages": [', b"0", b"]}"),
    "messages that are empty": _fill(b'{"model": "embedded", "messages": [', b"{}", b"]}"),
    "messages of one letter": _fill(
        b'{"model": "embedded", "messages": [', b'{"role":"user","content":"a"}', b"]}"
    ),
    "texts of nothing": _content(b"[", b'{"type":"text","text":""}', b"]"),
    "texts that are numbers": _content(b"[", b'{"type":"text","text":0}', b"]"),
    "strings of nothing": _content(b"[", b'""', b"]"),
    "images without end": _content(b"[", b'{"type":"image_url","image_url":{"url":"data:;base64,AAAA"}}', b"]"),
    "lists in a harmless field": _field(b'"user": [', b"[]", b"]"),
    "a nest": _field(b'"user": ', b"[", b"", b""),
    "a nest of objects": _field(b'"metadata": ', b'{"a":', b"", b""),
    "nests side by side": _field(b'"metadata": [', b"[" * 150 + b"]" * 150, b"]"),
    "nulls": _field(b'"metadata": [', b'{"a":null}', b"]"),
    "one key again and again": _field(b'"metadata": {', b'"a":{}', b"}"),
    "many keys": _keys(b'"metadata": {', 8, b"}"),
    "many long keys": _keys(b'"metadata": {', 700, b"}"),
    "unknown fields": _keys(b"", 8, b""),
    "unknown options": _keys(b'"stream_options": {', 8, b"}"),
    "a long unknown field": _field(b'"', b"x", b'": 1', b""),
    "a long key of a message": _fill(HEAD + b'"a", "', b"\\n", b'": 1}]}', b""),
    "a long model": _fill(b'{"messages": [{"role": "user", "content": "a"}], "model": "', b"\\u0000", b'"}', b""),
    "a long type of part": _content(b'[{"type": "', b"\\u0001", b'"}]', b""),
    "a long role": _fill(b'{"model": "embedded", "messages": [{"content": "a", "role": "', b"\\u0001", b'"}]}', b""),
    "a long seed": _field(b'"seed": ', b"9", b"", b""),
    "a seed of 4000 digits": lambda size: HEAD + b'"a"}], "seed": ' + b"9" * 4000 + b"}",
    "a limit of 4000 digits": lambda size: HEAD + b'"a"}], "n": ' + b"9" * 4000 + b"}",
    "long numbers": _field(b'"user": [', b"9" * 4000, b"]"),
    "a long fraction": _field(b'"temperature": 0.', b"9", b"", b""),
    "a long exponent": _field(b'"temperature": 1e', b"9", b"", b""),
    "fractions": _field(b'"user": [', b"1e-9", b"]"),
    "numbers that are none": _field(b'"user": [', b"NaN", b"]"),
    "a long stop": _field(b'"stop": "', b"x", b'"', b""),
    "stops without end": _field(b'"stop": [', b"0", b"]"),
    "a list of modalities": _field(b'"modalities": [', b'"text"', b"]"),
    "halves of pairs": _content(b'"', b"\\ud800", b'"', b""),
    "escapes": _content(b'"', b"\\u4e00", b'"', b""),
    "control characters": _content(b'"', b"\\u0001", b'"', b""),
    "a long text": _content(b'"', b"x", b'"', b""),
    "a long text, one sign of it wide": _content('"😀'.encode(), b"x", b'"', b""),
    "a text as long as may be": lambda size: HEAD + b'"' + b"x" * min(size, 199_000) + b'"}]}',
    "a text of commas": lambda size: HEAD + b'"' + b"," * min(size, 60_000) + b'"}]}',
    "a long thought": _fill(
        b'{"model": "embedded", "messages": [{"role": "assistant", "content": "<think>a</think>", "reasoning": "',
        *(b"x", b'"}, {"role": "user", "content": "a"}]}', b""),
    ),
    "blanks": _fill(b'{"model": "embedded", "messages": ', b" ", b"[]}", b""),
    "an address, one sign of it wide": _content(IMAGE + ";base64,😀".encode(), b"A", b'"}]', b""),
    "an address of escapes": _content(IMAGE + b";base64,", b"%41", b'"}]', b""),
    "an address of lines": _content(IMAGE + b";base64,", b"A\\n", b'"}]', b""),
    "an address of escaped lines": _content(IMAGE + b";base64,", b"%0A", b'"}]', b""),
    "an address of heads": _content(IMAGE, b";", b',AAAA"}]', b""),
    "no JSON at all": _fill(b"", b"\xff", b"", b""),
}  # fmt: skip


def measure_bodies() -> None:
    """Read each body in this process, and print what it cost: name, bytes, seconds of computing, by how many MiB the
    memory grew at its highest, what was told."""
    from univg.serve.config import Limits
    from univg.serve.errors import ApiError
    from univg.serve.requests import read_request

    limits, most = Limits(), 4 << 20
    for name, make in BODIES.items():
        sample = make(1 << 18)
        values = sum(sample.count(sign) for sign in (b",", b"[", b"{"))
        # Of many bytes, and of as many values as are allowed.
        for size in sorted({most, min(most, int(limits.values * 0.98 / (values + 1) * (1 << 18)))}):
            body = bytearray(make(size))
            Path("/proc/self/clear_refs").write_text("5")
            before, started = read_mib("VmHWM"), time.process_time()
            try:
                read_request(body, limits).chat()
                told = "read"
            except ApiError as error:
                told = error.body()["error"]["message"]
            seconds = time.process_time() - started
            print(json.dumps([name, len(body), seconds, read_mib("VmHWM") - before, told]), flush=True)


def read_mib(name: str, process: Path = Path("/proc/self")) -> float:
    """Return what Linux says of a process's memory: VmRSS now, VmHWM at its highest. Raises OSError if it has ended."""
    found = re.search(rf"{name}:\s+(\d+)", (process / "status").read_text())
    if found is None:
        raise ProcessLookupError(process)
    return int(found[1]) / 1024


def list_processes(pid: int) -> list[Path]:
    """Return the directories in /proc of a process and of those it started."""
    children = [
        one for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()
    ]
    return [Path(f"/proc/{one}") for one in (str(pid), *children)]


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _flat_png(mode: str, width: int, height: int, rows: int | None = None) -> bytes:
    """Return a PNG of one colour without ever holding its pixels; `rows`: only so many are there."""
    colour, deep = {"RGBA": (6, 4), "RGB": (2, 3), "P": (3, 1), "L": (0, 1)}[mode]
    packer, row, packed = zlib.compressobj(1), bytes(1 + deep * width), []
    for _ in range(height if rows is None else rows):
        packed.append(packer.compress(row))
    packed.append(packer.flush())
    palette = [_chunk(b"PLTE", bytes(768)), _chunk(b"tRNS", b"\x7f" * 256)] if mode == "P" else []
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return _png([_chunk(b"IHDR", header), *palette, _chunk(b"IDAT", b"".join(packed))])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(chunks: list[bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + _chunk(b"IEND", b"")


def _png_with(*chunks: bytes) -> bytes:
    """Return a small PNG with further chunks in front of its pixels."""
    header = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return _png([_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", zlib.compress(bytes(13 * 4)))])


def _tiff(pages: int) -> bytes:
    """Return a TIFF that lists `pages` pages, all of the same one pixel."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (278, 3, 1, 1)]
    entries.append((279, 4, 1, 1))
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    length = 2 + len(fields) + 4
    page = struct.pack("<H", len(entries)) + fields
    offsets = [struct.pack("<I", 12 + length * (at + 1)) for at in range(pages - 1)] + [bytes(4)]
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + b"".join(page + after for after in offsets)


_GIF = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
_GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"


def _gif_of_wide_canvas(side: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6) + _GIF_FRAME * 2 + b";"


def _jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again: each goes over all of the picture."""
    whole = _save(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    start = whole.rindex(b"\xff\xda")
    return whole[:start] + whole[start:-2] * scans + b"\xff\xd9"


def _jpeg_of_markers() -> bytes:
    return b"\xff\xd8" + b"\xff\xe2\0\x02" * 4_000_000 + _save(Image.new("L", (4, 4)), "JPEG")[2:]


def _jpeg_with_exif(length: int) -> bytes:
    """Return a JPEG whose EXIF says of many fields that each is all of the EXIF's bytes."""
    count = 60_000 // 12
    fields = b"".join(struct.pack("<HHII", 40_000 + at, 7, length - 64_000, 8) for at in range(count))
    exif = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count) + fields + bytes(4)
    exif = exif.ljust(length, b"\0")
    whole = _save(Image.new("RGB", (4, 4)), "JPEG")
    pieces = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    blocks = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(piece) + 8) + b"Exif\0\0" + piece for piece in pieces
    )
    return whole[:2] + blocks + whole[2:]


def _bmp_of_runs(side: int) -> bytes:
    """Return a BMP of `side` x `side` pixels in runs of one pixel, which Pillow unpacks in Python."""
    runs = (b"\1\0" * side + b"\0\0") * side + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + bytes(1024) + runs


def _ico(side: int) -> bytes:
    """Return an icon whose picture is larger than it says."""
    picture = _flat_png("RGB", side, side, 9)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


def _zipped(head: bytes, megabytes: int) -> bytes:
    return head + zlib.compress(bytes(megabytes << 20), 1)


def _webp(frames: int) -> bytes:
    first = Image.new("RGB", (16, 16))
    others = [Image.new("RGB", (16, 16), (at % 256, at // 256 % 256, 0)) for at in range(1, frames)]
    return _save(first, "WEBP", save_all=True, append_images=others)


PICTURES: Mapping[str, Callable[[], bytes]] = {
    "a TIFF of many pages": lambda: _tiff(50_000),
    "a GIF of many frames": lambda: _GIF + _GIF_FRAME * 1_000_000 + b";",
    "a GIF of comments": lambda: _GIF + b"!\xfe" + (b"\xff" + b"c" * 255) * 80_000 + b"\0" + _GIF_FRAME + b";",
    "a GIF of many comments": lambda: _GIF + b"!\xfe\1c\0" * 4_000_000 + _GIF_FRAME + b";",
    "a GIF of a wide canvas": lambda: _gif_of_wide_canvas(7000),
    "a WebP of many frames": lambda: _webp(3000),
    "a PNG of much text": lambda: _png_with(*[_chunk(b"zTXt", _zipped(b"a\0\0", 1)) for _ in range(80)]),
    "a PNG of a large profile": lambda: _png_with(_chunk(b"iCCP", _zipped(b"a\0\0", 200))),
    "a PNG of many chunks": lambda: _png_with(*[_chunk(b"teSt", b"")] * 2_000_000),
    "a JPEG of many markers": _jpeg_of_markers,
    "a JPEG of many scans": lambda: _jpeg_of_scans(7000, 1000),
    "a BMP of short runs": lambda: _bmp_of_runs(3000),
    "an icon past the bound": lambda: _ico(12_000),
    "a PNG of 39 megapixels": lambda: _flat_png("RGBA", 6250, 6250),
    "a PNG of 39 megapixels, palette": lambda: _flat_png("P", 6250, 6250),
    "a PNG of 99 megapixels": lambda: _flat_png("RGBA", 9990, 9990, 9),
    "a JPEG of much EXIF": lambda: _jpeg_with_exif(4 << 20),
    "a JPEG of 156 megapixels": lambda: _save(Image.new("L", (12_500, 12_500)), "JPEG"),
}  # fmt: skip
