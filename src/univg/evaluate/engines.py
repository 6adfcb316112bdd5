"""Ask an answerer the cases of a benchmark, and say what of it decides a number.

An engine is given cases and gives back, batch by batch and in any order, an answer for each, or a refusal that says why
there is none; both carry the case's key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from univg.data.dataset import Item
from univg.errors import UnivgError, offer
from univg.evaluate.benchmarks import ZERO_SHOT, ZERO_SHOT_MAX_PIXELS
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import NATIVE, PromptStyle, choose_style, render_chat, render_prompt
from univg.models.answering import (
    Answer,
    Answerer,
    Decoding,
    LocalAnswerer,
    Question,
    Refusal,
    ServerAnswerer,
    read_budget,
)
from univg.models.checkpoint import weights_digest
from univg.models.conventions import REPOSITORIES, find_served_family, guess_style, list_choices
from univg.models.families import MODEL_FAMILIES, AskedStyle, settle_style
from univg.models.pixels import PixelBudget
from univg.models.server import Patience, Server

if TYPE_CHECKING:
    from univg.models.loading import Loaded

Batch: TypeAlias = list[Answer | Refusal]


class Engine(Protocol):
    """What the runner asks of an engine."""

    name: str
    """The model as it was asked for. A folder may move, so this is not in the fingerprint."""
    style: PromptStyle
    frame: Frame

    def fingerprint(self) -> dict[str, Any]:
        """Return everything about the engine that decides a number."""

    def answer(self, cases: Sequence[Item], decoding: Decoding) -> Iterator[Batch]:
        """Yield answers or refusals to every case, some at a time. Raises UnivgError if it cannot go on."""


def question_of(case: Item, style: PromptStyle) -> Question:
    """Return the question that a case asks of a checkpoint whose style is ``style``, in the paper's words."""
    sample = case.sample
    chat = render_chat(len(sample.images), sample.query, choose_style(sample, style))
    return Question(case.key, chat, case.pictures, group=sample.task, sizes_wh=case.sizes_wh)


class _AnswererEngine:
    """An engine whose answers an answerer gives."""

    style: PromptStyle
    notes: tuple[str, ...] = ()
    """What was chosen because nobody says how the model is asked, and why."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer, self.name = answerer, answerer.name

    def answer(self, cases: Sequence[Item], decoding: Decoding) -> Iterator[Batch]:
        yield from self.answerer.answer([question_of(case, self.style) for case in cases], decoding)

    def _prompt(self) -> dict[str, str]:
        stated = {"style": self.style, "wording": render_prompt("{query}", self.style)}
        if self.style in NATIVE:
            stated["wording_of_several"] = render_prompt("{query}", self.style, 2)
        return stated


class LocalEngine(_AnswererEngine):
    """A model in this process, ``batch_size`` responses at a time, asked in ``style`` (None: the checkpoint's own)."""

    def __init__(self, loaded: Loaded, batch_size: int = 32, style: AskedStyle | None = None) -> None:
        super().__init__(LocalAnswerer(loaded, batch_size))
        self.loaded = loaded
        self.style: PromptStyle = settle_style(style or loaded.prompt_style, loaded.family)
        self.notes = list_choices(loaded.style_note, loaded.pixels_note, style=style, options=True)
        self.frame: Frame = loaded.family.frame

    def fingerprint(self) -> dict[str, Any]:
        import torch
        import transformers

        return {
            "engine": "local",
            "model": self.loaded.revision or weights_digest(self.loaded.name),
            "family": self.loaded.family.model_type,
            "prompt": self._prompt(),
            "pixels": asdict(self.loaded.pixel_budget),
            "dtype": str(self.loaded.model.dtype).removeprefix("torch."),
            "device": self.loaded.device.type,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }


class OpenAIEngine(_AnswererEngine):
    """A model behind an OpenAI-compatible address such as `http://localhost:8000/v1`.

    `model` None takes the only one that is served. `univg serve` says what its model writes and how it is asked
    and resizes; for other servers `family`, `style` and `budget` say it (None: the family of the published model of
    this name, else Qwen2-VL; as a checkpoint of this name and family that has no record is asked, and for a stock
    model the budget of its family). A style or a budget that is given always holds.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        family: str | None = None,
        style: AskedStyle | None = None,
        budget: PixelBudget | None = None,
        concurrency: int = 16,
        api_key: str = "none",
        patience: Patience | None = None,
    ) -> None:
        if family is not None and family not in MODEL_FAMILIES:
            raise UnivgError(f"unknown family {family!r}", remedy=offer(family, MODEL_FAMILIES))
        server = Server(url, api_key, replace(patience or Patience(), failures=max(8, concurrency)))
        name, self._root = server.served(model)
        stated = server.conventions(name)
        self._family, family_note = find_served_family(family, stated, self._root, name)
        recorded = stated.get("prompt_style") if stated else None
        guessed, note = guess_style(self._family, self._root if self._root in REPOSITORIES else name)
        self.style: PromptStyle = settle_style(style or recorded or guessed, self._family)
        told = list_choices("" if recorded else note, "", style=style, options=True)
        self.notes = (f"{family_note}; --family names another", *told) if family_note else told
        self.frame: Frame = self._family.frame
        self._served = served = read_budget(stated)
        stock = not recorded and guessed == self._family.native
        self._budget = budget or served or (self._family.stock_budget if stock else PixelBudget())
        factor = int(stated.get("factor") or self._family.factor)
        super().__init__(ServerAnswerer(server, name, self._budget, factor, concurrency, served=served))

    def fingerprint(self) -> dict[str, Any]:
        stated: dict[str, Any] = {
            "engine": "openai",
            "model": self.name,
            "root": self._root,
            "family": self._family.model_type,
            "prompt": self._prompt(),
            "pixels": asdict(self._budget),
        }
        if self._served is not None and self._served != self._budget:
            stated["served"] = asdict(self._served)
        return stated


def load_local(
    name: str,
    benchmark: str,
    *,
    device: str | None = None,
    dtype: str = "auto",
    max_pixels: int | None = None,
    batch_size: int = 32,
    style: AskedStyle | None = None,
) -> LocalEngine:
    """Load checkpoint `name` for `benchmark`.

    The pixel budget is `max_pixels` if given, else the checkpoint's own. A checkpoint that has the paper's
    default gets 640000 pixels for the zero-shot sets, as the paper's evaluation of these has.
    Errors: as `univg.models.loading.load`.
    """
    from univg.models.loading import load

    loaded = load(name, device=device, dtype=dtype)
    loaded.processor.set_pixel_budget(budget_for(benchmark, loaded.pixel_budget, max_pixels))
    if max_pixels is not None:
        loaded = replace(loaded, pixels_note="")
    return LocalEngine(loaded, batch_size, style)


def budget_for(benchmark: str, stored: PixelBudget, max_pixels: int | None = None) -> PixelBudget:
    """Return the pixel budget of a run; see `load_local`.

    >>> budget_for("lisa_val", PixelBudget()).max_pixels, budget_for("mig_bench", PixelBudget()).max_pixels
    (640000, 401408)
    """
    if max_pixels is None and benchmark in ZERO_SHOT and stored == PixelBudget():
        max_pixels = ZERO_SHOT_MAX_PIXELS
    return stored if max_pixels is None else stored.up_to(max_pixels)
