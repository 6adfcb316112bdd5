"""Requests that are made to cost much: what each may take, and who else is still answered."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from attacks import BODIES, PICTURES, list_processes, read_mib, with_picture

pytest.importorskip("uvicorn", reason="the server needs: pip install 'univg[serve]'")

from serving import get, post, starting, wait_for
from univg.models.generation.generate import Chat
from univg.models.loading import Loaded
from univg.models.pixels import PixelBudget
from univg.pictures.pages import data_url
from univg.serve import service as services
from univg.serve.config import Limits, ServeConfig
from univg.serve.decoders import Decoders
from univg.serve.errors import ApiError
from univg.serve.images import Bounds, read_images
from univg.serve.service import Service

on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
BUDGET = PixelBudget()
FACTOR = 28
MIB = 1 << 20


@pytest.fixture(scope="module")
def costs() -> list[tuple[str, int, float, float, str]]:
    """What each body cost a process of its own: name, bytes, seconds of computing, MiB at most, what was told."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from attacks import measure_bodies; measure_bodies()"
    # What is freed is given back at once, so that each is measured by itself.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    return [tuple(json.loads(line)) for line in found.splitlines()]


@on_linux
@pytest.mark.parametrize("name", BODIES)
def test_a_body_costs_a_small_multiple_of_its_length(name: str, costs: list[Any]) -> None:
    mine = [one for one in costs if one[0] == name]
    assert mine
    for _, length, seconds, mib, told in mine:
        assert seconds < 10 and mib < 8 * length / MIB + 100, told
        assert "\n" not in told and len(told) <= 600


def show(name: str, limits: Limits | None = None) -> list[Image.Image]:
    decoders = Decoders(limits or Limits(), 1)
    try:
        return decoders.read([data_url(PICTURES[name](), "png")], BUDGET, FACTOR)
    finally:
        decoders.close()


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SLOW = {
    *("a GIF of comments", "a GIF of many comments", "a PNG of many chunks", "a JPEG of many markers"),
    *("a JPEG of many scans", "a BMP of short runs", "a JPEG of 156 megapixels"),
    "a PNG of 39 megapixels, palette",
}
SHOWN: dict[str, str] = {
    "a TIFF of many pages": "TIFF images are not read here",
    "a GIF of many frames": "read",
    "a GIF of comments": "",
    "a GIF of many comments": "",
    "a GIF of a wide canvas": "larger than 40 megapixels",
    "a WebP of many frames": "read",
    "a PNG of much text": "damaged",
    "a PNG of a large profile": "damaged",
    "a PNG of many chunks": "",
    "a JPEG of many markers": "",
    "a JPEG of much EXIF": "",
    "a JPEG of many scans": "took more than 10 s",
    "a BMP of short runs": "",
    "an icon past the bound": "no image that can be read",
    "a PNG of 39 megapixels": "read",
    "a PNG of 39 megapixels, palette": "read",
    "a PNG of 99 megapixels": "larger than 40 megapixels",
    "a JPEG of 156 megapixels": "read",
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW else one for one in PICTURES]
)
def test_a_picture_is_read_or_refused(name: str) -> None:
    try:
        [image] = show(name)
        told = "read"
        assert max(image.size) < 2000
    except ApiError as error:
        told = str(error)
    assert SHOWN[name] in told


def test_a_picture_that_takes_too_long_costs_no_other() -> None:
    decoders = Decoders(Limits(images_s=1.0), 1)
    try:
        for _ in range(2):
            with pytest.raises(ApiError, match="took more than 1 s"):
                decoders.read([data_url(PICTURES["a JPEG of many scans"](), "png")], BUDGET, FACTOR)
            small = data_url(encode(Image.new("RGB", (56, 84), "red")), "png")
            [image] = decoders.read([small], BUDGET, FACTOR)
            assert image.size == (56, 84) and image.getpixel((9, 9)) == (255, 0, 0)
    finally:
        decoders.close()


def test_a_reader_that_is_killed_or_held_costs_one_request() -> None:
    decoders = Decoders(Limits(timeout_s=4), 1)
    small = data_url(encode(Image.new("RGB", (56, 56))), "png")
    try:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            decoders.read([small], BUDGET, FACTOR)
            process = decoders._all[0]._process
            assert process is not None
            process.send_signal(number)
            with pytest.raises(ApiError, match="reading the images failed"):
                decoders.read([small], BUDGET, FACTOR)
    finally:
        decoders.close()


TURNED = Image.Exif()
TURNED[0x0112] = 6
SIDE = 3000
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "RGB": ("PNG", {}),
    "RGBA": ("PNG", {}),
    "RGBA on its side": ("PNG", {"exif": TURNED}),
    "LA": ("PNG", {}),
    "P": ("PNG", {"transparency": 0}),
    "I;16": ("PNG", {}),
    "L progressive": ("JPEG", {"progressive": True}),
    "CMYK": ("JPEG", {}),
    "RGBA lossless": ("WEBP", {"lossless": True, "quality": 0}),
}


@on_linux
@pytest.mark.parametrize("name", LARGE)
def test_a_picture_takes_a_few_bytes_a_pixel(name: str) -> None:
    kind, options = LARGE[name]
    file = encode(Image.new(name.split()[0], (SIDE, SIDE)), kind, **options)
    decoders = Decoders(Limits(), 1)
    try:
        peaks = []
        for one in (encode(Image.new("RGB", (56, 56)), kind), file):
            decoders.read([data_url(one, "png")], BUDGET, FACTOR)
            process = decoders._all[0]._process
            assert process is not None
            peaks.append(read_mib("VmHWM", Path(f"/proc/{process.pid}")))
    finally:
        decoders.close()
    assert peaks[1] - peaks[0] < 20 * SIDE * SIDE / MIB


@pytest.mark.parametrize(
    ("kind", "most", "size"),
    [
        *(("JPEG", 0.8, (1000, 800)), ("JPEG", 0.79, (500, 400)), ("JPEG", 0.2, (500, 400))),
        *(("PNG", 0.8, (1000, 800)), ("PNG", 0.79, None), ("JPEG", 0.199, None)),
    ],
)
def test_a_large_jpeg_is_read_at_half_size(kind: str, most: float, size: tuple[int, int] | None) -> None:
    file = encode(Image.linear_gradient("L").resize((1000, 800)).convert("RGB"), kind)
    bounds = Bounds(megapixels=100, image_megapixels=most)
    if size is None:
        with pytest.raises(ApiError, match=r"larger than 0\.79[0-9]* megapixels"):
            read_images([data_url(file, "png")], bounds, lambda size_wh: size_wh)
        return
    [shown] = read_images([data_url(file, "png")], bounds, lambda size_wh: size_wh)
    assert shown.size == size
    if size == (1000, 800):
        assert shown.tobytes() == Image.open(io.BytesIO(file)).tobytes()


@pytest.fixture
def service(loaded: Loaded) -> Iterator[Service]:
    service = Service(loaded, ServeConfig(timeout=0.2))
    yield service
    assert service.close(60)


def test_slow_pictures_hold_no_text_and_no_exit(loaded: Loaded) -> None:
    service = Service(loaded, ServeConfig())
    slow = data_url(PICTURES["a JPEG of many scans"](), "png")

    async def ask() -> None:
        pictures = [asyncio.create_task(service.read_images([slow])) for _ in range(4)]
        await asyncio.sleep(0.1)
        request = await service.read_body(bytearray(BODIES["a text as long as may be"](MIB)))
        assert await service.count_tokens(Chat((), request.chat())) > 1000
        assert not any(one.done() for one in pictures)
        assert service.close(60)
        await asyncio.gather(*pictures, return_exceptions=True)

    started = time.process_time()
    asyncio.run(ask())
    spent = time.process_time() - started
    wait_for(lambda: not any(thread.name.startswith("images") for thread in threading.enumerate()))
    assert spent < 10


def test_a_reader_that_is_stuck_makes_health_fail(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(services, "read_request", lambda body, limits: go.wait(60))

    async def ask() -> None:
        reading = asyncio.create_task(service.read_body(bytearray()))
        await asyncio.sleep(0.4)
        status, state = service.check_health()
        assert status == 503 and "has been read for" in state["status"]
        go.set()
        await reading
        assert service.check_health()[0] == 200

    asyncio.run(ask())


@pytest.fixture(scope="module")
def attacked() -> Iterator[SimpleNamespace]:
    with starting() as server:
        yield server


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("name", [*BODIES, *PICTURES])
def test_a_server_under_attack_answers_others(name: str, attacked: SimpleNamespace) -> None:
    body = BODIES[name](16 * MIB) if name in BODIES else with_picture(PICTURES[name]())
    server = list_processes(attacked.process.pid)[0]
    before, slowest, highest = read_mib("VmRSS", server), 0.0, 0.0
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(post, attacked.url, body) for _ in range(4)]
        while not all(one.done() for one in sent):
            started = time.monotonic()
            assert get(f"{attacked.url}/health")[0] == 200
            slowest = max(slowest, time.monotonic() - started)
            highest = max(highest, read_mib("VmRSS", server))
            time.sleep(0.02)
    assert {one.result()[0] for one in sent} <= {200, 400, 404}
    assert slowest < 20 and highest - before < 8 * 4 * 16


@pytest.mark.slow
@on_linux
def test_a_server_that_has_stopped_has_ended() -> None:
    slow = with_picture(PICTURES["a JPEG of many scans"]())
    with starting("timeout=30") as server, ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(post, server.url, slow) for _ in range(4)]
        while len(processes := list_processes(server.process.pid)) < 3:
            time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert [one.result()[0] for one in sent] == [400] * 4
        assert server.process.stderr.read().endswith("stopped\n") and server.process.wait(20) == 0
        assert not any(one.exists() for one in processes)
