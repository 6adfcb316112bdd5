"""The embedded model's drawings are told from photographs, and whoever asks it about one is told."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from univg.files import EXAMPLES
from univg.models.familiarity import looks_drawn, note_strange_images
from univg.models.grounder import Grounder
from univg.pictures.images import open_picture
from univg.world import Split, stream

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(("split", "most"), [("test", 0.1), ("unseen", 0.1), ("drawn", 0.0)])
def test_drawings_are_known(split: Split, most: float) -> None:
    """Plain ones always, those of the world, which has noise and grounds like photographs', nearly always."""
    images = [image for made in islice(stream(split, seed=11), 40) for image in made.images]
    assert sum(not looks_drawn(image) for image in images) <= most * len(images)


def test_the_examples_are_known() -> None:
    known = [looks_drawn(open_picture(path).image) for path in EXAMPLES.rglob("*.png")]
    assert sum(known) >= 0.9 * len(known)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs are not here")
@pytest.mark.parametrize("photos", ["bccd_voc", "coco128_yolo"])
def test_photographs_are_strange(photos: str) -> None:
    paths = sorted((SHARED / photos).rglob("*.jpg"))[::8]
    assert len(paths) > 10
    assert sum(looks_drawn(open_picture(path).image) for path in paths) <= 0.1 * len(paths)


def test_the_answer_says_which_images_are_strange() -> None:
    grain = Image.effect_noise((96, 96), 60).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    buffer = io.BytesIO()
    Image.merge("RGB", [grain.rotate(turn).getchannel(0) for turn in (0, 90, 180)]).save(buffer, "JPEG")
    photo, drawing = Image.open(buffer), Image.new("RGB", (96, 96), (200, 40, 40))
    grounder = Grounder.from_pretrained()
    [note] = grounder.ground([photo, drawing, photo], "Where is the dog?", max_new_tokens=8).notes
    assert note.startswith("images 1, 3 do not look like a drawing of simple shapes")
    assert "--model GD-ML/UniVG-R1" in note
    assert grounder.ground([drawing], "Where is the dog?", max_new_tokens=8).notes == ()
    assert note_strange_images("GD-ML/UniVG-R1", [photo]) == (), "of other models nothing is known"
