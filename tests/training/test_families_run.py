"""Each family through the command: taught, rewarded, asked, scored, served, merged, and read by plain transformers.

One run a family, which all tests of this file read. A few questions are learnt by heart, about pictures of several
shapes: only where teaching, asking, scoring and serving mean the same pixels do the boxes come back.

UNIVG_VLLM names the Python of an environment with torchvision, which transformers' AutoProcessor asks for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

import families
import vllm_engine
from serving import serving
from univg.cli.main import main
from univg.grounding.prompts import render_answer, render_prompt
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.families import MODEL_FAMILIES
from univg.models.grounder import Grounder
from univg.models.loading import load
from univg.pictures.images import open_picture
from univg.serve.web import answer as answer_page

pytestmark = pytest.mark.slow

PYTHON = vllm_engine.PYTHON  # it has torchvision, which transformers' own processors need
ANSWER = Path(__file__).parents[1] / "models" / "engines" / "answer.py"
BUDGET = {"min_pixels": 3136, "max_pixels": 16384}
BOX = (0.123456, 0.234567, 0.765432, 0.876543)
SHAPES = {"wide": (300, 120), "lying": (200, 130), "small": (61, 47)}


def write_samples(folder: Path) -> list[GroundingSample]:
    """Questions of one box, on a photograph stored on its side among others, and one of a set on two pictures."""
    for number, (name, size) in enumerate(SHAPES.items()):
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "lying" else 1
        Image.new("RGB", size, (40 * number, 90, 200 - 40 * number)).save(folder / f"{name}.jpg", exif=exif)
    samples = [
        GroundingSample(
            (f"{name}.jpg",), f"Where is the {name} dog?", "referring", (BOX,), source=f"own#{name}"
        )
        for name in ("wide", "lying")
    ]
    boxes = (BOX, (0.0, 0.25, 0.5, 1.0))
    pair = ("wide.jpg", "small.jpg")
    samples.append(
        GroundingSample(
            pair, "Every cat.", "find_all", boxes, box_images=(0, 1), complete=True, source="own#set"
        )
    )
    write_jsonl(folder / "own.jsonl", samples)
    return samples


@dataclass(frozen=True)
class Ran:
    """What a family's run left: the folder, and what it was asked."""

    name: str
    folder: Path
    samples: list[GroundingSample]

    def rows(self, run: str) -> dict[str, dict[str, Any]]:
        lines = (self.folder / run / "rows-0-of-1.jsonl").read_text().splitlines()
        return {row["source"]: row for row in map(json.loads, lines)}

    def taught(self, sample: GroundingSample) -> str:
        """The answer to a question, as the family writes it, at the size that transformers' own rule gives."""
        family = MODEL_FAMILIES[self.name]
        limits = family.factor, BUDGET["min_pixels"], BUDGET["max_pixels"]
        opened = [open_picture(self.folder / name).image for name in sample.images]
        sizes = [smart_resize(image.height, image.width, *limits)[::-1] for image in opened]
        style = "set_direct" if sample.complete else "direct"
        return render_answer(sample, style, 0, sizes if family.frame == "pixel" else ())


def run(*command: str) -> None:
    assert main(list(command)) == 0, command


@pytest.fixture(scope="module", params=families.FAMILIES)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    families.save_family(folder / "start", name, scale=1.0, few_tokens=True)
    samples = write_samples(folder)
    data = {"reader": "univg", "path": str(folder / "own.jsonl"), "images": str(folder)}
    own = {"path": data["path"], "images": data["images"]}
    shared = {
        "model": str(folder / "start"),
        "data": [data],
        "prompt_style": "direct",
        "pixel_budget": BUDGET,
    }
    shared |= {"workers": 0, "bf16": False, "save_every": 1000, "freeze_vision": False}
    sft = {"batch": 3, "micro_batch": 3, "max_steps": 200, "learning_rate": 6e-3, "warmup_ratio": 0.05}
    sft |= {"validation": {**own, "every": 200, "n": 3, "max_new_tokens": 90}}
    grpo = {
        "model": str(folder / "sft"),
        "prompts_per_step": 3,
        "rollouts": 2,
        "micro_batch": 2,
        "max_steps": 1,
    }
    grpo |= {"max_completion_tokens": 90, "temperature": 0.01, "learning_rate": 1e-6, "shared_prefix": "on"}
    lora = {"model": str(folder / "sft"), "lora": {"r": 4}, "max_steps": 1}
    (folder / "sft.yaml").write_text(yaml.safe_dump(shared | sft))
    (folder / "grpo.yaml").write_text(yaml.safe_dump(shared | grpo))
    (folder / "lora-sft.yaml").write_text(yaml.safe_dump(shared | sft | lora | {"validation": None}))
    (folder / "lora-grpo.yaml").write_text(yaml.safe_dump(shared | grpo | lora))
    for stage in ("sft", "grpo", "lora-sft", "lora-grpo"):
        run(stage.rpartition("-")[2], "--config", str(folder / f"{stage}.yaml"), "--out", str(folder / stage))
    run("merge", str(folder / "lora-sft"), "--out", str(folder / "merged"), "--dtype", "float32")
    asked = [
        "--benchmark",
        "univg",
        "--data",
        data["path"],
        "--images",
        str(folder),
        "--max-new-tokens",
        "60",
    ]
    for model in ("sft", "grpo", "merged"):
        run("evaluate", *asked, "--model", str(folder / model), "--out", str(folder / f"asked-{model}"))
    with serving(load(folder / "sft")) as served:
        remote = ["--engine", "openai", "--url", f"{served.url}/v1"]
        run("evaluate", *asked, *remote, "--out", str(folder / "asked-served"))
        run("evaluate", *asked, *remote, "--max-pixels", "65536", "--out", str(folder / "asked-wide"))
    return Ran(name, folder, samples)


def log_of(ran: Ran, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ran.folder / stage / "log.jsonl").read_text().splitlines()]


def test_what_was_learnt_is_scored_where_it_was_taught(ran: Ran) -> None:
    """By validation in training, by evaluation, here and behind a server, and after GRPO and a merged adapter."""
    for place in ("sft", "served", "grpo", "merged"):
        rows = ran.rows(f"asked-{place}")
        for sample in ran.samples:
            row = rows[str(sample.source)]
            assert row["text"] == ran.taught(sample), (place, sample.source)
            assert row["fault"] is None and row["iou"] > 0.93, (place, sample.source)
    scored = [row for row in log_of(ran, "sft") if "validation/iou" in row]
    assert scored[0]["validation/iou"] < 0.3 < 0.93 < scored[-1]["validation/iou"]
    assert scored[-1]["validation/format"] == 1.0


def test_rewards_are_read_where_stage_one_taught(ran: Ran) -> None:
    for stage in ("grpo", "lora-grpo"):
        [row] = [row for row in log_of(ran, stage) if "reward" in row]
        assert row["iou"] > 0.9 and row["format"] > 0.9, stage


def test_a_client_that_sends_larger_pictures_reads_boxes_at_the_servers_size(ran: Ran) -> None:
    """The server makes them smaller. Resized twice, a picture may come out one factor wider or narrower than once."""
    for row in ran.rows("asked-wide").values():
        assert row["iou"] > 0.75, row["source"]


def test_ground_and_the_page_answer_in_pixels_of_the_picture(
    ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    lying = next(sample for sample in ran.samples if sample.source == "own#lying")
    path = str(ran.folder / lying.images[0])
    run("ground", path, "-q", lying.query, "--model", str(ran.folder / "sft"), "--json")
    [box] = json.loads(capsys.readouterr().out)["boxes"]
    width, height = 130, 200  # upright
    truth = [BOX[0] * width, BOX[1] * height, BOX[2] * width, BOX[3] * height]
    assert box["box_px"] == pytest.approx(truth, abs=1.5)
    _, _, told = answer_page(Grounder.from_pretrained(ran.folder / "sft"), [path], lying.query)
    shown = [int(number) for number in re.findall(r"\d+", told.partition("in pixels")[0])[1:5]]
    assert shown == pytest.approx(truth, abs=1.5)


def test_the_files_are_as_the_family_publishes_them(ran: Ran) -> None:
    published = families.PUBLISHED / ran.name

    def read(folder: Path, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / name).read_text())
        return found

    start = ran.folder / "start"
    for stage in ("sft", "grpo", "merged"):
        out = ran.folder / stage
        ours, theirs = read(out, "config.json"), read(start, "config.json")
        assert ("text_config" in ours) == ("text_config" in theirs)
        inner, wanted = ours.get("text_config", ours), theirs.get("text_config", theirs)
        for key in ("rope_scaling", "rope_theta", "hidden_size", "vocab_size", "tie_word_embeddings"):
            assert inner[key] == wanted[key], key
        assert "rope_parameters" not in inner and ours["architectures"] == theirs["architectures"]
        assert ours.get("torch_dtype", ours.get("dtype")) == "float32"
        for key, value in theirs["vision_config"].items():
            assert key == "model_type" or ours["vision_config"][key] == value, key
        images, wanted = read(out, "preprocessor_config.json"), read(published, "preprocessor_config.json")
        for key in ("processor_class", "image_processor_type", "patch_size", "image_mean", "image_std"):
            assert images[key] == wanted[key], key
        assert read(out, "univg.json") == {"prompt_style": "direct", **BUDGET}
        with (
            safe_open(out / "model.safetensors", "np") as one,
            safe_open(start / "model.safetensors", "np") as two,
        ):
            assert set(one.keys()) == set(two.keys())  # as the published ones are called


def test_plain_transformers_gives_the_same_texts(ran: Ran) -> None:
    """AutoProcessor and AutoModelForImageTextToText, in an environment without univg."""
    jobs = [
        {
            "images": _upright(ran, sample),
            "text": render_prompt(sample.query, "set_direct" if sample.complete else "direct"),
            "tokens": 90,
        }
        for sample in ran.samples
    ]
    (ran.folder / "jobs.json").write_text(json.dumps(jobs))
    written = ran.folder / "plain.json"
    folders = [ran.folder / stage for stage in ("sft", "grpo", "merged")]
    command = [PYTHON, ANSWER, "transformers", ran.folder / "jobs.json", written, *folders]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=900
    )
    if done.returncode == 5:
        pytest.skip(f"{PYTHON}: {done.stderr.strip()}; name an environment that has it in UNIVG_VLLM")
    assert done.returncode == 0, done.stderr[-3000:]
    texts = [re.sub(r"<\|box_(?:start|end)\|>", "", ran.taught(sample)) for sample in ran.samples]
    assert json.loads(written.read_text()) == [texts] * 3


def _upright(ran: Ran, sample: GroundingSample) -> Sequence[str]:
    paths = []
    for name in sample.images:
        path = ran.folder / f"upright-{Path(name).stem}.png"
        open_picture(ran.folder / name).image.save(path)
        paths.append(str(path))
    return paths
