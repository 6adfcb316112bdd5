"""Say what `univg construct` may vary: data, teacher, judge, rules, server, budget; no torch is loaded here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from univg.config import Config
from univg.construct.verify import Language, Rules
from univg.errors import UnivgError, offer
from univg.files import check_exists
from univg.models.temperature import GREEDY_BELOW, settle_temperature

__all__ = ["WORLD", "WORLD_N", "ConstructConfig", "Plan"]

WORLD, SERVER = "world", "openai:"
URL_VARIABLE = "OPENAI_BASE_URL"
WORLD_N = 26
"""Two of each of the world's families."""


@dataclass(frozen=True)
class Plan:
    """Say how thoughts are asked for and verified.

    `chains` proposals a sample, in one request if `together`, else in one each. `shown`: the teacher sees the
    ground truth and is asked in the words of `prompts`; else only the question is put to it.
    """

    chains: int = 3
    together: bool = False
    shown: bool = True
    rules: Rules = field(default_factory=Rules)
    temperature: float = 1.0
    max_new_tokens: int = 1024
    judge_tokens: int = 64
    seed: int = 0


class DataOptions(Config):
    """What thoughts are written for."""

    section: ClassVar[str] = "Data"

    data: str = Field(default=WORLD, description="Any file that `univg data` reads, or world.")
    images: Path | None = Field(default=None, description="Folder of its images.")
    format: str | None = Field(
        default=None, description="See `univg data formats` (default: told by its fields)."
    )
    n: int | None = Field(default=None, ge=1, description="Only the first n samples (of a world 26).")
    task: tuple[str, ...] = Field(default=(), description="Only this task; repeat for several.")
    split: Literal["train", "test", "unseen"] = Field(default="train", description="Split of the world.")
    seed: int = Field(default=0, ge=0, description="Seed of the world's samples.")
    difficulty: float | None = Field(
        default=None, ge=0, le=1, description="Difficulty of the world's samples."
    )
    size: int | None = Field(
        default=None,
        ge=28,
        le=4096,
        description="Longer side of the world's images, pixels (default: 60 to 240; of version 1 120).",
    )
    world_version: Literal[1, 2] = Field(default=2, description="Of the world; 1 is the first one.")

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        from univg.world import FAMILY_NAMES

        if self.data != WORLD:
            check_exists(self.data)
        if self.images is not None and not self.images.is_dir():
            raise UnivgError("no such folder", f"--images {self.images}", "name the folder of the images")
        unknown = sorted(set(self.task) - set(FAMILY_NAMES)) if self.data == WORLD else []
        if unknown:
            raise UnivgError("no such task family", f"--task {unknown[0]}", offer(unknown[0], FAMILY_NAMES))
        return self


class AskingOptions(Config):
    """Who proposes and who picks, and how they are asked."""

    section: ClassVar[str] = "Teacher and judge"

    teacher: str = Field(
        description="openai:MODEL (with --base-url), a checkpoint folder or hub name, embedded, or world."
    )
    chains: int = Field(default=3, ge=1, le=16, description="Proposals a sample.")
    together: bool = Field(
        default=False, description="All in one request, where the server can: images are paid once."
    )
    truth: Literal["auto", "shown", "hidden"] = Field(
        default="auto",
        description="Whether the teacher sees the ground truth (auto: a server's does, others do not).",
    )
    judge: str | None = Field(
        default=None,
        description="Who picks among the verified: same, none, or as --teacher (default: same for a server).",
    )
    prompts: Path | None = Field(default=None, description="Your own texts in place of the package's.")
    temperature: float | None = Field(
        default=None, ge=0, description="Temperature of the proposals (default: 1, with one chain 0)."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer (default: 1024 of a server, else 256)."
    )
    sampling_seed: int = Field(default=0, ge=0, description="Another seed draws other proposals.")

    @property
    def judge_name(self) -> str | None:
        """Who picks: a name like the teacher's, equal to it for the same; None for nobody."""
        name = self.judge or ("same" if self.teacher.startswith(SERVER) else "none")
        return None if name == "none" else self.teacher if name == "same" else name

    @model_validator(mode="after")
    def _check_draws(self) -> Self:
        if self.chains > 1 and self.temperature is not None and not settle_temperature(self.temperature):
            remedy = f"give a temperature of {GREEDY_BELOW:g} or above, or --chains 1"
            raise UnivgError(
                f"{self.chains} greedy proposals would be equal",
                f"--temperature {self.temperature:g}",
                remedy,
            )
        return self

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        if self.judge_name == WORLD:
            remedy = (
                "leave it out, or name a judge" if self.judge == "same" else "name another judge, or none"
            )
            raise UnivgError("the world judges nothing", f"--judge {self.judge}", remedy)
        return self


class RuleOptions(Config):
    """What a proposal must satisfy."""

    section: ClassVar[str] = "Verification"

    min_iou: float = Field(
        default=0.5, ge=0, le=1, description="Least IoU with the ground truth; of a set, its soft-F1."
    )
    min_words: int = Field(default=8, ge=0, description="Shortest thought.")
    max_words: int = Field(default=300, ge=1, description="Longest thought.")
    language: Language = Field(default="en", description="Language of the thoughts.")
    copies: float = Field(
        default=0.9, ge=0, le=1, description="Likeness from which a thought is a copy (0: none)."
    )

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.min_words > self.max_words:
            raise UnivgError(
                "no thought is that long",
                f"--min-words {self.min_words}",
                f"give at most --max-words {self.max_words}",
            )
        return self


class ModelOptions(Config):
    """How servers and checkpoints are reached."""

    section: ClassVar[str] = "Servers and checkpoints"

    base_url: str | None = Field(
        default=None, description="The server's address, http://localhost:8000/v1 (default: OPENAI_BASE_URL)."
    )
    judge_url: str | None = Field(default=None, description="The judge's address, if it is another server.")
    family: str | None = Field(
        default=None,
        description="Family of the server's model: how it resizes (default: by its name, else qwen2_vl).",
    )
    max_pixels: int | None = Field(
        default=None, ge=784, description="Pixels of an image as it is sent (default: the checkpoint's)."
    )
    concurrency: int = Field(default=8, ge=1, description="Requests at a time.")
    rpm: float | None = Field(default=None, ge=0.01, description="Most requests a minute.")
    timeout: float = Field(default=300.0, ge=0.1, description="Seconds for one request.")
    attempts: int = Field(default=6, ge=1, description="Tries for one request.")
    stream: bool = Field(default=False, description="Take answers piece by piece.")
    field: tuple[str, ...] = Field(
        default=(), description="A field more in each request; null takes one out."
    )
    device: str | None = Field(default=None, description="Device of a checkpoint: cpu, cuda or cuda:1.")
    dtype: str = Field(
        default="auto", description="Precision of a checkpoint: auto, float32, bfloat16 or float16."
    )
    batch_size: int = Field(default=16, ge=1, description="Responses at a time of a checkpoint.")

    @property
    def fields(self) -> dict[str, Any]:
        """What `field` adds to each request, by name."""
        fields: dict[str, Any] = {}
        for text in self.field:
            name, equals, value = text.partition("=")
            try:
                if not (name and equals):
                    raise ValueError
                fields[name] = json.loads(value)
            except ValueError:
                raise UnivgError(
                    "not NAME=JSON", f"--field {text}", "write it as --field enable_thinking=false"
                ) from None
        return fields

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.fields.keys() & {"messages", "model", "stream"}:
            raise UnivgError("messages, model and stream are ours", "--field", "leave them out")
        return self


class CostOptions(Config):
    """What it may cost."""

    section: ClassVar[str] = "Cost"

    price_in: float = Field(default=0.0, ge=0, description="Price of a million tokens sent.")
    price_out: float = Field(default=0.0, ge=0, description="Price of a million tokens written.")
    budget_cost: float | None = Field(
        default=None, ge=0, description="The most the folder may cost, at those prices."
    )
    budget_tokens: int | None = Field(
        default=None, ge=1, description="The most tokens, in and out, for the folder."
    )

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if self.budget_cost is not None and not (self.price_in or self.price_out):
            raise UnivgError(
                "a budget in money needs prices",
                "--budget-cost",
                "give --price-in and --price-out, per million tokens, or --budget-tokens",
            )
        return self


class ConstructConfig(AskingOptions, DataOptions, RuleOptions, ModelOptions, CostOptions):
    """Everything that one run of construction may vary."""

    section: ClassVar[str] = "Options"

    out: Path = Field(description="The run's folder; the same command goes on in it.")

    @property
    def plan(self) -> Plan:
        """How thoughts are asked for and verified: where a value is left open, as the teacher's kind wants it."""
        remote = self.teacher.startswith(SERVER)
        temperature = 1.0 if self.chains > 1 else 0.0
        return Plan(
            chains=1 if self.teacher == WORLD else self.chains,
            together=self.together or not remote,
            shown=self.truth == "shown" or (self.truth == "auto" and remote),
            rules=Rules(self.min_iou, self.min_words, self.max_words, self.language, self.copies),
            temperature=temperature if self.temperature is None else settle_temperature(self.temperature),
            max_new_tokens=self.max_new_tokens or (1024 if remote else 256),
            seed=self.sampling_seed,
        )

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        sighted = self.teacher != WORLD or self.judge_name is not None
        if sighted and self.data != WORLD and self.images is None:
            raise UnivgError("a teacher must see the images", f"--data {self.data}", "give --images ROOT")
        return self

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        for option, name in (("--teacher", self.teacher), ("--judge", self.judge_name or "")):
            if name.startswith(SERVER) and not self.find_url(option):
                remedy = "give --base-url, such as http://localhost:8000/v1"
                raise UnivgError("no address", f"{option} {name}", remedy)
        return self

    def find_url(self, option: str) -> str | None:
        """Find the address of the server that `option`, --teacher or --judge, names."""
        own = self.judge_url if option == "--judge" else None
        return own or self.base_url or os.environ.get(URL_VARIABLE)
