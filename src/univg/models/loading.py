"""Load a model that is ready to answer, with the conventions it was trained in.

What a checkpoint writes follows from the `model_type` of its `config.json`, never from how its path is
spelled: `MODEL_FAMILIES` lists what is known. How it is asked, and how many pixels it sees, stands beside the
weights in `univg.json`; `univg.models.conventions` says what a checkpoint without that file gets. Code that a
checkpoint brings is never run.

torch and transformers are imported where they are used: a name that leads nowhere is refused before that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle
from univg.models import checkpoint
from univg.models.checkpoint import COPY_AGAIN
from univg.models.conventions import find_conventions
from univg.models.families import MODEL_FAMILIES, ModelFamily
from univg.models.layout import save_under_published_names
from univg.terminal import notes, waiting

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from univg.models.pixels import PixelBudget
    from univg.models.processor import GroundingProcessor

__all__ = ["Loaded", "choose_dtype", "find_family", "find_stored_dtype", "load", "plain_model"]

_DTYPES = ("float32", "bfloat16", "float16")
_QUICK_BYTES = 1e9  # weights up to this size load in a second: nobody waits


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer, with everything needed to ask it rightly.

    `name` is what was asked for, `revision` the hub's commit (None for a folder). `load` makes one; training
    makes one of the model it has in its hands. `style_note` and `pixels_note`: what was chosen for a checkpoint that
    does not say how it is asked, and why.
    """

    model: PreTrainedModel
    processor: GroundingProcessor
    family: ModelFamily
    prompt_style: PromptStyle
    name: str
    revision: str | None = None
    style_note: str = ""
    pixels_note: str = ""

    @property
    def pixel_budget(self) -> PixelBudget:
        return self.processor.pixel_budget

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int:
        """The longest text, images included, that the model's positions reach to, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    def resized(self, size_wh: SizeWH) -> SizeWH:
        """Return the (width, height) that the model sees of an image of `size_wh` pixels: the extent of the
        "pixel" frame."""
        return self.pixel_budget.resized(size_wh, self.processor.factor)


def load(
    name: str | Path = "embedded",
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    pixel_budget: PixelBudget | None = None,
    lora: str | Path | None = None,
    frame: Frame | None = None,
    empty: bool = False,
    four_bits: bool = False,
) -> Loaded:
    """Load a checkpoint: a folder, a hub name (`org/name`, `org/name@revision`) or one of `EMBEDDED`.

    A folder that holds a LoRA adapter loads the base it names and merges the adapter into it; `lora` merges
    an adapter into the checkpoint `name`. `pixel_budget` replaces the stored one. `device` None is the GPU if
    there is one; `dtype` "auto" is float32 on a CPU and the checkpoint's own on a GPU. `frame` states what
    the caller will read the answers as. The model is in evaluation mode. `empty`: its weights are not
    read, because a process that has them will send them (FSDP); until they are written, they take no memory.
    `four_bits`: the language model's layers are held in 4 bits (bitsandbytes' nf4), and cannot be trained themselves.

    Errors: UnivgError when there is no such checkpoint or it cannot be read, when `frame` is not what the
    family writes, and for a device or dtype that does not exist here.
    """
    source = checkpoint.locate(name)
    if lora is None and checkpoint.is_adapter(source.folder):
        lora, source = name, checkpoint.base_of(source.folder)
    adapter = None if lora is None else checkpoint.adapter_folder(lora)
    family = find_family(source.folder)
    if frame is not None and frame != family.frame:
        cause = f"{family.model_type} checkpoints write {family.frame} coordinates, not {frame}"
        raise UnivgError(
            cause, name, f"leave the frame out, or choose a model of a family that writes {frame}"
        )
    weights = checkpoint.weight_files(source)
    torch_device, torch_dtype = _placement(source.folder, device, dtype)
    found = find_conventions(source, family, adapter)
    processor = _read_processor(source.folder, family)
    processor.set_pixel_budget(pixel_budget or found.pixel_budget)
    quick = sum(file.stat().st_size for file in weights) < _QUICK_BYTES
    if empty:
        model = _build_empty(source.folder, family, torch_dtype)
    else:
        with waiting(notes(quiet=quick), f"loading {name}"):
            place = torch_device if four_bits else None
            model = _read_model(source.folder, family, torch_dtype, place)
    _check_fit(source.folder, model, processor)
    if adapter is not None:
        model = _merge_adapter(model, adapter)
    model.to(torch_device).eval()
    notes_on = (found.style_note, "" if pixel_budget else found.pixels_note)
    return Loaded(model, processor, family, found.prompt_style, str(name), source.revision, *notes_on)


def plain_model(model: Any) -> Any:
    """Return the transformers model inside the wrappers of DDP, DeepSpeed and PEFT."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_family(folder: Path) -> ModelFamily:
    """Return the family of a checkpoint's folder. Errors: UnivgError for one that is not known here."""
    model_type = checkpoint.model_type(folder)
    if model_type not in MODEL_FAMILIES:
        known = ", ".join(MODEL_FAMILIES)
        raise UnivgError(f"unknown model family {model_type!r}", folder, f"known families are {known}")
    return MODEL_FAMILIES[model_type]


def _placement(folder: Path, device: Any, dtype: Any) -> tuple[torch.device, torch.dtype]:
    import torch

    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UnivgError("not a device", repr(device), "use cpu, cuda or cuda:1") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnivgError(f"{torch.cuda.device_count()} GPUs can be used here", repr(device), "use cpu")
    if isinstance(dtype, torch.dtype):
        return chosen, dtype
    if dtype == "auto":
        dtype = choose_dtype(folder, on_cpu=chosen.type == "cpu")
    if dtype not in _DTYPES:
        raise UnivgError("no such dtype", repr(dtype), f"use auto, {', '.join(_DTYPES)}")
    return chosen, getattr(torch, dtype)


def choose_dtype(folder: Path, *, on_cpu: bool) -> str:
    """Return what "auto" stands for: float32 on a CPU, elsewhere what `config.json` says the weights are stored in.

    Raises UnivgError for a file that is no JSON.
    """
    stored = find_stored_dtype(folder)
    return stored if not on_cpu and stored in _DTYPES else "float32"


def find_stored_dtype(folder: Path) -> str:
    """Return what `config.json` says the weights are stored in, "" where it does not.

    Qwen3-VL's says it of the text model alone. Raises UnivgError for a file that is no JSON.
    """
    config = checkpoint.read_json(folder / checkpoint.CONFIG_FILE)
    text = config.get("text_config") or {}
    named = (place.get(key) for place in (config, text) for key in ("dtype", "torch_dtype"))
    return str(next(filter(None, named), ""))


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise on a foreign or damaged file into one line that names the
    checkpoint."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (
        *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError),
        *(SafetensorError, StrictDataclassError),
    ) as error:
        cause = f"{what} cannot be read ({checkpoint.brief(error)})"
        raise UnivgError(cause, folder, COPY_AGAIN) from error


def _read_processor(folder: Path, family: ModelFamily) -> GroundingProcessor:
    # Without these files transformers would make up an image processor and an empty tokenizer.
    for one_of in (("preprocessor_config.json", "processor_config.json"), ("tokenizer.json", "vocab.json")):
        if not any((folder / name).is_file() for name in one_of):
            raise UnivgError(f"the checkpoint has no {' or '.join(one_of)}", folder, COPY_AGAIN)
    with _reading(folder, "the tokenizer or image processor"):
        from univg.models.processor import GroundingProcessor

        processor = GroundingProcessor.from_pretrained(folder)
        processor.published_as = family.processor, family.image_processor
        return processor


def _read_model(
    folder: Path, family: ModelFamily, dtype: torch.dtype, four_bits_on: torch.device | None = None
) -> PreTrainedModel:
    with _reading(folder, "the model"), _own_reports_only():
        import transformers

        quantized: dict[str, Any] = {}
        if four_bits_on is not None:
            quantized["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=["model.visual", "lm_head"],  # of 4 bits too, whatever the name says
            )
            quantized["device_map"] = {"": four_bits_on}

        model, info = getattr(transformers, family.architecture).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # listed in `info` instead, as the missing ones are
            output_loading_info=True,
            **quantized,
        )
    # transformers fills what is missing with random numbers and goes on; that is never what was asked for.
    absent = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if absent:
        cause = f"{len(absent)} of the model's weights are missing or of another shape ({absent[0]})"
        raise UnivgError(cause, folder, COPY_AGAIN)
    save_under_published_names(model)
    return model


def _build_empty(folder: Path, family: ModelFamily, dtype: torch.dtype) -> PreTrainedModel:
    """Build the model around memory that nothing has been written to; its buffers, which no checkpoint holds, are
    there. (On "meta" all weights would have one address, by which accelerate tells them apart.)"""
    with _reading(folder, "the model"):
        import torch
        import transformers
        from accelerate import init_empty_weights  # type: ignore[import-untyped]

        architecture = getattr(transformers, family.architecture)
        config = transformers.AutoConfig.from_pretrained(folder)
        with init_empty_weights(include_buffers=False):
            model = architecture._from_config(config, dtype=dtype)
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                module.register_parameter(name, torch.nn.Parameter(torch.empty_like(weight, device="cpu")))
        model.tie_weights()
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
        built: PreTrainedModel = model
    return built


@contextmanager
def _own_reports_only() -> Iterator[None]:
    """Hold back transformers' bars, and its tables of missing weights (one line of ours says it)."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _check_fit(folder: Path, model: PreTrainedModel, processor: GroundingProcessor) -> None:
    """Check that the processor's files are the model's: nothing else would tell until the answers are wrong."""
    vision = model.config.vision_config
    taken = vision.patch_size * vision.spatial_merge_size
    if taken != processor.factor:
        raise UnivgError(
            f"images are resized to multiples of {processor.factor}, but the model takes those of {taken}",
            folder,
            "restore the preprocessor_config.json that belongs to the model",
        )
    if processor.image_token_id != model.config.image_token_id:
        raise UnivgError(
            f"the tokenizer writes an image as token {processor.image_token_id}, "
            f"the model reads token {model.config.image_token_id}",
            folder,
            "restore the tokenizer files that belong to the model",
        )


def _merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Add a LoRA adapter's product to the weights: afterwards it is a plain model, as fast as its base."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UnivgError("a LoRA adapter needs the peft package", adapter, "pip install peft") from error
    with _reading(adapter, "the adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft on transformers: nothing a user can act on
        # peft only warns of weights missing from the file, and then answers as if there were no adapter.
        warnings.filterwarnings("error", message=".*missing adapter keys")
        try:
            merged: PreTrainedModel = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except UserWarning as error:
            raise UnivgError(
                "the adapter's weights do not belong to this base", adapter, "give the base it was trained on"
            ) from error
    return merged
