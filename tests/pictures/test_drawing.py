"""Boxes land on their pixels, sheets hold what they are given, and a failed write leaves no half file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg.pictures import fonts as finding
from univg.pictures.drawing import (
    ANSWER,
    WHITE,
    draw_box,
    draw_contact_sheet,
    draw_side_by_side,
    draw_targets,
    draw_text,
    fit,
    save_picture,
)

GREY = (90, 90, 90)


def plain(width: int = 100, height: int = 100, colour: tuple[int, int, int] = GREY) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def coloured(image: Image.Image, colour: tuple[int, int, int] = ANSWER) -> tuple[int, int, int, int] | None:
    """The extent (left, top, right, bottom; exclusive) of the pixels of exactly `colour`."""
    hits = np.argwhere((np.asarray(image) == colour).all(axis=2))
    if not len(hits):
        return None
    (top, left), (bottom, right) = hits.min(axis=0), hits.max(axis=0) + 1
    return int(left), int(top), int(right), int(bottom)


def test_the_line_runs_just_outside_the_box() -> None:
    drawn = draw_box(plain(), (0.2, 0.3, 0.6, 0.8))
    left, top, right, bottom = coloured(drawn) or (0, 0, 0, 0)
    assert (left, top, right, bottom) == (18, 28, 62, 82)  # a line of 2 pixels around (20, 30, 60, 80)
    halo = 1
    inside = np.asarray(drawn)[30 + halo : 80 - halo, 20 + halo : 60 - halo]
    assert (inside == GREY).all(), "what is in the box stays visible"


def test_the_image_given_is_not_changed() -> None:
    image = plain()
    draw_box(image, (0.2, 0.3, 0.6, 0.8), "answer")
    assert (np.asarray(image) == GREY).all()


def test_a_box_around_everything_is_seen() -> None:
    assert coloured(draw_box(plain(), (0, 0, 1, 1))) == (0, 0, 100, 100)


@pytest.mark.parametrize("colour", [ANSWER, WHITE, (0, 0, 0)])
def test_the_line_shows_on_any_background(colour: tuple[int, int, int]) -> None:
    before = plain(200, 200, colour)
    changed = (np.asarray(draw_box(before, (0.2, 0.2, 0.6, 0.6))) != np.asarray(before)).any(axis=2)
    assert changed.sum() > 200


@given(
    size_wh=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    box=st.tuples(*[st.floats(-3, 3)] * 4),
    label=st.none() | st.text(max_size=30),
)
def test_any_box_on_any_size_is_drawn(
    size_wh: tuple[int, int], box: tuple[float, float, float, float], label: str | None
) -> None:
    drawn = draw_box(plain(*size_wh), box, label)
    assert drawn.size == size_wh
    assert drawn.mode == "RGB"
    assert coloured(drawn) is not None


def test_a_box_without_finite_corners_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        draw_box(plain(), (0, 0, float("nan"), 1))


@pytest.mark.parametrize("top", [0.0, 0.3, 0.97])
def test_a_label_stays_inside_the_image(top: float) -> None:
    bare = draw_box(plain(400, 300), (0.9, top, 1.0, 1.0))
    labelled = draw_box(plain(400, 300), (0.9, top, 1.0, 1.0), "answer")
    area = coloured(labelled) or (0, 0, 0, 0)
    assert (np.asarray(labelled) != np.asarray(bare)).any()
    assert area[2] <= 400
    assert area[0] < 350, "pushed left, so that all of it is readable"


def test_lines_and_letters_grow_with_the_image() -> None:
    small, large = draw_box(plain(), (0.4, 0.4, 0.6, 0.6)), draw_box(plain(4000, 4000), (0.4, 0.4, 0.6, 0.6))
    width = [40 - (coloured(small) or (0,))[0], 1600 - (coloured(large) or (0,))[0]]
    assert width[0] == 2
    assert width[1] == 36


def test_side_by_side_marks_only_the_image_with_the_box() -> None:
    images = [plain(120, 80), plain(80, 120), plain(300, 30)]
    bare = draw_side_by_side(images, captions=["a", "b", "c"], title="Which one?")
    drawn = draw_side_by_side(images, [[], [(0.2, 0.2, 0.8, 0.8)], []], ["a", "b", "c"], title="Which one?")
    assert bare.size == drawn.size
    changed = np.argwhere((np.asarray(bare) != np.asarray(drawn)).any(axis=2))
    assert len(changed) > 0
    first = bare.width - 2 * 448  # the first image, 1.5 times as wide as high, is left of every change
    assert changed[:, 1].min() > first / 4


@pytest.mark.parametrize(
    "sizes",
    [[(1, 1)], [(1000, 100)], [(100, 1000)] * 6, [(1, 200), (200, 1)], [(30, 30)] * 4, [(64, 48)] * 10],
)
def test_side_by_side_takes_any_shapes(sizes: list[tuple[int, int]]) -> None:
    sheet = draw_side_by_side([plain(*size) for size in sizes], cell_px=64, captions=["x" * 200] * len(sizes))
    assert sheet.width < 64 * 4 * 3
    assert sheet.getpixel((0, 0)) == WHITE


def test_the_footer_and_the_title_are_added_below_and_above() -> None:
    def height(title: str | None = None, footer: Sequence[str] = ()) -> int:
        return draw_side_by_side([plain()], title=title, footer=footer).height

    assert height() < height("why?") < height("why?", ["because"]) < height("why?", ["because " * 60])


@pytest.mark.parametrize("draw", [lambda: draw_side_by_side([]), lambda: draw_contact_sheet([])])
def test_nothing_to_show_is_an_error(draw: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw()


def test_a_contact_sheet_draws_the_target_only() -> None:
    box = (0.25, 0.25, 0.75, 0.75)

    def sheet(targets: Sequence[int | None]) -> Image.Image:
        return draw_contact_sheet(
            ((([plain()] * 3), box, target, ["diff", "Which? " * 30, "0" * 64]) for target in targets),
            columns=2,
        )[0]

    # The coloured pixels of a sheet are those of the box and of the word "target" in anti-aliased letters.
    assert coloured(sheet([None, None])) is None
    left, _, right, _ = coloured(sheet([1])) or (0, 0, 0, 0)
    assert 200 < left < right < 420, "only in the second of three images of 200 pixels"
    assert sheet([0, 1, 2]).height > sheet([0, 1]).height


def test_several_targets_are_drawn_and_their_images_named() -> None:
    images = [plain(), plain(), plain()]
    targets = [(0, (0.1, 0.1, 0.5, 0.5)), (2, (0.2, 0.2, 0.9, 0.9)), (None, (0.0, 0.0, 1.0, 1.0))]
    drawn = draw_targets(images, targets)
    assert [one.tobytes() != image.tobytes() for one, image in zip(drawn, images, strict=True)] == [
        True,
        False,
        True,
    ]
    assert images[0].tobytes() == plain().tobytes(), "what was given is not changed"

    def name(index: Any) -> Image.Image:
        return draw_contact_sheet([(images, None, index, ["a"])], thumb_px=60)[0]

    def count(sheet: Image.Image) -> int:
        pixels = np.asarray(sheet)
        return int(((pixels[..., 0] > 180) & (pixels[..., 1] < 120)).sum())

    assert (
        count(name({0, 2})) == count(name(0)) + count(name(2)) > count(name(None)) == count(name(set())) == 0
    )
    assert name({1}).tobytes() == name(1).tobytes()


def test_labels_beside_boxes_and_several_captions() -> None:
    box, captions = (0.2, 0.4, 0.8, 0.9), ["a", "b"]
    images = [plain(200, 200), plain(200, 200)]
    bare, named = (draw_side_by_side(images, [[one], []], captions) for one in (box, (box, "7")))
    assert bare.size == named.size and bare.tobytes() != named.tobytes()
    marked = [
        draw_side_by_side(images, captions=captions, highlight=which) for which in (0, [0], [0, 1], None, [])
    ]
    assert marked[0].tobytes() == marked[1].tobytes() != marked[2].tobytes()
    assert marked[3].tobytes() == marked[4].tobytes() != marked[0].tobytes()


def test_a_contact_sheet_of_mixed_image_counts() -> None:
    cells = [([plain(50 + n, 70)] * n, None, None, ["family"] * n) for n in (1, 6, 2, 0)]
    sheet, shown = draw_contact_sheet(cells, columns=3, thumb_px=60)
    assert shown == 4
    assert 3 * 3 * 60 < sheet.width < 3 * 4 * 60
    assert sheet.height > 3 * 60, "six images stand in two rows"


@pytest.mark.parametrize(("n", "images", "words"), [(60, 6, 30), (60, 1, 3), (2, 40, 900)])
def test_a_contact_sheet_is_no_higher_than_a_viewer_takes(n: int, images: int, words: int) -> None:
    cell = ([plain()] * images, None, None, ["family", "word " * words])
    sheet, shown = draw_contact_sheet([cell] * n, columns=3, thumb_px=220, title="a title " * 20, of=2000)
    row, one = draw_contact_sheet([cell] * min(n, 3), columns=3, thumb_px=220)
    assert (sheet.height <= 4000 and shown % 3 == 0) or (shown == one == n and row.height > 3700)
    assert shown == n or sheet.height + row.height > 3800, "no fewer than fit"


def test_marks_for_models_are_not_drawn() -> None:
    marked, words = "Find <|object_ref_start|>the dog<|object_ref_end|>.", "Find the dog."
    assert draw_text([marked], 200, 14).tobytes() == draw_text([words], 200, 14).tobytes()


@given(text=st.text(max_size=300), width=st.integers(1, 400), size=st.integers(8, 40))
def test_any_text_can_be_set(text: str, width: int, size: int) -> None:
    assert draw_text([text], width, size).width == width


def test_long_words_and_lines_are_wrapped_within_the_width() -> None:
    block = draw_text(["a " * 200, "f" * 500], 200, 14)
    dark = np.argwhere((np.asarray(block) < 128).all(axis=2))
    assert block.height > 14 * 10
    assert dark[:, 1].max() < 200


def test_letters_beyond_the_built_in_font_are_drawn_or_simplified() -> None:
    def ink(text: str) -> bytes:
        return draw_text([text], 120, 20).tobytes()

    assert ink("café") == ink("cafe")
    assert ink("2 × 3 – 4") == ink("2 x 3 - 4")


@pytest.mark.parametrize(
    ("fonts", "arabic"),
    [
        (["no.ttf"], False),
        (["cmr10.ttf", "no.ttf", "DejaVuSans.ttf"], True),
    ],  # those of matplotlib; none has Chinese
)
def test_letters_without_a_font_are_counted_never_squares(
    fonts: list[str], arabic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    monkeypatch.setattr(finding, "_list_fonts", lambda: iter(str(folder / name) for name in fonts))
    monkeypatch.setattr(finding, "_find_font", finding._find_font.__wrapped__)

    def ink(text: str) -> bytes:
        return draw_text([text], 400, 20).tobytes()

    assert ink("a 狗在哪里? b") == ink("a [letters without a font: 4]? b")
    assert (ink("سلام") != ink("[letters without a font: 4]")) == arabic


def test_a_label_without_a_font_is_drawn() -> None:
    wide = plain(400, 200)
    assert coloured(draw_box(wide, (0.2, 0.5, 0.4, 0.8), "狗狗")) != coloured(
        draw_box(wide, (0.2, 0.5, 0.4, 0.8))
    )


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [((100, 50), (64, 32)), ((1, 1), (8, 8)), ((1000, 1), (64, 1)), ((64, 64), (64, 64))],
)
def test_fit(size_wh: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit(plain(*size_wh), 64).size == expected


class _FullDisk:
    """A file whose disk is full after a few bytes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *reason: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.file.write(data[:20])
        self.file.flush()
        raise OSError(28, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        if name == "fileno":  # else encoders write past us, straight to the descriptor
            raise AttributeError(name)
        return getattr(self.file, name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    save_picture(plain(), path)
    before = path.read_bytes()
    open_truly = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *args, **options: _FullDisk(open_truly(self, *args, **options))
    )
    with pytest.raises(OSError, match="No space left"):
        save_picture(plain(500, 500), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_saving_writes_the_format_of_the_suffix(tmp_path: Path) -> None:
    for name, kind in [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")]:
        assert save_picture(plain(), tmp_path / name) == tmp_path / name
        with Image.open(tmp_path / name) as written:
            assert written.format == kind
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("name", ["a", "a.txt", "a.exe"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="suffix"):
        save_picture(plain(), tmp_path / name)
    assert not os.listdir(tmp_path)
