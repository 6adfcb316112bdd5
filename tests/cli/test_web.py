"""`univg web`: what the page shows, and the page itself in a real process where gradio is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.cli import main as cli
from univg.errors import UnivgError
from univg.files import EXAMPLES
from univg.grounding.samples import read_jsonl
from univg.models.grounder import GroundedBox, Grounder, Grounding
from univg.serve.web import MAX_CHARACTERS, answer

SAMPLE = next(one for one in read_jsonl(EXAMPLES / "samples.jsonl") if len(one.images) == 2)
PATHS = [str(EXAMPLES / name) for name in SAMPLE.images]


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.from_pretrained()


def test_the_answer_is_the_grounders(grounder: Grounder) -> None:
    grounding = grounder.ground(PATHS, SAMPLE.query)
    picture, thought, box = answer(grounder, PATHS, SAMPLE.query)
    assert thought == grounding.thought and str(grounding.boxes[0].box_permille) in box
    assert "which image: " in box and "note: " not in box
    assert picture.width > 100 and picture.mode == "RGB"


def test_what_there_is_to_note_stands_above_the_box(grounder: Grounder, tmp_path: Path) -> None:
    frames = [
        Image.merge("RGB", [Image.effect_noise((60, 60), 60 + step) for _ in "rgb"]) for step in range(3)
    ]
    frames[0].save(tmp_path / "grain.gif", save_all=True, append_images=frames[1:])
    *_, box = answer(grounder, [str(tmp_path / "grain.gif")], "Where is the circle?")
    assert box.startswith("note: image 1 (grain.gif): animated, first"), (
        "its name, not its place on this machine"
    )
    assert box.splitlines()[1].startswith("note: image 1 does not look like a drawing of simple shapes")
    assert "which image" not in box, "there is only one"


def test_every_one_is_asked_for_told_and_drawn(grounder: Grounder, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = tuple(
        GroundedBox(image, (1, 2, 3, 4), (0.1, 0.1, 0.5, 0.5), (100, 100, 500, 500), 0.5) for image in (1, 0)
    )
    found = Grounding(None, boxes, "answer", None, 0.8, "…", "m", 1.0, style="set")
    asked: list[Any] = []
    monkeypatch.setattr(Grounder, "ground", lambda *args, style, **rest: asked.append(style) or found)
    picture, _, told = answer(grounder, PATHS, "Every circle.", 3, every=True)
    bare, *_ = answer(grounder, PATHS, "Every circle.", 3)
    assert asked == [grounder.set_style, None] and grounder.set_style == "set" and picture.size == bare.size
    assert told.splitlines() == [
        "box 1, image 2: (1, 2, 3, 4) in pixels, (100, 100, 500, 500) in thousandths, agreement 0.50",
        "box 2, image 1: (1, 2, 3, 4) in pixels, (100, 100, 500, 500) in thousandths, agreement 0.50",
        "agreement of 3 responses: 0.80",
    ]
    found = Grounding(None, (), "last", None, None, "none", "m", 1.0, says_none=True, style="set")
    assert answer(grounder, PATHS, "Every dog.", every=True)[2] == "Nothing of the kind."


FAULTS: list[tuple[str, list[str], str, str]] = [
    ("no image", [], "a", "0 images: give 1 to 16"),
    ("too many images", PATHS * 9, "a", "18 images: give 1 to 16"),
    ("no question", PATHS, " ", "the question is empty"),
    ("a long question", PATHS, "a" * (MAX_CHARACTERS + 1), "2001 characters: use 2000 at most"),
    ("more tokens than the model holds", PATHS, "狗" * MAX_CHARACTERS, "more than the model's 4096"),
    ("no image that can be read", ["phone.heic"], "a", r"can be read: image 1 \(phone.heic\): give a PNG"),
    ("a damaged image", [PATHS[0], "cut.png"], "a", r"damaged or cut off.*: image 2 \(cut.png\)"),
    ("an empty file", ["empty.png"], "a", r"empty: image 1 \(empty.png\)"),
    (
        "an image that was deleted",
        ["gone.png"],
        "a",
        r"kept for 60 minutes.*: image 1 \(gone.png\): remove it",
    ),
    (
        "too many pixels together",
        ["large.png"] * 2,
        "a",
        r"larger than 19 megapixels.*: image 2 \(large.png\)",
    ),
]


@pytest.mark.parametrize(
    ("paths", "query", "told"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_what_cannot_be_asked(
    paths: list[str], query: str, told: str, grounder: Grounder, tmp_path: Path
) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tmp_path / "cut.png").write_bytes(Path(PATHS[0]).read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    with pytest.raises(UnivgError, match=told) as raised:
        answer(grounder, [str(tmp_path / path) for path in paths], query)
    assert "\n" not in str(raised.value) and str(tmp_path) not in str(raised.value)


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_gradio_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["web"]) == 2
    assert "univg[web]" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page in a process of its own, which leaves no file behind."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the page needs: pip install 'univg[web]'")
    kept = tmp_path_factory.mktemp("kept")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "univg", "web", "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(kept)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        yield url
        assert list(kept.glob("univg-web-*/**/*.png")), "the images that were given"
    finally:
        process.terminate()
        told = process.communicate(timeout=180)[1]
    assert process.returncode == 0 and not list(kept.glob("univg-web-*"))
    assert f"the page is at {url}" in told


def ask_as_a_browser(url: str, gallery: list[Any], query: str) -> list[Any]:
    """What the button on the page shows: picture, thought and box."""
    import httpx

    config = httpx.get(f"{url}/config").json()
    [button] = [one["id"] for one in config["components"] if one["props"].get("value") == "Ground"]
    [asked] = [one for one in config["dependencies"] if [button, "click"] in one["targets"]]
    body = {"data": [gallery, query, 1, False], "fn_index": asked["id"], "session_hash": "browser"}
    httpx.post(f"{url}/gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{url}/gradio_api/queue/data?session_hash=browser", timeout=120) as events:
        for line in events.iter_lines():
            if line.startswith("data:") and (event := json.loads(line[5:]))["msg"] == "process_completed":
                return list(event["output"]["data"])
    raise AssertionError("the page did not answer")


def test_the_page_answers_programs(page: str, grounder: Grounder) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(page, verbose=False)
    gallery = [{"image": handle_file(path), "caption": None} for path in PATHS]
    picture, thought, box = client.predict(gallery, SAMPLE.query, 1, api_name="/ground")
    assert thought == grounder.ground(PATHS, SAMPLE.query).thought and "thousandths" in box
    assert Path(picture).is_file()
    for asked, told in (
        (([], SAMPLE.query, 1), "0 images"),
        ((gallery, "", 1), "the question is empty"),
        ((gallery, "a", 99), "Value 99 is greater than maximum"),
    ):
        with pytest.raises(AppError, match=told):
            client.predict(*asked, api_name="/ground")


def test_the_page_says_on_itself_why_there_is_no_answer(page: str) -> None:
    assert ask_as_a_browser(page, [], "Where is the dog?") == [
        None,
        "",
        "error: 0 images: give 1 to 16 image files, of at most 32 MB each",
    ]


def test_the_page_shows_images_whole_and_numbered_and_shares_nothing(page: str) -> None:
    from gradio_client import Client

    config = Client(page, verbose=False).config
    props = {one["props"].get("label"): one["props"] for one in config["components"]}
    assert props["Images, in order"]["object_fit"] == "contain"
    [examples] = [one for one in config["components"] if one["type"] == "dataset"]
    shown = examples["props"]["samples"][0][0]
    assert [one["caption"] for one in shown] == ["image 1", "image 2"]
    assert not any("share" in (one["props"].get("buttons") or ()) for one in config["components"])
    assert not config["footer_links"] and props["Question"]["max_length"] == MAX_CHARACTERS
