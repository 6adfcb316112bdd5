"""How a checkpoint is asked and how many pixels it sees: as `univg.json` beside its weights says, else by a rule.

The rule for a checkpoint without that file, of which nobody can know how it was trained:

1. a hub repository in `REPOSITORIES` is asked as that table says;
2. else by its family (`UNRECORDED`): Qwen2.5-VL and Qwen3-VL checkpoints are taken for stock ones, because what is
   published of them is; Qwen2-VL ones for the paper's kind, because UniVG-R1 came without the file.

A folder's name decides nothing. What was chosen, and why, is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from univg.errors import UnivgError
from univg.files import write_whole
from univg.grounding.prompts import PromptStyle
from univg.models import checkpoint
from univg.models.checkpoint import Source
from univg.models.families import MODEL_FAMILIES, AskedStyle, ModelFamily, settle_style
from univg.models.pixels import PixelBudget
from univg.models.published import PUBLISHED

__all__ = [
    "CONVENTIONS_FILE",
    "FAMILIES",
    "REPOSITORIES",
    "UNRECORDED",
    "Conventions",
    "find_budget",
    "find_conventions",
    "find_served_family",
    "guess_style",
    "list_choices",
    "read_conventions",
    "write_conventions",
]

CONVENTIONS_FILE = "univg.json"
_PIXELS_FILE = "preprocessor_config.json"

REPOSITORIES: Mapping[str, AskedStyle] = {
    "GD-ML/UniVG-R1": "think",
    "Michael4933/Migician": "direct",
    **{
        f"Qwen/Qwen2-VL-{size}-Instruct{kind}": "native"
        for size in ("2B", "7B", "72B")
        for kind in ("", "-AWQ", "-GPTQ-Int4", "-GPTQ-Int8")
    },
}
"""How checkpoints on the hub are asked that have no `univg.json` and are not what their family says."""

UNRECORDED: Mapping[str, AskedStyle] = {"qwen2_vl": "think", "qwen2_5_vl": "native", "qwen3_vl": "native"}
"""How a checkpoint of a family is asked that has no `univg.json` and is not in `REPOSITORIES`."""

FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(REPOSITORIES, "qwen2_vl"),
    **{
        f"Qwen/Qwen2.5-VL-{size}-Instruct{kind}": "qwen2_5_vl"
        for size in ("3B", "7B", "32B", "72B")
        for kind in ("", "-AWQ")
    },
    **{
        f"Qwen/Qwen3-VL-{size}-{kind}": "qwen3_vl"
        for size in ("2B", "4B", "8B", "32B")
        for kind in ("Instruct", "Instruct-FP8", "Thinking", "Thinking-FP8")
    },
}
"""The families of models on the hub, for a server that says no more of its model than such a name."""


@dataclass(frozen=True)
class Conventions:
    """How a checkpoint is asked, and how many pixels of an image it sees. `style_note` and `pixels_note` say what was
    chosen for want of a record, and why; "" where nothing was."""

    prompt_style: PromptStyle
    pixel_budget: PixelBudget
    style_note: str = ""
    pixels_note: str = ""


def find_conventions(source: Source, family: ModelFamily, adapter: Path | None = None) -> Conventions:
    """Return the conventions of a checkpoint: those of its adapter if it has some, its own, else the rule's.

    Errors: UnivgError as `read_conventions`, and for a stock model whose pixel budget cannot be read.
    """
    for folder in (adapter, source.folder):
        if folder is not None and (folder / CONVENTIONS_FILE).exists():
            return Conventions(*read_conventions(folder))
    style, note = guess_style(family, source.repository)
    if style != family.native:
        return Conventions(style, PixelBudget(), note)
    own = _read_own_budget(source.folder) or family.stock_budget
    budget = PixelBudget(
        min(own.min_pixels, family.stock_max_pixels), min(own.max_pixels, family.stock_max_pixels)
    )
    cut = f"images have up to {budget.max_pixels:,} pixels here, its own files allow {own.max_pixels:,}"
    return Conventions(style, budget, note, cut if budget.max_pixels < own.max_pixels else "")


def find_served_family(given: str | None, stated: Mapping[str, Any], *names: str) -> tuple[ModelFamily, str]:
    """Return the family of a model behind a server: as the server has `stated`, as the user has `given`, as the
    published model that has one of `names`; else Qwen2-VL, and a note that says so ("" otherwise).

    >>> find_served_family(None, {}, "Qwen/Qwen3-VL-8B-Instruct", "mine")[0].model_type
    'qwen3_vl'
    >>> find_served_family(None, {}, "mine")[1]
    'taken for a qwen2_vl model, as nobody says its family'
    """
    known = [stated.get("family"), given, *map(FAMILIES.get, names)]
    family = next((MODEL_FAMILIES[str(one)] for one in known if one in MODEL_FAMILIES), None)
    told = "taken for a qwen2_vl model, as nobody says its family"
    return (MODEL_FAMILIES["qwen2_vl"], told) if family is None else (family, "")


def find_budget(name: str) -> PixelBudget:
    """Return how many pixels of an image a checkpoint sees when it is asked. What `PUBLISHED` lists is not looked up.

    >>> find_budget("Qwen/Qwen3-VL-2B-Instruct").max_pixels, find_budget("embedded").max_pixels
    (1310720, 38416)

    Its family is one of `MODEL_FAMILIES`. Errors: UnivgError as `find_conventions`, and for a name that leads nowhere.
    """
    if name in PUBLISHED and not Path(name).is_dir():
        family = MODEL_FAMILIES[PUBLISHED[name]["model_type"]]
        return family.stock_budget if guess_style(family, name)[0] == family.native else PixelBudget()
    source, adapter = checkpoint.locate(name), None
    if checkpoint.is_adapter(source.folder):
        adapter, source = source.folder, checkpoint.base_of(source.folder)
    family = MODEL_FAMILIES[checkpoint.model_type(source.folder)]
    return find_conventions(source, family, adapter).pixel_budget


def guess_style(family: ModelFamily, repository: str | None = None) -> tuple[PromptStyle, str]:
    """Return how a checkpoint is asked of which there is no record, and a note that says so and why.

    >>> from univg.models.families import MODEL_FAMILIES
    >>> family = MODEL_FAMILIES["qwen2_vl"]
    >>> guess_style(family)[0], guess_style(family, "Qwen/Qwen2-VL-2B-Instruct")[0]
    ('think', 'marks')
    """
    known = repository in REPOSITORIES if repository else False
    asked = REPOSITORIES[str(repository)] if known else UNRECORDED[family.model_type]
    why = (
        f"as {repository} is known to be"
        if known
        else f"as {family.model_type} models without {CONVENTIONS_FILE} are"
    )
    style = settle_style(asked, family)
    named = f"native ({style})" if asked == "native" else style
    return style, f"asked in style {named}, {why}"


def list_choices(
    style_note: str,
    pixels_note: str,
    *,
    style: AskedStyle | None = None,
    max_pixels: int | None = None,
    options: bool = False,
) -> tuple[str, ...]:
    """Return the notes on what was chosen for want of a record, but not where the user says it himself. With `options`
    they name how he can.

    >>> list_choices("asked in style json", "images have 9 pixels", max_pixels=20, options=True)
    ('asked in style json; --style asks otherwise',)
    """
    said = [
        (style_note if style is None else "", "; --style asks otherwise"),
        (pixels_note if max_pixels is None else "", "; --max-pixels sets it"),
    ]
    return tuple(note + (remedy if options else "") for note, remedy in said if note)


def _read_own_budget(folder: Path) -> PixelBudget | None:
    """Return the pixel budget of a published checkpoint's own file, in whichever of its forms; None without one."""
    path = folder / _PIXELS_FILE
    if not path.is_file():
        return None
    settings = checkpoint.read_json(path)
    size = settings.get("size")
    settings |= size if isinstance(size, dict) else {}
    least, most = (
        next((settings[name] for name in names if type(settings.get(name)) is int), None)
        for names in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
    )
    try:
        return PixelBudget(least, most) if least and most else None
    except ValueError as error:
        raise UnivgError(str(error), path, checkpoint.COPY_AGAIN) from error


def write_conventions(folder: str | Path, prompt_style: PromptStyle, pixel_budget: PixelBudget) -> None:
    """Write `univg.json` beside a checkpoint's weights, whole or not at all."""
    settings = {
        "prompt_style": prompt_style,
        "min_pixels": pixel_budget.min_pixels,
        "max_pixels": pixel_budget.max_pixels,
    }
    write_whole(Path(folder) / CONVENTIONS_FILE, json.dumps(settings, indent=2) + "\n")


def read_conventions(folder: str | Path) -> tuple[PromptStyle, PixelBudget]:
    """Read the prompt style and pixel budget stored in `folder`; the paper's ("think", 3136 to 401408) without a
    file.

    Errors: UnivgError for a file that is not JSON, or holds an unknown key or an impossible value.
    """
    path = Path(folder) / CONVENTIONS_FILE
    if not path.exists():
        return "think", PixelBudget()
    settings = checkpoint.read_json(path)
    remedy = 'write it as {"prompt_style": "think", "min_pixels": 3136, "max_pixels": 401408}'
    unknown = sorted(set(settings) - {"prompt_style", "min_pixels", "max_pixels"})
    if unknown:
        raise UnivgError(f"unknown key {unknown[0]!r}", path, remedy)
    style = settings.pop("prompt_style", "think")
    if style not in get_args(PromptStyle):
        raise UnivgError(f"unknown prompt style {style!r}", path, f"use one of {get_args(PromptStyle)}")
    if not all(type(value) is int for value in settings.values()):
        raise UnivgError("the pixel budget is not in whole numbers", path, remedy)
    try:
        return style, PixelBudget(**settings)
    except ValueError as error:
        raise UnivgError(str(error), path, remedy) from error
