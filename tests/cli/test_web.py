"""`univg web`: what the page shows, and the page itself in a real process where gradio is installed."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from univg.cli import main as cli
from univg.errors import UnivgError
from univg.files import EXAMPLES
from univg.grounding.samples import read_jsonl
from univg.models.grounder import Grounder
from univg.pictures.images import ImageFault
from univg.serve.web import answer

SAMPLE = next(one for one in read_jsonl(EXAMPLES / "samples.jsonl") if len(one.images) == 2)
PATHS = [str(EXAMPLES / name) for name in SAMPLE.images]


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.from_pretrained()


def test_the_answer_is_the_grounders(grounder: Grounder) -> None:
    grounding = grounder.ground(PATHS, SAMPLE.query)
    picture, thought, box = answer(grounder, PATHS, SAMPLE.query)
    assert thought == grounding.thought and str(grounding.boxes[0].box_permille) in box
    assert picture.width > 100 and picture.mode == "RGB"


def test_what_cannot_be_asked(grounder: Grounder, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for paths, query in (([], "a"), (PATHS * 9, "a"), (PATHS, " ")):
        with pytest.raises(UnivgError, match=r"images|question"):
            answer(grounder, paths, query)
    with pytest.raises(ImageFault):
        answer(grounder, [str(tmp_path / "a.png")], "a")


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_gradio_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["web"]) == 2
    assert "univg[web]" in capsys.readouterr().err


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="the page needs: pip install 'univg[web]'"
)
def test_the_page_answers(grounder: Grounder) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "univg", "web", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        client = Client(url, verbose=False)
        gallery = [{"image": handle_file(path), "caption": None} for path in PATHS]
        picture, thought, box = client.predict(gallery, SAMPLE.query, 1, api_name="/ground")
        assert thought == grounder.ground(PATHS, SAMPLE.query).thought and "thousandths" in box
        assert Path(picture).is_file()
        with pytest.raises(AppError, match="0 images"):
            client.predict([], SAMPLE.query, 1, api_name="/ground")
    finally:
        process.terminate()
        process.wait(30)
