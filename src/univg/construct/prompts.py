"""Word what a teacher is asked: texts in files, one for each task, so that they can be read, changed and named.

`prompts/propose.md` is the frame, `prompts/<task>.md` the steps that stand in it, `prompts/judge.md` what a judge
is asked; `prompts/sets` holds the same for questions whose answer is a set. A `$name` in a text is filled in; `FIELDS`
lists the names. None of them is a bound of verification, or a new bound would be a new question. A text is known by its
hash: a changed text is another question, and its answers never mix with those to the old one.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

from univg.construct.verify import Language
from univg.errors import UnivgError
from univg.grounding.mentions import decide_image
from univg.grounding.prompts import PromptStyle, render_answer, render_chat
from univg.grounding.samples import GroundingSample

FOLDER = Path(__file__).with_name("prompts")

Messages: TypeAlias = tuple[dict[str, Any], ...]
PROPOSE, JUDGE = "propose", "judge"
SETS = "sets"
"""The folder with the texts of sets."""
_SHARED = frozenset({"images", "question", "box", "target", "language"})
FIELDS: Mapping[str, frozenset[str]] = {
    PROPOSE: _SHARED | {"steps"},
    JUDGE: _SHARED | {"count", "candidates"},
}
"""What may stand as `$name` in each text; a task's steps may hold what both have."""
NEEDED: Mapping[str, frozenset[str]] = {
    PROPOSE: frozenset({"question", "steps"}),
    JUDGE: frozenset({"question", "candidates"}),
}
"""What each text must hold."""

_TASKS = (
    "diff view_diff common_object object_tracking multi_view region refer_grounding group_grounding reasoning "
    "correspondence free_form referring implicit video"
)
TASKS: Mapping[str, str] = {**{name: name for name in _TASKS.split()}, "detection": "referring"}
"""Which steps a task is given. Any other task is given those of `free_form`, with a single image those of
`referring`."""
SET_TASKS: Mapping[str, str] = {"odd_one_out": "odd_one_out"}
"""The same of answers that are sets; any other task is given the steps of `find_all`."""

LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "Chinese", "any": "the question's language"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Prompts:
    """Hold the texts in use, by name, and those of sets."""

    texts: Mapping[str, str]
    of_sets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | None = None) -> Prompts:
        """Load the package's own texts, each replaced by the file of its name in `folder` (of sets, in its folder
        `sets`) if there is one.

        Raises UnivgError for a folder without texts, a file that replaces none, or a `$name` that means nothing.
        """
        kinds = [
            {path.stem: path.read_text("utf-8") for path in sorted(each.glob("*.md"))}
            for each in (FOLDER, FOLDER / SETS)
        ]
        if folder is None:
            return cls(*kinds)
        if not folder.is_dir():
            raise UnivgError("no such folder", folder, "give --prompts a folder of .md files")
        found = [_list_texts(each) for each in (folder, folder / SETS)]
        if not any(found):
            raise UnivgError("no .md or .txt file in it", folder, f"copy {FOLDER} there and change it")
        for texts, own in zip(kinds, found, strict=True):
            for path in own:
                if path.stem not in texts:
                    nearest = difflib.get_close_matches(path.stem, texts, 1) or [", ".join(texts)]
                    remedy = f"call it {nearest[0]}{path.suffix}"
                    raise UnivgError("no text of that name to replace", path, remedy)
                try:
                    texts[path.stem] = path.read_text("utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise UnivgError(f"cannot be read ({error})", path, "write it as UTF-8 text") from None
                check_text(path, texts[path.stem])
        return cls(*kinds)

    def digest(self, *names: str) -> str:
        """Return 12 hexadecimal digits that stand for the texts named, together."""
        texts = "\0".join(self.texts[name] for name in names)
        return hashlib.sha256(texts.encode()).hexdigest()[:12]

    def digests(self, with_sets: bool = False) -> dict[str, str]:
        """Return the digest of each text, those of sets if they are wanted."""
        found = {name: self.digest(name) for name in self.texts}
        sets = Prompts(self.of_sets)
        return found | ({f"{SETS}/{name}": sets.digest(name) for name in self.of_sets} if with_sets else {})

    def propose(self, sample: GroundingSample, language: Language) -> Messages:
        """Word the chat that shows the teacher question, images and ground truth, and asks for one chain."""
        fields = _fill_fields(sample, language)
        texts = self._choose_texts(sample)
        steps = Template(texts[choose_steps(sample)]).safe_substitute(fields).strip()
        text = Template(texts[PROPOSE]).safe_substitute({**fields, "steps": steps})
        return _make_chat(sample, text)

    def judge(self, sample: GroundingSample, thoughts: Sequence[str], language: Language) -> Messages:
        """Word the chat that shows a judge `thoughts` in this order, numbered from 1, and asks for the best."""
        candidates = "\n\n".join(f"Chain {at}:\n{thought}" for at, thought in enumerate(thoughts, start=1))
        fields = _fill_fields(sample, language)
        fields |= {"candidates": candidates, "count": _spell(len(thoughts))}
        return _make_chat(sample, Template(self._choose_texts(sample)[JUDGE]).safe_substitute(fields))

    def _choose_texts(self, sample: GroundingSample) -> Mapping[str, str]:
        return self.of_sets if sample.complete else self.texts


def _list_texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in (".md", ".txt"))


def choose_steps(sample: GroundingSample) -> str:
    """Return the name of the steps that a sample is given.

    >>> choose_steps(GroundingSample(["a.png"], "Where?", "something of your own"))
    'referring'
    """
    if sample.complete:
        return SET_TASKS.get(sample.task, "find_all")
    return TASKS.get(sample.task, "free_form" if len(sample.images) > 1 else "referring")


def ask_plainly(sample: GroundingSample) -> Messages:
    """Word the question as the paper does, ground truth hidden: for a model that is its own teacher."""
    style: PromptStyle = "set" if sample.complete else "think"
    return tuple(render_chat(len(sample.images), sample.query, style))


def name_image(sample: GroundingSample) -> str:
    """Name in words the image that the answer lies on.

    >>> name_image(GroundingSample(["a", "b"], "Where?", "diff", target_image=1))
    'the second image'
    """
    if len(sample.images) == 1:
        return "the image"
    index, rule = decide_image(len(sample.images), sample.target_image, sample.query)
    if rule == "last":
        return "the image that it lies in"
    return f"the {_ORDINALS[index]} image" if index < len(_ORDINALS) else f"image {index + 1}"


def check_text(path: Path, text: str) -> None:
    """Raise UnivgError for a text, in the file `path`, that the teacher could not be asked with."""
    names, known = set(Template(text).get_identifiers()), FIELDS.get(path.stem, _SHARED)
    if not text.strip():
        raise UnivgError("the text is empty", path, "write it, or remove the file")
    if unknown := sorted(names - known):
        there = ", ".join(f"${name}" for name in sorted(known))
        raise UnivgError(
            f"${unknown[0]} means nothing here", path, f"there are {there}; write $$ for a dollar"
        )
    if missing := sorted(NEEDED.get(path.stem, frozenset()) - names):
        raise UnivgError(f"${missing[0]} is missing", path, "the teacher would not learn it")


def _fill_fields(sample: GroundingSample, language: Language) -> dict[str, str]:
    n = len(sample.images)
    return {
        "images": "one image" if n == 1 else f"{_spell(n)} images, in order",
        "question": sample.query.strip(),
        "box": render_answer(sample, "set_direct" if sample.complete else "simple"),
        "target": name_image(sample),
        "language": LANGUAGES[language],
    }


def _spell(count: int) -> str:
    return _COUNTS[count] if count < len(_COUNTS) else str(count)


def _make_chat(sample: GroundingSample, text: str) -> Messages:
    content: list[dict[str, Any]] = [{"type": "image"} for _ in sample.images]
    return ({"role": "user", "content": [*content, {"type": "text", "text": text.strip()}]},)
