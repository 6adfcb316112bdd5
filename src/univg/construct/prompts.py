"""What a teacher is told: texts in files, one for each task, so that they can be read, changed and named.

`prompts/propose.md` is the frame, `prompts/<task>.md` the steps that stand in it, `prompts/judge.md` what a judge
is asked. A `$name` in a text is filled in; which names there are is in `FIELDS`: nothing that verification may
change later, or a new bound would be a new question. A text is known by its hash: a changed text is another
question, and never mixes with answers to the old one.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from univg.grounding.mentions import which_image
from univg.grounding.prompts import render_chat, render_response
from univg.grounding.samples import GroundingSample

FOLDER = Path(__file__).with_name("prompts")

PROPOSE, JUDGE = "propose", "judge"
_SHARED = frozenset({"images", "question", "box", "target", "language"})
FIELDS: Mapping[str, frozenset[str]] = {
    PROPOSE: _SHARED | {"steps"},
    JUDGE: _SHARED | {"count", "candidates"},
}
"""What may stand as `$name` in each text; in a task's steps it is what both have."""

TASKS: Mapping[str, str] = {
    **{
        name: name
        for name in ("diff", "view_diff", "common_object", "object_tracking", "multi_view", "region")
    },
    **{name: name for name in ("refer_grounding", "group_grounding", "reasoning", "correspondence")},
    **{name: name for name in ("free_form", "referring", "implicit", "video")},
    "detection": "referring",
}
"""Which steps a task is given. A task that is not here is given those of `free_form`, with a single image those
of `referring`."""

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "Chinese", "any": "the question's language"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class PromptError(ValueError):
    """A prompt file that cannot be used; one line with what, which and what to do."""


@dataclass(frozen=True)
class Prompts:
    """The texts in use, by name, and their hashes."""

    texts: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path | None = None) -> Prompts:
        """The package's own texts, each replaced by the file of its name in `folder` if there is one.

        Raises PromptError for a folder without texts, a file that replaces none, or a `$name` that means nothing.
        """
        texts = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.md"))}
        if folder is None:
            return cls(texts)
        if not folder.is_dir():
            raise PromptError(f"no such folder: {folder}: give --prompts a folder of .md files")
        own = sorted(path for path in folder.iterdir() if path.suffix in (".md", ".txt"))
        if not own:
            raise PromptError(f"no .md or .txt file in it: {folder}: copy {FOLDER} there and change it")
        for path in own:
            if path.stem not in texts:
                nearest = difflib.get_close_matches(path.stem, texts, 1) or [", ".join(texts)]
                raise PromptError(
                    f"no text of that name to replace: {path}: call it {nearest[0]}{path.suffix}"
                )
            try:
                texts[path.stem] = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PromptError(f"cannot be read ({error}): {path}: write it as UTF-8 text") from None
            _check(path, texts[path.stem])
        return cls(texts)

    def name(self, sample: GroundingSample) -> str:
        """Which steps a sample is given.

        >>> Prompts.load().name(GroundingSample(["a.png"], "Where?", "something of your own"))
        'referring'
        """
        return TASKS.get(sample.task, "free_form" if len(sample.images) > 1 else "referring")

    def digest(self, *names: str) -> str:
        """12 hexadecimal digits that stand for the texts named, together."""
        texts = "\0".join(self.texts[name] for name in names)
        return hashlib.sha256(texts.encode()).hexdigest()[:12]

    def digests(self) -> dict[str, str]:
        """The hash of each text."""
        return {name: self.digest(name) for name in self.texts}

    def propose(self, sample: GroundingSample, language: str) -> tuple[dict[str, Any], ...]:
        """The chat that shows the teacher question, images and ground truth, and asks for one chain in a language
        of `LANGUAGES`."""
        fields = _fields(sample, language)
        steps = Template(self.texts[self.name(sample)]).safe_substitute(fields).strip()
        text = Template(self.texts[PROPOSE]).safe_substitute({**fields, "steps": steps})
        return _chat(len(sample.images), text)

    def judge(
        self, sample: GroundingSample, thoughts: Sequence[str], language: str
    ) -> tuple[dict[str, Any], ...]:
        """The chat that shows a judge `thoughts` in this order, numbered from 1, and asks for the best."""
        candidates = "\n\n".join(f"Chain {at}:\n{thought}" for at, thought in enumerate(thoughts, start=1))
        count = _COUNTS[len(thoughts)] if len(thoughts) < len(_COUNTS) else str(len(thoughts))
        fields = {**_fields(sample, language), "candidates": candidates, "count": count}
        return _chat(len(sample.images), Template(self.texts[JUDGE]).safe_substitute(fields))


def ask_plainly(sample: GroundingSample) -> tuple[dict[str, Any], ...]:
    """The question as the paper words it, ground truth hidden: for a model that is its own teacher."""
    return tuple(render_chat(len(sample.images), sample.query, "think"))


def image_words(sample: GroundingSample) -> str:
    """The image that the answer lies on, in words.

    >>> image_words(GroundingSample(["a", "b"], "Where?", "diff", target_image=1))
    'the second image'
    """
    if len(sample.images) == 1:
        return "the image"
    index, rule = which_image(len(sample.images), sample.target_image, sample.query)
    if rule == "last" or index >= len(_ORDINALS):
        return "the image that it lies in" if rule == "last" else f"image {index + 1}"
    return f"the {_ORDINALS[index]} image"


def _fields(sample: GroundingSample, language: str) -> dict[str, str]:
    n = len(sample.images)
    count = _COUNTS[n] if n < len(_COUNTS) else str(n)
    return {
        "images": "one image" if n == 1 else f"{count} images, in order",
        "question": sample.query.strip(),
        "box": render_response(sample.boxes[0], style="simple"),
        "target": image_words(sample),
        "language": LANGUAGES[language],
    }


def _chat(n_images: int, text: str) -> tuple[dict[str, Any], ...]:
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_images)]
    return ({"role": "user", "content": [*content, {"type": "text", "text": text.strip()}]},)


def _check(path: Path, text: str) -> None:
    template, known = Template(text), FIELDS.get(path.stem, _SHARED)
    if not text.strip():
        raise PromptError(f"the text is empty: {path}: write it, or remove the file")
    unknown = sorted(set(template.get_identifiers()) - known)
    if unknown:
        names = ", ".join(f"${name}" for name in sorted(known))
        raise PromptError(
            f"${unknown[0]} means nothing here: {path}: there are {names}; write $$ for a dollar"
        )
    needed = {PROPOSE: {"question", "steps"}, JUDGE: {"question", "candidates"}}.get(path.stem, set())
    missing = sorted(needed - set(template.get_identifiers()))
    if missing:
        raise PromptError(f"${missing[0]} is missing: {path}: the teacher would not learn it")
