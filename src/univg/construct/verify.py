"""Verify proposed chains of thought: name every cause that speaks against teaching one.

Nothing here asks anybody: the same text always gets the same verdict, so bounds can be changed and everything
verified again without a single request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from univg.grounding.boxes import Box, SizeWH, iou, unit_to_permille
from univg.grounding.coordinates import Frame, read_quads, to_unit
from univg.grounding.mentions import find_images_named
from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import FAULTS, Asked, Reading, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score, score

Language: TypeAlias = Literal["en", "zh", "any"]

CAUSES: Mapping[str, str] = {
    **{str(name): meaning for name, meaning in FAULTS.items()},
    "no_thought": "an answer without a chain of thought",
    "low_iou": "the answer's IoU with the ground truth, of a set its soft-F1, is below the bound",
    "wrong_count": "of a set, more or fewer boxes than there are: the thought speaks of other things",
    "wrong_image": "the thought concludes on another image than the answer's; of a set, an image is wrong or missing",
    "leak_phrase": 'it speaks of having been given the answer ("the ground truth", "the given coordinates")',
    "leak_box": "it quotes the answer's numbers before it has derived them",
    "markup": "tags or special tokens inside the thought",
    "missing_image": "it does not mention an image that its task must look at",
    "too_short": "fewer words than the bound",
    "too_long": "more words than the bound",
    "language": "it is not written in the language asked for",
    "copied": "nearly the same text as another sample's thought",
}
"""Every cause for which a proposal is rejected. Of several, the first in this order is counted."""

MUST_MENTION: Mapping[str, str] = {
    **dict.fromkeys(("diff", "view_diff", "common_object", "refer_grounding", "reasoning"), "all"),
    "correspondence": "all",
    **dict.fromkeys(("object_tracking", "multi_view"), "first and target"),
    **dict.fromkeys(("group_grounding", "region", "video", "free_form"), "target"),
}
"""Which of several images a thought must name, by task; "target" for any other task. Where neither the sample nor
the question says which image is the target, naming any one image is enough."""


@dataclass(frozen=True)
class Rules:
    """Hold the bounds of verification. `min_iou`: of the answer with the ground truth; of a set, its soft-F1.
    `min_words`, `max_words`: of the thought. `copies`: the likeness from which a thought counts as a copy of another's
    (0: none does)."""

    min_iou: float = 0.5
    min_words: int = 8
    max_words: int = 300
    language: Language = "en"
    copies: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= 1 or not 0 <= self.copies <= 1:
            raise ValueError(f"{self}: IoU and likeness lie in 0-1")
        if not 0 <= self.min_words <= self.max_words:
            raise ValueError(f"{self}: give 0 <= min_words <= max_words")
        if self.language not in get_args(Language):
            raise ValueError(f"language {self.language!r}: choose from {', '.join(get_args(Language))}")


@dataclass(frozen=True)
class Verdict:
    """Hold what verification found: the `thought` as it was read (None if there is none), the answer's `iou` with the
    ground truth (of a set, its soft-F1), and every cause against it, in the order of `CAUSES`; without a cause it is
    verified."""

    thought: str | None
    iou: float
    causes: tuple[str, ...]


def verify(
    sample: GroundingSample,
    text: str,
    rules: Rules,
    *,
    truncated: bool = False,
    frame: Frame = "permille",
    seen_wh: Sequence[SizeWH] = (),
) -> Verdict:
    """Read one proposal, once, and name every cause against it; copies of others' thoughts aside, which
    :mod:`univg.construct.copies` finds.

    ``truncated``: the token limit cut the text off. ``frame``: what the teacher's numbers mean; "pixel" needs
    ``seen_wh``, the size of each image as the teacher saw it. Raises SampleError for a sample without ground truth.

    >>> sample = GroundingSample(["a.png"], "Where is the cat?", "referring", boxes=[(0.1, 0.1, 0.5, 0.5)])
    >>> verify(sample, "<think>The ground truth says left.</think><answer>(100,100),(500,500)</answer>", Rules()).causes
    ('leak_phrase', 'too_short')
    """
    style: PromptStyle = "set" if sample.complete else "think"
    target = None if sample.complete else sample.target_image
    reading = read(text, Asked(len(sample.images), sample.query, style, frame, target), seen_wh, truncated)
    result = score(sample, reading)
    causes = {*_check_answer(reading, result, rules), *_check_thought(sample, reading, rules)}
    if not sample.complete and reading.first is not None and reading.first.image_index != reading.image_index:
        causes.add("wrong_image")
    if reading.thought:
        counted = sample.targets if sample.complete else sample.targets[:1]
        for on, box in counted:
            place = on if sample.complete and on is not None else reading.image_index
            size_wh = seen_wh[place] if frame == "pixel" else None
            if quotes_early(sample, reading.thought, frame, size_wh, box):
                causes.add("leak_box")
    elif not causes:
        causes = {"no_thought"}
    return Verdict(reading.thought or None, result.iou, tuple(name for name in CAUSES if name in causes))


def _check_answer(reading: Reading, result: Score, rules: Rules) -> Iterator[str]:
    match = result.match
    if reading.fault is not None:
        yield reading.fault
    if reading.truncated:
        yield "truncated"  # also where a box stood before the limit: the rest is not what was meant
    elif reading.fault is None and result.iou < rules.min_iou - 1e-9:
        yield "low_iou"
    elif reading.fault is None and len(match.given) != len(match.true):
        yield "wrong_count"
    elif match.image_f1 is not None and match.image_f1 < 1 and (match.given or match.true):
        yield "wrong_image"


def _check_thought(sample: GroundingSample, reading: Reading, rules: Rules) -> Iterator[str]:
    thought = reading.thought
    if not thought:
        return
    if find_leaks(sample.query, thought):
        yield "leak_phrase"
    if _MARKUP.search(thought):
        yield "markup"
    if find_missing_images(sample, reading):
        yield "missing_image"
    elif not sample.complete and concludes_elsewhere(sample, thought):
        yield "wrong_image"  # of a set, the last sentence may say of an image that it holds none
    words = count_words(thought)
    if words < rules.min_words:
        yield "too_short"
    if words > rules.max_words:
        yield "too_long"
    if not is_written_in(rules.language, thought):
        yield "language"


# --- what gives the answer away ---

_MARKUP = re.compile(r"<\s{0,2}/?\s{0,2}(?:think|answer|best)\b|<\|\w{1,40}\|>|<image>", re.IGNORECASE)
_SHOWN = re.compile(r"\b(?:marked|framed|outlined|red (?:bounding )?(?:box|frame))\b", re.IGNORECASE)

_NOUN = r"(?:bounding )?(?:box(?:es)?|coordinates?|region(?! (?:pictures?|images?|crops?))|location|area)"
_GIVEN = r"(?:given|provided|supplied|specified|stated|known)"
_GIVES_BOX = re.compile(
    rf"\b{_GIVEN} (?:\w{{1,12}} )?{_NOUN}\b"
    rf"|\b{_NOUN} (?:(?:that|which) )?(?:(?:is|are|was|were|has been|have been|as) )?(?:given|provided|supplied)\b"
    r"|提供的(?:坐标|框|区域)|给定的?(?:坐标|框|区域)",
    re.IGNORECASE,
)
_GIVES_ANSWER = re.compile(
    r"\bground[- ]?truths?\b"
    r"|\b(?:given|provided|supplied|correct|reference|known|expected|true|gold(?:en)?) (?:final )?answers?\b"
    r"|\banswers? (?:(?:that|which) )?(?:(?:is|was|were|has been|as) )?(?:given|provided|supplied|known)\b"
    r"|\bI (?:was|am|have been|'?ve been) (?:told|given|informed|shown the answer)\b"
    r"|\baccording to the (?:answer|annotations?|labels?|hints?|coordinates)\b"
    r"|\bannotat(?:ed|ions?)\b|\bthe hints?\b|\bin thousandths\b"
    r"|\b(?:pretend|as if (?:I|we) (?:do not|don't|did not|didn't) know)\b"
    r"|真实框|真值|标注|(?:正确|参考|已知|给定的?|提供的)答案",
    re.IGNORECASE,
)


def find_leaks(query: str, thought: str) -> list[str]:
    """Find the phrases by which a thought shows that its writer was given the answer.

    What the question itself says is no leak, and a question that marks an object with a box may be answered by
    a thought about the given box.

    >>> find_leaks("Where is the cat?", "The provided coordinates show a cat.")
    ['provided coordinates']
    >>> find_leaks("Find the object marked by the red box.", "The given box in the first image holds a cat.")
    []
    """
    patterns = [_GIVES_ANSWER]
    if not (read_quads(query) or _SHOWN.search(query)):
        patterns.append(_GIVES_BOX)
    said = query.lower()
    found = [match[0] for pattern in patterns for match in pattern.finditer(thought)]
    return [phrase for phrase in found if phrase.lower() not in said]


_SENTENCES = re.compile(r"(?<=[.!?。！？])\s*(?=\D)|\n+")
_WHOLE_NUMBER = re.compile(r"(?<![\w.])\d{1,4}(?![\w]|\.\d)")
_SAME_BOX = 0.8
_CONCLUSION = 2


def quotes_early(
    sample: GroundingSample,
    thought: str,
    frame: Frame = "permille",
    size_wh: SizeWH | None = None,
    box: Box | None = None,
) -> bool:
    """Tell whether the numbers of the answer's `box` (the sample's first) stand before the conclusion, which is the
    last two sentences, or the last one of a thought of two.

    Numbers count as the answer's if four of them are nearly its box, or three of them are its own in thousandths.
    A box that the question shows may be quoted.
    """
    sentences = _split_sentences(thought)
    early = sentences[:-_CONCLUSION] if len(sentences) > _CONCLUSION else sentences[:-1]
    truth, shown = box or sample.boxes[0], {to_unit(quad) for quad in read_quads(sample.query)}
    own = set(unit_to_permille(truth)) - {0, 1000}
    own -= {int(number) for number in _WHOLE_NUMBER.findall(sample.query)}
    for sentence in early:
        boxes = [to_unit(quad, frame, size_wh) for quad in read_quads(sentence)]
        if any(iou(box, truth) >= _SAME_BOX and box not in shown for box in boxes):
            return True
        if len(own & {int(number) for number in _WHOLE_NUMBER.findall(sentence)}) >= 3:
            return True
    return False


# --- what it must say, and how ---


def find_missing_images(sample: GroundingSample, reading: Reading) -> list[int]:
    """Find the images, counted from 0, that the thought had to name and does not.

    >>> pair = GroundingSample(["a", "b"], "What differs?", "diff", target_image=1)
    >>> find_missing_images(pair, read("<think>The second image shows a cat.</think>", Asked.of(pair)))
    [0]
    """
    n, target = len(sample.images), reading.image_index
    if n == 1:
        return []
    wanted = MUST_MENTION.get(sample.task, "target")
    named = find_images_named(n, reading.thought or "")
    if (
        sample.complete
    ):  # of each box, as far as its image is known; that nothing is there says so of all at once
        must = {on for on, _ in sample.targets if on is not None}
    elif wanted == "all":
        must = set(range(n))
    elif reading.image_rule in (
        "thought",
        "last",
    ):  # only the thought can say which image it means, so it must
        must = set() if named else {target}
    else:
        must = {0, target} if wanted == "first and target" else {target}
    return sorted(must - named)


def concludes_elsewhere(sample: GroundingSample, thought: str) -> bool:
    """Tell whether the conclusion, the last two sentences, names one image only, and that is not the target."""
    n = len(sample.images)
    if n == 1 or sample.target_image is None:
        return False
    for sentence in reversed(_split_sentences(thought)[-_CONCLUSION:]):
        named = find_images_named(n, sentence)
        if named:
            return len(named) == 1 and sample.target_image not in named
    return False


def _split_sentences(thought: str) -> list[str]:
    return [part for part in _SENTENCES.split(thought) if part.strip()]


_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+(?:['’-][^\W_{_HAN}]+)*")
_IS_HAN, _IS_LATIN = re.compile(rf"[{_HAN}]"), re.compile(r"[A-Za-zÀ-ɏ]")
_ENGLISH_WORDS = (
    "the a an is are was were of in on at to and or it its that this these those with for from by as which there "
    "here one not no but so i we be has have than other only both all each they them their"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_ENOUGH_WORDS = 12


def count_words(text: str) -> int:
    """Count the words; each Chinese character is one.

    >>> count_words("A cat's paw, 2 of them."), count_words("一只猫")
    (6, 3)
    """
    return sum(1 for _ in _WORD.finditer(text))


def is_written_in(language: Language, text: str) -> bool:
    """Tell whether a text is "en" or "zh", as far as its letters and commonest words show; any text is "any".

    >>> is_written_in("en", "Die Katze sitzt links neben dem großen roten Auto und wartet auf ihr Futter.")
    False
    """
    letters = [char for char in text if char.isalpha()]
    if language == "any" or not letters:
        return True
    if language == "zh":
        return sum(1 for char in letters if _IS_HAN.match(char)) >= 0.5 * len(letters)
    if sum(1 for char in letters if _IS_LATIN.match(char)) < 0.9 * len(letters):
        return False
    words = [match[0].lower() for match in _WORD.finditer(text)]
    return len(words) < _ENOUGH_WORDS or sum(word in _ENGLISH for word in words) >= 0.12 * len(words)
