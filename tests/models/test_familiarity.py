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
from univg.world import stream

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_the_world_is_known(split: str) -> None:
    strange = [
        sample.sample.key
        for sample in islice(stream(split, seed=11, difficulty=1.0, version=1), 300)  # type: ignore[arg-type]
        if note_strange_images("embedded", sample.images)
    ]
    assert not strange


def test_the_examples_are_known() -> None:
    assert all(looks_drawn(open_picture(path).image) for path in EXAMPLES.rglob("*.png"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs are not here")
@pytest.mark.parametrize("photos", ["bccd_voc", "coco128_yolo"])
def test_photographs_are_strange(photos: str) -> None:
    paths = sorted((SHARED / photos).rglob("*.jpg"))[::8]
    assert len(paths) > 10
    assert [path.name for path in paths if looks_drawn(open_picture(path).image)] == []


def test_the_answer_says_which_images_are_strange() -> None:
    grain = Image.effect_noise((96, 96), 60).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    buffer = io.BytesIO()
    Image.merge("RGB", [grain.rotate(turn).getchannel(0) for turn in (0, 90, 180)]).save(buffer, "JPEG")
    photo, drawing = Image.open(buffer), Image.new("RGB", (96, 96), (200, 40, 40))
    grounder = Grounder.from_pretrained()
    [note] = grounder.ground([photo, drawing, photo], "Where is the dog?", max_new_tokens=8).notes
    assert note.startswith("images 1, 3 do not look like univg's procedural world")
    assert "--model GD-ML/UniVG-R1" in note
    assert grounder.ground([drawing], "Where is the dog?", max_new_tokens=8).notes == ()
    assert note_strange_images("GD-ML/UniVG-R1", [photo]) == (), "of other models nothing is known"


def test_a_set_is_more_than_the_embedded_model_has_learnt() -> None:
    grounder, drawing = Grounder.from_pretrained(), Image.new("RGB", (96, 96), (200, 40, 40))
    for style, told in ((None, 0), (grounder.set_style, 1)):
        notes = grounder.ground([drawing], "Every circle.", style=style, max_new_tokens=4).notes
        assert len(notes) == told and all("sets-sft" in note for note in notes)
