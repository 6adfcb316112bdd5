from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from univg.errors import UnivgError
from univg.models.conventions import read_conventions, write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.loading import Loaded, load
from univg.models.pixels import PixelBudget
from univg.models.tiny import PATCH_SIZE, PIXEL_BUDGET


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: new for key, new in value.items() if new is not None}))


def test_a_saved_checkpoint_comes_back(tiny: Loaded, saved: Path) -> None:
    loaded = load(saved, device="cpu")
    assert loaded.family is MODEL_FAMILIES["qwen2_vl"]
    assert (loaded.prompt_style, loaded.pixel_budget) == ("direct", PIXEL_BUDGET)
    assert (loaded.name, loaded.revision, loaded.model.dtype) == (str(saved), None, torch.float32)
    assert not loaded.model.training
    expected = tiny.model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    text = "<|im_start|>12 é<|box_start|>"
    assert loaded.processor.tokenizer(text) == tiny.processor.tokenizer(text)
    assert loaded.processor.chat_template == tiny.processor.chat_template


def test_dtype_and_pixel_budget_can_be_chosen(saved: Path) -> None:
    factor = 2 * PATCH_SIZE
    budget = PixelBudget(factor**2, 4 * factor**2)
    loaded = load(str(saved), dtype="bfloat16", device="cpu", pixel_budget=budget)
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.pixel_budget == budget
    assert loaded.resized((1000, 1000)) == (2 * factor, 2 * factor)
    assert loaded.resized((4000, 1000)) == (4 * factor, factor)
    assert loaded.resized((1, 1)) == (factor, factor)


def test_without_conventions_the_papers_hold(copied: Path) -> None:
    (copied / "univg.json").unlink()
    loaded = load(copied, device="cpu")
    assert (loaded.prompt_style, loaded.pixel_budget) == ("think", PixelBudget(3136, 401408))


def test_conventions_round_trip(tmp_path: Path) -> None:
    write_conventions(tmp_path, "simple", PixelBudget(1, 2))
    write_conventions(tmp_path, "direct", PixelBudget(784, 1000))
    assert read_conventions(tmp_path) == ("direct", PixelBudget(784, 1000))
    assert [path.name for path in tmp_path.iterdir()] == ["univg.json"]  # no half-written file beside it


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no JSON object"),
        ('{"max_pixel": 1000}', "unknown key 'max_pixel'"),
        ('{"prompt_style": "loud"}', "unknown prompt style 'loud'"),
        ('{"min_pixels": "many"}', "not in whole numbers"),
        ('{"min_pixels": true}', "not in whole numbers"),
        ('{"min_pixels": 500, "max_pixels": 400}', "min_pixels=500"),
    ],
)
def test_bad_conventions_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "univg.json").write_text(text)
    with pytest.raises(UnivgError, match=said):
        read_conventions(tmp_path)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[min(weights)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reshape_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")


FAULTS: list[tuple[Callable[[Path], Any], str, str]] = [
    (lambda folder: (folder / "config.json").unlink(), "not a checkpoint", "save_pretrained"),
    (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON", "again"),
    (lambda folder: edit_json(folder / "config.json", model_type=None), "no model_type", "save_pretrained"),
    (lambda folder: edit_json(folder / "config.json", model_type="llava"), "'llava'", "qwen2_vl, qwen2_5_vl"),
    (lambda folder: edit_json(folder / "config.json", text_config=5), "cannot be read", "again"),
    (truncate, "damaged or cut off", "again"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "damaged or cut off", "again"),
    (pickled, "only pickled weights (pytorch_model.bin)", "save_pretrained"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights", "again"),
    (lose_a_shard, "a part of the weights is missing", "again"),
    (drop_a_weight, "missing or of another shape (", "again"),
    (reshape_a_weight, "missing or of another shape (", "again"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), "no preprocessor_config.json", "again"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json", "again"),
    (
        lambda folder: (folder / "tokenizer.json").write_text("no"),
        "tokenizer or image processor cannot",
        "again",
    ),
    (
        lambda folder: edit_json(folder / "preprocessor_config.json", patch_size=10),
        "multiples of 20",
        "restore",
    ),
    (
        lambda folder: edit_json(folder / "config.json", image_token_id=7),
        "the model reads token 7",
        "restore",
    ),
]


@pytest.mark.parametrize(("damage", "said", "remedy"), FAULTS, ids=[said for _, said, _ in FAULTS])
def test_a_damaged_checkpoint_is_one_line(
    copied: Path, damage: Any, said: str, remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(copied)
    with pytest.raises(UnivgError) as caught:
        load(copied, device="cpu")
    line = str(caught.value)
    assert said in line
    assert str(copied) in line
    assert remedy in caught.value.remedy
    assert "\n" not in line
    assert capfd.readouterr().err == ""  # transformers' own tables and bars stay out of it


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "no such folder"),
        ("./missing", "no such folder"),
        ("missing", "no such folder"),
        ("a/b/c", "no such folder"),
        (Path("org/name"), "no such folder"),
        ("org/name", "the hub cannot be reached"),
        ("org/name@main", "the hub cannot be reached"),
        ("org/na me", "no valid hub name"),
        (__file__, "this is a file"),
    ],
)
def test_a_name_that_leads_nowhere(name: str | Path, said: str) -> None:
    with pytest.raises(UnivgError, match=said) as caught:
        load(name)
    assert str(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_wrong_name_is_refused_without_torch() -> None:
    script = (
        "import sys\n"
        "from univg import Grounder, UnivgError\n"
        "try: Grounder.from_pretrained('/no/such/folder')\n"
        "except UnivgError: pass\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_a_hub_checkpoint_is_fetched_in_two_steps(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings first; weights only of what can be used, and of the very commit whose settings were read."""
    commit, asked = "0123abcd", []
    snapshot = tmp_path / commit
    snapshot.mkdir()

    def fetch(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, "*.safetensors" in allow_patterns))
        for pattern in allow_patterns:
            for file in saved.glob(pattern):
                shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded = load("org/name", device="cpu")
    assert (loaded.name, loaded.revision) == ("org/name", commit)
    assert asked == [("org/name", None, False), ("org/name", commit, True)]
    asked.clear()
    edit_json(snapshot / "config.json", model_type="other")
    monkeypatch.setattr(shutil, "copy", lambda *_: None)
    with pytest.raises(UnivgError, match="'other'"):
        load("org/name@v2", device="cpu")
    assert asked == [("org/name", "v2", False)]


def test_code_in_a_checkpoint_is_not_run(copied: Path) -> None:
    (copied / "evil.py").write_text("raise SystemExit('this must not run')\n")
    edit_json(copied / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    edit_json(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    assert load(copied, device="cpu").family.model_type == "qwen2_vl"


def test_another_frame_than_the_familys_is_refused(saved: Path) -> None:
    assert load(saved, device="cpu", frame="permille").family.frame == "permille"
    with pytest.raises(UnivgError, match="write permille coordinates, not pixel"):
        load(saved, device="cpu", frame="pixel")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"device": "moon"}, "not a device"),
        ({"device": "cuda:99"}, "GPUs can be used"),
        ({"dtype": "int4"}, "use auto"),
    ],
)
def test_a_placement_that_does_not_exist(saved: Path, choice: dict[str, str], said: str) -> None:
    with pytest.raises(UnivgError, match=said):
        load(saved, **choice)  # type: ignore[arg-type]


@pytest.fixture
def adapter(tiny: Loaded, saved: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter's folder, and the logits that base and adapter together give for `PROBE`."""
    peft = pytest.importorskip("peft")
    base = load(saved, device="cpu").model
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(base, config)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(str(folder))
    with torch.no_grad():
        return folder, adapted(PROBE).logits


PROBE = torch.arange(24)[None]


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(PROBE).logits


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_is_merged_into_its_base(adapter: tuple[Path, torch.Tensor], saved: Path) -> None:
    folder, expected = adapter
    given = load(saved, device="cpu", lora=folder)
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(saved))
    named = load(folder, device="cpu")
    assert not torch.allclose(logits(load(saved, device="cpu")), expected, atol=1e-2)
    for loaded in (given, named):
        assert torch.allclose(logits(loaded), expected, atol=1e-4)
        assert loaded.prompt_style == "direct"  # its base's, as the adapter states none
    write_conventions(folder, "think", PIXEL_BUDGET)
    assert load(folder, device="cpu").prompt_style == "think"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_damaged_adapter_is_one_line(adapter: tuple[Path, torch.Tensor], saved: Path) -> None:
    folder, _ = adapter
    edit_json(folder / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(UnivgError, match="does not say which model"):
        load(folder, device="cpu")
    edit_json(folder / "adapter_config.json", base_model_name_or_path="/gone")
    with pytest.raises(UnivgError, match="base '/gone' is not there"):
        load(folder, device="cpu")
    save_file({"nothing": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(UnivgError, match="do not belong to this base"):
        load(saved, device="cpu", lora=folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UnivgError, match="only pickled weights"):
        load(saved, device="cpu", lora=folder)
    with pytest.raises(UnivgError, match="not a LoRA adapter"):
        load(saved, device="cpu", lora=saved)
