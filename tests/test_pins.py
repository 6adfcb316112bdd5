"""Behaviour, pinned to the bit: what this package draws, reads, scores, hashes and writes must stay what it is.

`pins.json` beside this file holds the values. A pin that fails says that data, scores, keys of kept results or
published numbers would change. Values are therefore changed on purpose only, with a reason in the changelog:

    python tests/test_pins.py --write

All that is taken from the package goes through the adapters below. A change of the package's layout is followed
there, and nowhere else: the tables and the values stay.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = Path(__file__).parent
GOLDEN = HERE / "pins.json"
ROWS = HERE.parent / "docs" / "experiments"
Pin = dict[str, Any]

# --- the adapters: everything that comes from the package ---


def core() -> Any:
    """Names of the core: samples, wording, reading, scoring."""
    from univg.grounding import legacy, mentions, prompts, reading, samples, scoring

    return _names(legacy, mentions, prompts, reading, samples, scoring)


def read_response(text: str, style: str, frame: str, size_wh: Any) -> Any:
    """A response to a question about one image, read."""
    return core().read(text, core().Asked(1, "", style, frame), [size_wh] if size_wh else ())


def read_to(sample: Any, text: str, style: str, frame: str, size_wh: Any) -> Any:
    """(reading, score) of a response to `sample`."""
    asked = core().Asked(len(sample.images), sample.query, style, frame, sample.target_image)
    reading = core().read(text, asked, [size_wh] * len(sample.images) if size_wh else ())
    return reading, core().score(sample, reading)


def world() -> Any:
    from univg import world

    return world


def configs() -> Any:
    """Names of configs: `load_config`, the classes, the shipped presets."""
    from univg import config
    from univg.cli import presets
    from univg.study import config as studies
    from univg.training import config as stages

    return _names(config, presets, studies, stages)


def evaluating() -> Any:
    from univg.evaluate import benchmarks, engines, rows, runner, runs

    names = _names(benchmarks, engines, rows, runner, runs)
    names.fingerprint_of = runner.make_fingerprint
    return names


def constructing() -> Any:
    from univg.construct import copies, ledger, pipeline, prompts, results, select, teacher, verify
    from univg.data.dataset import Dataset

    names = _names(copies, ledger, pipeline, prompts, select, verify, teacher, results)
    names.of_samples, names.of_world = Dataset.from_samples, Dataset.from_world
    names.image_words = names.name_image
    return names


def serving_clients() -> Any:
    from univg.models import processor, server

    return _names(processor, server)


def studying() -> Any:
    from univg.study import rows

    return rows


def models() -> Any:
    from univg.models import checkpoint, loading, processor
    from univg.models.generation import generate

    return _names(checkpoint, generate, processor, loading)


def training() -> Any:
    from univg.training.grpo import arguments, difficulty, rollouts
    from univg.training.pretrain import batches
    from univg.training.run import rows

    return _names(difficulty, arguments, rollouts, rows, batches)


def packing() -> Any:
    from univg.models.generation import shared_attention
    from univg.training.grpo import packing

    return _names(shared_attention, packing)


def exporting() -> Any:
    from univg.data import exports

    return exports


def _names(*modules: Any) -> Any:
    """One place to look up the names of several modules; of a name in two, the last module's."""

    class Names:
        pass

    for module in modules:
        for name in vars(module):
            if not name.startswith("_"):
                setattr(Names, name, staticmethod(vars(module)[name]))
    return Names


def drawn(family: str, split: str, seed: int, index: int, difficulty: float, size: int) -> tuple[Any, Any]:
    """A sample of the world and its images."""
    made = world().make_sample(family, split, seed, index, difficulty, size, version=1)
    return made.sample, made.images


def embedded_engine() -> Any:
    return evaluating().load_local("embedded", "world", device="cpu", dtype="float32")


@cache
def embedded(name: str) -> Any:
    return models().load(name, device="cpu", dtype="float32")


@contextmanager
def served(behave: Callable[[Any, int], bool] | None = None) -> Iterator[Any]:
    """A running server with OpenAI's chat interface: that of the other tests."""
    import loopback

    server = loopback.Server()
    if behave is not None:
        server.behave = behave
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# --- hashing ---


def sha(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:32]


def plain(value: Any) -> str:
    """Canonical JSON, made here, so that it does not move with the package's own."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def pixels(images: Sequence[Any]) -> str:
    return sha(b"".join(f"{image.mode}{image.size}".encode() + image.tobytes() for image in images))


# --- tables ---

THOUGHT = "<think>In the second image it stands left.</think>"
TEXTS: tuple[str, ...] = (
    # good
    f"{THOUGHT}<answer>(100,200),(300,400)</answer>",
    f"{THOUGHT}\n<answer>(100,200),(300,400)</answer>",
    f"{THOUGHT}<answer>(100, 200), (300, 400)</answer>",
    "<think></think><answer>(0,0),(1000,1000)</answer>",
    "<think>Two\nlines.</think> <answer>(1,2),(999,998)</answer>\n",
    "<answer>(100,200),(300,400)</answer>",
    "(100,200),(300,400)",
    "( 100 , 200 ) , ( 300 , 400 )",
    "<|box_start|>(100,200),(300,400)<|box_end|>",
    "<|box_start|>(100,200),(300,400)<|box_end|><|im_end|>",
    f"{THOUGHT}<answer><|box_start|>(100,200),(300,400)<|box_end|></answer>",
    "[100,200,300,400]",
    "[[100,200],[300,400]]",
    "<box>100 200 300 400</box>",
    "100 200 300 400",
    "100, 200, 300, 400",
    '{"bbox_2d": [100, 200, 300, 400], "label": "cat"}',
    '```json\n[{"bbox_2d": [100, 200, 300, 400]}]\n```',
    '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    "x1=100, y1=200, x2=300, y2=400",
    "[0.1, 0.2, 0.3, 0.4]",
    "(0.1,0.2),(0.3,0.4)",
    "(0.1, 0.2, 0.3, 0.4)",
    "<answer>[0.1, 0.2, 0.3, 0.4]</answer>",
    f"{THOUGHT}<answer>[0.125,0.25,0.5,1.0]</answer>",
    "（100，200），（300，400）",
    "<answer>（100，200），（300，400）</answer>",
    # odd
    "<think>maybe (1,2),(3,4)</think><answer>(100,200),(300,400)</answer>",
    "It sits left.</think><answer>(100,200),(300,400)</answer>",
    "Well: <think>a</think><answer>(100,200),(300,400)</answer> done",
    "<THINK>a</THINK><ANSWER>(100,200),(300,400)</ANSWER>",
    "<think>a</think><answer>The box is (100,200),(300,400).</answer>",
    "<think>a</think><answer>(100,200),(300,400)</answer><answer>(0,0),(5,5)</answer>",
    "<think>a</think><answer>(100,200),(300,400),(500,600),(700,800)</answer>",
    "<think>a <answer>(1,1),(9,9)</answer></think><answer>(100,200),(300,400)</answer>",
    "<think>a <answer>(1,1),(9,9)</answer></think>",
    "<think>in <answer> </answer> tags</think><answer>(100,200),(300,400)</answer>",
    "<think>Format (x1,y1),(x2,y2)</think><answer>(x1,y1),(x2,y2)</answer>",
    "<think>a<answer>(100,200),(300,400)</answer>",
    "<think>a</think><think>b</think><answer>(100,200),(300,400)</answer>",
    "<think>a</think><answer>(300,400),(100,200)</answer>",
    "<think>a</think><answer>(300,200),(100,400)</answer>",
    "<think>a</think><answer>(-50,200),(300,1400)</answer>",
    "<think>a</think><answer>(0,0),(1001,1001)</answer>",
    "<think>a</think><answer>(100.5,200.25),(300.75,400)</answer>",
    "<think>a</think><answer>(1.5,2.5),(300.0,400.0)</answer>",
    "<think>a</think><answer>(1.0,1.0),(1.05,1.05)</answer>",
    "<think>a</think><answer>(+100,+200),(+300,+400)</answer>",
    "<think>a</think><answer>(00100,00200),(00300,00400)</answer>",
    "<think>a</think><answer>(100,200),(300,400)</answer><|im_end|><|endoftext|>",
    "<think>图二中的猫在左边。</think><answer>(100,200),(300,400)</answer>",
    "< think >a</ think >< answer >(100,200),(300,400)</ answer >",
    "The third image shows 3 cats: (10,20),(30,40) and (50,60),(70,80)",
    "Of image 1, 2, 3 and 4: none",
    "[100,200,300,400,500]",
    "[1,2,3]",
    "(1,2),(3,4),(5,6)",
    "(0,0),(1,1000)",
    "(500,500),(501,501)",
    "(99999999999999999999,0),(99999999999999999999,5)",
    # broken
    "",
    "   \n",
    "<|im_end|>",
    "I do not know.",
    "<think>a</think>",
    "<think>a",
    "<think>a</think><answer>",
    "<think>a</think><answer></answer>",
    "<think>a</think><answer>   </answer>",
    "<think>a</think><answer>nothing",
    "<think>a</think><answer>(100,200),(300,400)",
    "<think>a</think><answer>(100,200),(300",
    "<think>a</think><ans",
    "<think>a</think><answer>(100,200)</answer>",
    "<think>a</think><answer>(100,200),(100,400)</answer>",
    "<think>a</think><answer>(5,5),(5,5)</answer>",
    "<think>a</think><answer>(1100,1200),(1300,1400)</answer>",
    "<think>a</think><answer>(-5,-5),(-1,-1)</answer>",
    "<think>a</think><answer>(nan,inf),(3,4)</answer>",
    "<think>a</think><answer>(1e2,2e2),(3e2,4e2)</answer>",
    "<|box_start|>(100,200),(300",
    "<answer><think>a</think>(100,200),(300,400)</answer>",
    "</think></answer><answer>",
    "(((((((((((((((((((((((((",
    "\x00\ud800 (100,200),(300,400)",
    "<think>" + "x" * 500 + "</think><answer>" + "(1,2)," * 40 + "</answer>",
)
STYLES = ("think", "direct", "simple")
FRAMES: tuple[tuple[str, tuple[int, int] | None], ...] = (("permille", None), ("pixel", (640, 480)))
ANSWERS = ((100.0, 200.0, 300.0, 400.0), (0.0, 0.0, 1000.0, 1000.0), (99.5, 1.25, 301.75, 400.0))

QUESTIONS: tuple[tuple[int, int | None, str, str | None], ...] = (
    (1, None, "Where is the dog?", None),
    (2, None, "Where is the dog?", None),
    (3, 1, "Find it in the first image.", "It is in the third image."),
    (2, None, "Find and locate where does the object in image-1 locate in the image-2.", None),
    (4, None, "Please locate the 2th region picture in the source image. ", None),
    (3, None, "Where is the truck?", "It is in the first image. The others show grass."),
    (3, None, "Where is the truck?", "Image 1 shows grass. Therefore the answer is in image 2."),
    (3, None, "In image 3, find the cat of image 1.", None),
    (3, None, "Locate in the second image what the first image shows.", None),
    (3, None, "Which object of Image-2 is red?", None),
    (3, None, "Compared to the first image, what is new in the last image?", None),
    (3, None, "What is unlike image 2?", None),
    (3, None, "What is there that is not in the third image?", None),
    (2, None, "Find the <|object_ref_start|>photo in image 1<|object_ref_end|>.", None),
    (2, None, "Find the cat in image 7.", None),
    (2, None, "Find the cat in image 7.", "So it is in the first picture."),
    (5, None, "Locate it in the fifth image.", None),
    (12, None, "Locate it in the tenth image.", None),
    (12, None, "Locate it in image 12.", None),
    (3, None, "请在第二张图中找到猫。", None),
    (3, None, "猫在哪里?", "图3中有一只猫。"),
    (3, None, "Give me the box in the last image.", None),
    (3, None, "Give me the box in the middle image.", None),
    (4, None, "Both images show a cup. Find it in the latter.", None),
    (2, None, "IMAGE-1 and IMAGE-2: what is in IMAGE-1 only?", "So the answer is image two."),
    (2, None, "Image-1: a b. Image-2: c d. Recognize the target person in Image-2.", None),
    (3, None, "?", "The first image is empty. The second one too. It is in the third."),
    (3, None, "?", "First image: dog. Second image: cat. So the cat of the second image is meant."),
    (6, None, "Find the object that differs in the 4th frame.", None),
    (2, None, "Where in the target image is the reference?", None),
)


def table_samples() -> list[Any]:
    """Fixed samples: with and without thought, target, box; simple; of other letters."""
    make = core().GroundingSample
    return [
        make(
            ["a.png"], "Where is the cat?", "referring", boxes=[(0.1, 0.2, 0.3, 0.4)], thought="A cat, left."
        ),
        make(
            ["a.png", "b/c.jpg"],
            "  What differs? ",
            "diff",
            boxes=[(0, 0, 0.5, 0.25), (0.5, 0.5, 1, 1)],
            target_image=1,
            thought="The second image holds a new cup.",
            source="own#1",
            extra={"note": "é", "number": 3},
        ),
        make(
            ["a.png"], "the red car", "referring", boxes=[(0.25, 0, 0.75, 1)], thinking=False, source="ref#7"
        ),
        make(
            ["1.png", "2.png", "3.png"],
            "请在第二张图中找到\u2028猫。",
            "free_form",
            boxes=[(0.333333, 0.125, 1.0, 0.9999)],
            thought="第二张图。",
            source="zh#0",
        ),
        make(
            ["v/0.png", "v/1.png"],
            "Track the <box>.",
            "object_tracking",
            boxes=[(0.05, 0.1, 0.15, 0.3)],
            target_image=0,
            thought='It moved: "left" \\ then right.',
        ),
    ]


def odd_samples() -> list[Any]:
    make = core().GroundingSample
    return [
        make(["a"], "Where?", "something of your own"),
        make(["a"], "Where?", "diff", boxes=[(0.9, 0.8, 0.1, 0.2)]),
        make(["a"], "Where?", "diff", boxes=[(-0.0, 0, 1.5, 2)]),
        make(["a"], "Where?", "diff", boxes=[(0, 0, 1, 1)], thinking=False),
        make(["a", "b"], "Where?", "diff", boxes=[(0, 0, 1, 1)], target_image=0),
        make(["ä/ö.png"], "Wo? 🐈", "video", boxes=[(1 / 3, 0.1, 2 / 3, 0.7)]),
    ]


# --- the pins ---

PINS: dict[str, Callable[[Path], Pin]] = {}
TOLERANCE: dict[str, dict[str, float]] = {
    "log_probabilities": {"abs": 1e-4},
    "difficulty_weights": {"rel": 1e-15},
}
"""Where a value is compared as a number rather than to the bit."""


def pin(function: Callable[[Path], Pin]) -> Callable[[Path], Pin]:
    """Register a function that makes values, by name, in an empty folder that it may write to."""
    PINS[function.__name__] = function
    return function


@pin
def world_samples(folder: Path) -> Pin:
    """Pixels and words of the procedural world: a digest for each family and split."""
    found: Pin = {"families": list(world().FAMILIES), "splits": list(world().SPLITS)}
    for family in world().FAMILIES:
        for split in world().SPLITS:
            parts = []
            for index in (0, 1, 7):
                for difficulty in (0.0, 0.5, 1.0):
                    sample, images = drawn(family, split, 3, index, difficulty, 64)
                    parts.append(plain(sample.to_json()) + pixels(images))
            found[f"{family}/{split}"] = sha("\n".join(parts))
    return found


@pin
def legacy_scores(folder: Path) -> Pin:
    """The reference code's scorers: box, IoU, zero-shot IoU, and the two rewards with and without `simple`."""
    names = core()
    found: Pin = {}
    for number, text in enumerate(TEXTS):
        values: list[Any] = [names.legacy_mig_bench_box(text)]
        for answer in ANSWERS:
            values.append(names.legacy_mig_bench_iou(text, answer))
            values.append(names.legacy_mig_bench_iou(text, [value / 1000 for value in answer]))
            values.append(names.legacy_zero_shot_iou(text, tuple(value / 1000 for value in answer)))
            values += [names.legacy_accuracy_reward(text, answer, simple) for simple in (False, True)]
        values.append(names.legacy_zero_shot_iou(text, None))
        values += [names.legacy_format_reward(text, simple) for simple in (False, True)]
        found[f"{number}: {text[:40]!r}"] = values
    return found


@pin
def responses(folder: Path) -> Pin:
    """How texts are read: thought, boxes, fault, form, in every style and frame."""
    found: Pin = {}
    for number, text in enumerate(TEXTS):
        for style in STYLES:
            for frame, size_wh in FRAMES:
                read = read_response(text, style, frame, size_wh)
                boxes = [list(placed.box) for placed in read.boxes]
                thought = (
                    read.thought if read.thought is None or len(read.thought) < 99 else sha(read.thought)
                )
                found[f"{number}/{style}/{frame}"] = [thought, boxes, read.fault, read.formatted]
    return found


@pin
def scores(folder: Path) -> Pin:
    """How texts are scored against a sample of three images without a named target."""
    sample = core().GroundingSample(["a", "b", "c"], "Where?", "diff", boxes=[(0.1, 0.2, 0.35, 0.4)])
    found: Pin = {}
    for number, text in enumerate(TEXTS):
        for style in STYLES:
            for frame, size_wh in FRAMES:
                reading, one = read_to(sample, text, style, frame, size_wh)
                hits = [one.hit_30, one.hit_50, one.hit_70]
                verdict = [
                    one.iou,
                    hits,
                    one.format_ok,
                    reading.fault,
                    reading.image_index,
                    reading.image_rule,
                ]
                found[f"{number}/{style}/{frame}"] = verdict
    return found


@pin
def images_meant(folder: Path) -> Pin:
    return {
        f"{number}: {question[2][:50]}": list(core().decide_image(*question))
        for number, question in enumerate(QUESTIONS)
    }


@pin
def sample_keys(folder: Path) -> Pin:
    found: Pin = {f"{n}": one.key for n, one in enumerate([*table_samples(), *odd_samples()])}
    for family in world().FAMILIES:
        found[family] = drawn(family, "test", 0, 0, 0.5, 64)[0].key
    return found


@pin
def wording(folder: Path) -> Pin:
    """Prompts, chats and responses in every style, as text."""
    names, found = core(), {}
    for number, sample in enumerate(table_samples()):
        for style in STYLES:
            found[f"{number}/{style}"] = [
                names.render_prompt(sample.query, style),
                names.render_chat(len(sample.images), sample.query, style),
                names.render_response(sample.boxes[0], sample.thought, style),
                names.choose_style(sample, style),
            ]
    for number, sample in enumerate(odd_samples()[1:]):
        found[f"odd {number}"] = [names.render_response(sample.boxes[0], None, style) for style in STYLES]
    found["zero-shot"] = [names.ZERO_SHOT_IMAGE, names.ZERO_SHOT_VIDEO]
    return found


# --- evaluation ---


def own_file(folder: Path, count: int = 3) -> tuple[Path, Path]:
    """A file of samples with fixed content, and the folder of their images."""
    from PIL import Image

    root = folder / "pictures"
    root.mkdir(parents=True)
    samples = []
    for number in range(count):
        names = (f"{number}-a.png", f"{number}-b.png")
        for shade, name in enumerate(names):
            Image.new("RGB", (60 + number, 45 + shade), (9 * number, 80, 90 + shade)).save(root / name)
        samples.append(
            core().GroundingSample(
                names,
                f"Where is thing {number}?",
                "diff",
                boxes=((0.1, 0.2, 0.5, 0.6),),
                source=f"own#{number}",
                thinking=number != 2,
            )
        )
    path = folder / "samples.jsonl"
    core().write_jsonl(path, samples)
    return path, root


def without(record: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


@pin
def evaluation_fingerprints(folder: Path) -> Pin:
    """What decides a run's numbers, its id, the benchmarks' digests, the keys of cases."""
    ev = evaluating()
    data, images = own_file(folder)
    benchmarks = {
        "world": ev.open_world("world_v1", 1, size_px=64),
        "world_unseen": ev.open_world("world_v1_unseen", 1, 4, 0.9, 32, ["diff", "region"]),
        "file": ev.open_file("univg", data, images),
    }
    found: Pin = {
        "hash": ev.fingerprint_id({"b": [1, 2.5, None], "a": {"ü": True, "text": "x"}}),
        "embedded": without(embedded_engine().fingerprint(), "versions"),
    }
    for name, benchmark in benchmarks.items():
        found[f"{name}: digest"] = benchmark.digest
        found[f"{name}: keys"] = [case.key for case in benchmark.items()]
        found[f"{name}: about"] = without(benchmark.origin, "data", "images")
    for samples, temperature in ((1, 0.0), (1, 0.7), (4, 1.0)):
        decoding = ev.Decoding(samples, temperature, 99, 5)
        found[f"decoding {samples} at {temperature}"] = decoding.fingerprint()
    with served() as server:
        engines = {
            "openai": ev.OpenAIEngine(server.url),
            "openai, told": ev.OpenAIEngine(
                server.url, family="qwen2_5_vl", style="direct", budget=models().PixelBudget(3136, 50176)
            ),
            "embedded": embedded_engine(),
        }
        for name, engine in engines.items():
            found[name] = without(engine.fingerprint(), "versions")
            for benchmark in benchmarks.values():
                whole = ev.fingerprint_of(benchmark, engine, ev.Decoding(max_new_tokens=99))
                rest = without(whole, "versions")
                found[f"{name} on {benchmark.name}"] = [sorted(whole), ev.fingerprint_id(rest)]
    return found


def _with_pixels(body: Any) -> Any:
    """A request whose images are named by their pixels: how well they are packed is not ours to pin."""
    import base64
    import io

    from PIL import Image

    def shown(url: str) -> str:
        kind, _, content = url.partition(",")
        return f"{kind} {pixels([Image.open(io.BytesIO(base64.b64decode(content)))])}"

    body = json.loads(json.dumps(body))
    for message in body["messages"]:
        for part in message["content"]:
            if part["type"] == "image_url":
                part["image_url"]["url"] = shown(part["image_url"]["url"])
    return body


@pin
def evaluation_rows(folder: Path) -> Pin:
    """What is sent to a server, and the rows that its answers become."""
    ev = evaluating()
    data, images = own_file(folder)
    benchmark = ev.open_file("univg", data, images)
    found: Pin = {}
    for name, decoding in (("greedy", ev.Decoding(1, 0.0, 64, 0)), ("drawn", ev.Decoding(3, 0.9, 64, 7))):
        with served() as server:
            engine = ev.OpenAIEngine(server.url, concurrency=1)
            outcome = ev.evaluate(benchmark, engine, folder / name, decoding, legacy=True)
            requests = sorted(plain(_with_pixels(request)) for request in server.requests)
        found[f"{name}: requests"] = [json.loads(request) for request in requests]
        rows = [without(row, "seconds", "fingerprint") for row in outcome.rows.values()]
        found[f"{name}: rows"] = sorted(rows, key=lambda row: row["key"])
        found[f"{name}: files"] = sorted(path.name for path in (folder / name).iterdir())
    return found


# --- construction ---

TEACHING = re.compile(r"\(\d+,\d+\),\(\d+,\d+\)")
CHAIN = "The first image shows a {0} and a cup. The second image shows a lamp, a {0} and one more thing than that."


def teach(handler: Any, number: int) -> bool:
    """Answers with the box that is shown, some chains good and some not; as a judge it takes the second."""
    body = handler.server.requests[number]
    text = body["messages"][0]["content"][-1]["text"]
    if "Chain 1:" in text:
        texts = ["<best>2</best>"]
    else:
        box = TEACHING.search(text)
        shown = box[0] if box is not None else "(1,2),(3,4)"
        words = ("kite", "drum", "boat", "harp")
        start = body.get("seed", 0) % 4
        thoughts = [CHAIN.format(words[(start + at) % 4]) for at in range(body["n"])]
        texts = [f"<think>{thought}</think><answer>{shown}</answer>" for thought in thoughts]
    handler.reply(200, handler.completion(*texts))
    return True


def teachers(address: str) -> dict[str, Any]:
    """One of each kind."""
    make, client = constructing(), serving_clients()

    def server() -> Any:
        return client.Server(address)

    budget = client.PixelBudget(3136, 50176)
    return {
        "world": make.WorldTeacher(),
        "local": make.LocalTeacher(embedded("embedded-think"), 4),
        "openai": make.RemoteTeacher(server(), "served", client.PixelBudget()),
        "openai, told": make.RemoteTeacher(
            server(), "served", budget, "qwen2_5_vl", 2, {"top_p": 0.5, "guess": True, "seed": None}, False
        ),
    }


@pin
def construction_prompts(folder: Path) -> Pin:
    """The texts that teachers and judges are given, and how they are filled in."""
    prompts = constructing().Prompts.load()
    found: Pin = {f"text {name}": sha(text) for name, text in sorted(prompts.texts.items())}
    found |= {f"digest {name}": digest for name, digest in sorted(prompts.digests().items())}
    found["digest of three"] = prompts.digest("propose", "diff", "judge")
    found["tasks"] = dict(constructing().TASKS)
    for number, sample in enumerate(table_samples()):
        for language in ("en", "zh", "any"):
            chats = [
                prompts.propose(sample, language),
                prompts.judge(sample, ["It is left. $cost", "There."], language),
            ]
            found[f"{number}/{language}"] = [sha(plain(chat)) for chat in chats]
        found[f"{number}/plain"] = sha(plain(constructing().ask_plainly(sample)))
        found[f"{number}/image"] = constructing().image_words(sample)
    return found


@pin
def construction_keys(folder: Path) -> Pin:
    """Digests of data, and the keys by which paid answers are found again, with each kind of teacher."""
    make, found = constructing(), {}
    data, root = own_file(folder)
    own = make.of_samples("own", list(core().read_jsonl(data)), root)
    drawn_data = make.of_world(4, "train", 5, ("diff", "region"), 0.25, 48, 1)
    for name, one in (("own", own), ("world", drawn_data), ("all", make.of_world(2, size=28, version=1))):
        found[f"data {name}"] = [one.digest, one.total, one.about]
    prompts = make.Prompts.load()
    world_items = list(drawn_data.items())
    found["digests of images"] = [list(item.digests()) for item in world_items]
    with served() as server:
        for name, teacher in teachers(server.url).items():
            found[f"{name}: fingerprint"] = [
                teacher.fingerprint(),
                teacher.frame,
                teacher.sees,
                teacher.block,
            ]
            for at, item in enumerate(world_items):
                keys = []
                for how in (make.Draw(256, 0.0), make.Draw(1024, 1.0), make.Draw(64, 0.7, 3)):
                    for shown in (prompts.propose(item.sample, "en"), make.ask_plainly(item.sample)):
                        request = make.request_of(teacher, item, "propose", 1, shown, how, 3)
                        keys.append([request.key, request.seed])
                judged = prompts.judge(item.sample, ["One.", "Two."], "en")
                request = make.request_of(teacher, item, "judge", 0, judged, make.Draw(64, 0.0), 0)
                found[f"{name}: keys {at}"] = [*keys, [request.key, request.seed]]
    return found


def lines_of(path: Path, *dropped: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [without(row, *dropped) for row in rows]


@pin
def construction_runs(folder: Path) -> Pin:
    """Two whole runs: what is sent, paid, judged and kept."""
    make, found = constructing(), {}
    data = make.of_world(4, "train", 5, ("diff", "region"), 0.25, 48, 1)
    with served(teach) as server:
        every = teachers(server.url)
        for name, judge, plan in (
            ("world", None, make.Plan(1, temperature=0.0)),
            ("openai", "openai", make.Plan(3, together=True, seed=2)),
            ("openai, told", None, make.Plan(2, shown=False, rules=make.Rules(min_iou=0.1, copies=0.0))),
        ):
            out = folder / name
            out.mkdir()
            del server.requests[:]
            with make.Ledger(out) as ledger, make.Results(out, ledger, every[name].name) as results:
                teacher, picker = every[name], every[judge] if judge else None
                make.Constructor(data, teacher, picker, make.Prompts.load(), plan, ledger, results).run()
            facts = {
                "teacher": every[name].fingerprint() | {"name": name},
                "judge": every[judge].fingerprint() | {"name": judge} if judge else None,
                "prompts": make.Prompts.load().digests(),
                "data": {
                    "name": data.name,
                    "about": data.about,
                    "digest": data.digest,
                    "samples": data.total,
                },
            }
            manifest = results.finish(facts, plan)
            found[f"{name}: manifest"] = without(manifest, "univg", "written", "files")
            sent = sorted(plain(_with_pixels(request)) for request in server.requests)
            journal = sorted(lines_of(out / "journal.jsonl", "seconds"), key=plain)
            proposals = sorted(lines_of(out / "proposals.jsonl", "seconds"), key=plain)
            found[f"{name}: sent"] = [len(sent), sha("\n".join(sent))]
            found[f"{name}: journal"] = [sorted(row["request"] for row in journal), sha(plain(journal))]
            found[f"{name}: proposals"] = [[row["causes"] for row in proposals], sha(plain(proposals))]
            found[f"{name}: samples"] = sha((out / "samples.jsonl").read_bytes())
    return found


@pin
def verdicts(folder: Path) -> Pin:
    """What verification holds against texts, and what a judge's votes choose."""
    make, found = constructing(), {}
    for at, sample in enumerate(table_samples()):
        causes = [
            list(make.verify(sample, text, make.Rules(), truncated=number % 7 == 3).causes)
            for number, text in enumerate(TEXTS)
        ]
        found[f"causes {at}"] = causes
    votes: tuple[list[str | None], ...] = (
        ["<best>2</best>", "<best>1</best>"],
        ["<best>1</best>", "<best>1</best>"],
        ["chain 2", None],
        ["tie", "none"],
        ["?", ""],
    )
    for number, answers in enumerate(votes):
        choice = make.choose([0.9, 0.8], answers)
        found[f"votes {number}"] = [choice.chosen, choice.by, list(choice.votes)]
    return found


# --- configs, studies, checkpoints ---


@pin
def config_dumps(folder: Path) -> Pin:
    """Every shipped preset with all its defaults."""
    names, found = configs(), {}
    for preset, cls in names.PRESETS.items():
        found[preset] = sha(plain(names.load_config(cls, preset).model_dump(mode="json")))
    for cls in ("PretrainConfig", "SftConfig", "GrpoConfig", "StudyConfig", "DataSource"):
        found[cls] = sha(plain(getattr(names, cls)().model_dump(mode="json")))
    return found


STUDIES = {"study": "study", "study-quick": None, "study-thoughts": "thoughts", "study-rl": "study-rl"}
DIGEST = "0123456789abcdef"


def _aside_from_the_world(dump: Any) -> Any:
    """A config's values without the version and the sizes of the world and the room for its thoughts: kept rows are of
    the first one, whose thoughts were shorter."""
    if isinstance(dump, dict):
        names = [name for name in dump if name not in ("world_version", "image_px", "max_completion_tokens")]
        return {name: _aside_from_the_world(dump[name]) for name in names}
    return [_aside_from_the_world(one) for one in dump] if isinstance(dump, list) else dump


@pin
def study_rows(folder: Path) -> Pin:
    """Names and fingerprints of every arm and seed, from a start of digest `DIGEST`; and those of the rows kept.

    The start of `study` and `study-thoughts` is trained before the first arm, so the fingerprints of their rows
    hold the digest of weights that are not shipped: they are pinned as they stand.
    """
    names, found = studying(), {}
    for preset, kept in STUDIES.items():
        config = configs().load_config(configs().StudyConfig, preset)
        arms = names.choose_arms(config)
        found[f"{preset}: arms"] = arms
        for arm in arms:
            for seed in config.seeds:
                file = names.row_path(Path(), arm, seed).name
                found[f"{preset}: {file}"] = names.fingerprint(config, arm, seed, DIGEST)
        if kept is None:
            continue
        asked = _aside_from_the_world(config.model_dump(mode="json", exclude={"seeds", "arms"}))
        for row in names.read_rows(ROWS / kept):
            file = names.row_path(Path(), row["arm"], row["seed"]).name
            told = type(config).model_validate(row["config"])  # keys that came later have their defaults
            same = _aside_from_the_world(told.model_dump(mode="json", exclude={"seeds", "arms"})) == asked
            found[f"{preset}: kept {file}"] = [row["fingerprint"], same]
    return found


@pin
def weights(folder: Path) -> Pin:
    """Digests of the shipped checkpoints, and of one made here byte by byte."""
    found: Pin = {
        name: models().weights_digest(name) for name in ("embedded", "embedded-base", "embedded-think")
    }
    header = plain({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    made = struct.pack("<Q", len(header)) + header + struct.pack("<3f", 1.0, -2.5, 0.125)
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    (folder / "model.safetensors").write_bytes(made)
    (folder / "notes.md").write_text("not counted")
    found["made"] = models().weights_digest(folder)
    body = struct.pack("<Q", 2) + b"{}" + bytes(range(256)) * 1024
    (folder / "model.safetensors").write_bytes(body)
    found["made, larger"] = models().weights_digest(folder)
    return found


# --- chance ---


@pin
def chance(folder: Path) -> Pin:
    """Seeded streams of random numbers, and what is drawn with them."""
    import torch

    device, stream = torch.device("cpu"), training().stream
    found: Pin = {}
    for seed, step, place, prompt in ((0, 0, 0, [1, 2, 3]), (7, 120, 5, [151644, 8948]), (1, 1, 1, [])):
        name = f"stream {seed} {step} {place} {prompt}"
        numbers = torch.randint(0, 2**31, (8,), generator=stream(seed, step, place, prompt, device))
        floats = torch.rand(8, generator=stream(seed, step, place, prompt, device), dtype=torch.float64)
        found[name] = [numbers.tolist(), floats.tolist()]
    logits = torch.tensor([[((r * 37 + v * 101) % 29) / 7 for v in range(50)] for r in range(6)])
    logits[2, 10:] = float("-inf")
    for start in (0, 100):
        streams = [torch.Generator().manual_seed(start + row) for row in range(6)]
        found[f"drawn from {start}"] = [models().draw_by_row(logits, streams).tolist() for _ in range(5)]
    return found


@pin
def sampler_order(folder: Path) -> Pin:
    """The order in which prompts come in GRPO, epoch by epoch."""
    found: Pin = {}
    for name, shuffle in (("shuffled", True), ("in order", False)):
        sampler = training().EpochSampler(list(range(12)), 2, 4, 2, shuffle, 5)
        for epoch in (0, 1, 3):
            sampler.set_epoch(epoch)
            found[f"{name}, epoch {epoch}"] = list(sampler)
    return found


def _rows(config: Any, teach: bool, count: int = 50) -> Pin:
    rows = training().StageRows(config, embedded("embedded-base").processor, count, teach)
    found = []
    for number in range(count):
        row = rows[number]
        shown = [list(image.size) for image in row.images]
        taught = None if row.response is None else sha(row.response)[:8]
        found.append([row.sample.task, row.sample.key[:12], row.style, shown, taught, len(row.notes)])
    drawn_pixels = sha("".join(pixels(rows[number].images) for number in range(0, count, 7)))
    return {"rows": found, "pixels": drawn_pixels, "digest": training().data_digest(rows)}


@pin
def stage_order(folder: Path) -> Pin:
    """The first rows of a stage: of the world, and of a mixture with a file, with a bound on tokens."""
    names = configs()
    alone = names.SftConfig(data=(names.DataSource(image_px=56, world_version=1),), seed=3)
    found = {f"world: {name}": value for name, value in _rows(alone, True).items()}
    samples = []
    for index in range(7):
        sample, images = drawn(("referring", "diff")[index % 2], "train", 9, index, 0.3, 84)
        for name, image in zip(sample.images, images, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / name)
        samples.append(sample)
    core().write_jsonl(folder / "samples.jsonl", samples)
    source = {"reader": "univg", "path": str(folder / "samples.jsonl"), "images": str(folder)}
    sources = (
        names.DataSource(image_px=56, families={"region": 1.0, "diff": 3.0}, seed=2, world_version=1),
        names.DataSource(**source, weight=2.0, prompt_style="direct"),
    )
    mixture = names.GrpoConfig(data=sources, seed=4, max_tokens=320, max_completion_tokens=64)
    found |= {f"mixture: {name}": value for name, value in _rows(mixture, False).items()}
    return found


@pin
def pretraining_order(folder: Path) -> Pin:
    """What base training draws at some steps."""
    names, found = configs(), {}
    for preset in ("tiny-base", "tiny-words", "tiny-think"):
        config = names.load_config(
            names.PretrainConfig, preset, ["batch=8", "image_px=56", "world_version=1"]
        )
        for step in (0, 1, sum(phase.steps for phase in config.phases) - 1):
            pairs = training().draw_samples(config, step)
            told = [
                [
                    made.sample.task,
                    style,
                    made.sample.key[:12],
                    sha(plain(training().render_dialogue(made, style))),
                ]
                for made, style in pairs
            ]
            found[f"{preset} {step}"] = told
    return found


@pin
def difficulty_weights(folder: Path) -> Pin:
    means = (0.0, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.625, 0.7, 0.9, 0.975, 0.98, 0.99, 1.0)
    found: Pin = {}
    for name, w in (
        ("none", 1.0),
        ("exp", 1.0),
        ("power", 1.0),
        ("power", 2.0),
        ("power", 0.5),
        ("log", 1.0),
    ):
        function = training().find_weighting(name, w)
        found[f"{name} {w}"] = [training().weight_of(function, mean) for mean in means]
    found["levels"] = [training().level_of(mean) for mean in means]
    return found


# --- the model ---


def asked_of_world() -> list[tuple[Any, Any]]:
    families = ("referring", "diff", "region", "common_object", "view_diff", "reasoning")
    return [drawn(family, "test", 0, index, 0.3, 120) for index, family in enumerate(families)]


def chats() -> list[Any]:
    return [models().Chat.ask(images, one.query, "think", one.key) for one, images in asked_of_world()]


@pin
def embedded_texts(folder: Path) -> Pin:
    """What the embedded model writes, greedily and drawn, in float32."""
    loaded = embedded("embedded-think")
    greedy = models().generate(loaded, chats(), max_new_tokens=200)
    many = models().generate(loaded, chats()[:2], max_new_tokens=48, temperature=1.0, n=2, seed=11)
    found: Pin = {
        f"greedy {n}": [one[0].text, one[0].tokens, one[0].truncated] for n, one in enumerate(greedy)
    }
    found |= {f"drawn {n}": [one.text for one in several] for n, several in enumerate(many)}
    found["direct"] = [
        models().generate(loaded, [models().Chat.ask(images, one.query, "direct")])[0][0].text
        for one, images in asked_of_world()[:2]
    ]
    return found


@pin
def log_probabilities(folder: Path) -> Pin:
    """Of the sample's own response to its prompt: a row by itself, and two packed behind one prompt."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    loaded = models().load("embedded-think", device="cpu", dtype="float32")
    sample, images = asked_of_world()[1]
    chat = models().Chat.ask(images, sample.query)
    processor = loaded.processor
    prompt = processor.apply_chat_template(list(chat.messages), tokenize=False, add_generation_prompt=True)
    inputs = dict(processor(images=[list(images)], text=[prompt], padding=True, return_tensors="pt"))
    ids = processor.tokenizer.encode(core().render_response(sample.boxes[0], sample.thought))[:40]
    completion = torch.tensor([ids])
    length = inputs["input_ids"].shape[1]
    whole = dict(inputs)
    whole["input_ids"] = torch.cat([inputs["input_ids"], completion], dim=1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    zeros = torch.zeros_like(completion)
    whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], zeros], dim=1)
    with torch.no_grad():
        logits = loaded.model(**whole).logits[0, length - 1 : -1].float()
        alone = logits.log_softmax(dim=-1).gather(1, completion[0][:, None])[:, 0]
        model = loaded.model
        add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
        packing().share_prompts(model)
        shown = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
        both = torch.cat([completion, completion.flip(1)])
        packed = packing().pack(model, inputs, [0, 0], both, torch.ones_like(both), shown)
        logps, entropies = packing().completion_logps(model, packed)
    torch.testing.assert_close(logps[0], alone, atol=1e-5, rtol=1e-5)
    rounded = {"alone": alone, "reversed": logps[1], "entropies": entropies[0]}
    return {
        "prompt": [length, sha(plain(inputs["input_ids"].tolist())), ids],
        **{name: [round(float(value), 6) for value in values] for name, values in rounded.items()},
    }


# --- exports ---


@pin
def exports(folder: Path) -> Pin:
    """Files in other frameworks' formats. Of Parquet the rows and their types: the bytes are pyarrow's."""
    parquet = pytest.importorskip("pyarrow.parquet")
    names, found = exporting(), {}
    for to in (name for name in names.EXPORTS if name not in names.PICTURED):
        for style in ("think", "direct"):
            path = folder / f"{style}-{to}" / f"samples{names.SUFFIXES[to]}"
            count = names.export(table_samples(), to, path, names.Export(style=style))
            if path.suffix == ".parquet":
                table = parquet.read_table(path)
                types = [f"{field.name}: {field.type}" for field in table.schema]
                digest = sha(plain([types, table.to_pylist()]))
            else:
                digest = sha(b"".join(file.read_bytes() for file in sorted(path.parent.iterdir())))
            found[f"{to}/{style}"] = [count, digest]
    return found


# --- comparing ---


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def agree(name: str, found: Any, golden: Any) -> bool:
    """Equal to the bit, or, where that is said above, as near as is said."""
    tolerance = TOLERANCE.get(name)
    if tolerance is None or not (isinstance(golden, list) and all(isinstance(v, float) for v in golden)):
        return bool(plain(found) == plain(golden))
    return len(found) == len(golden) and found == pytest.approx(golden, **tolerance)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]}…"


def unlike(name: str, found: Pin, golden: Pin) -> list[str]:
    keys = dict.fromkeys([*golden, *found])
    return [
        f"{name}, {key}: pinned {_short(golden.get(key))}, found {_short(found.get(key))}"
        for key in keys
        if key not in found or key not in golden or not agree(name, found[key], golden[key])
    ]


@pytest.mark.parametrize("name", PINS)
def test_behaviour_is_pinned(name: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    differing = unlike(name, as_json(PINS[name](tmp_path)), golden)
    assert not differing, f"{len(differing)} of {len(golden)} changed:\n" + "\n".join(differing[:10])


def test_every_pin_has_its_values_and_no_other_is_kept() -> None:
    assert list(json.loads(GOLDEN.read_text(encoding="utf-8"))) == list(PINS)


def test_kept_rows_are_those_that_the_shipped_configs_name() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["study_rows"]
    kept = {key: value for key, value in golden.items() if ": kept " in key}
    assert kept and all(same for _, same in kept.values())
    assert all(key.replace("kept ", "") in golden for key in kept), "an arm or seed that no config names"


def write() -> None:
    """Make all values anew. A line a value, so that a change shows as the lines that it is."""
    parts = []
    for name, function in PINS.items():
        with tempfile.TemporaryDirectory() as folder:
            values = as_json(function(Path(folder)))
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    GOLDEN.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("values are changed on purpose only: python tests/test_pins.py --write")
    write()
