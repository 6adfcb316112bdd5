"""Whether a proposed chain of thought may teach: `verify` gives every cause against it, by name.

Nothing here asks anybody: the same text always gets the same verdict, so bounds can be changed and everything
judged again without a single request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from univg.grounding.boxes import SizeWH, iou, unit_to_permille
from univg.grounding.coordinates import Frame, read_quads, to_unit
from univg.grounding.mentions import images_named, which_image
from univg.grounding.reading import FAULTS, Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score

CAUSES: Mapping[str, str] = {
    **{str(name): meaning for name, meaning in FAULTS.items()},
    "no_thought": "an answer without a chain of thought",
    "low_iou": "the answer's IoU with the ground truth is below the bound",
    "wrong_image": "the thought concludes on another image than the answer's",
    "leak_phrase": 'it speaks of having been given the answer ("the ground truth", "the given coordinates")',
    "leak_box": "it quotes the answer's numbers before it has derived them",
    "markup": "tags or special tokens inside the thought",
    "missing_image": "it does not mention an image that its task must look at",
    "too_short": "fewer words than the bound",
    "too_long": "more words than the bound",
    "language": "it is not written in the language asked for",
    "copied": "nearly the same text as another sample's thought",
}
"""Every cause for which a proposal is rejected. Of several, the one standing first here is counted."""

MUST_MENTION: Mapping[str, str] = {
    **dict.fromkeys(("diff", "view_diff", "common_object", "refer_grounding", "reasoning"), "all"),
    "correspondence": "all",
    **dict.fromkeys(("object_tracking", "multi_view"), "first and target"),
    **dict.fromkeys(("group_grounding", "region", "video", "free_form"), "target"),
}
"""Which of several images a thought must name, by task; other tasks "target". Where the target is not known,
any one image stands for it."""


@dataclass(frozen=True)
class Rules:
    """The bounds. `language` is "en", "zh" or "any"; `copies` the likeness from which a thought counts as a copy
    (0: none does)."""

    min_iou: float = 0.5
    min_words: int = 8
    max_words: int = 300
    language: str = "en"
    copies: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= 1 or not 0 <= self.copies <= 1:
            raise ValueError(f"{self}: IoU and likeness lie in 0-1")
        if not 0 <= self.min_words <= self.max_words:
            raise ValueError(f"{self}: give 0 <= min_words <= max_words")
        if self.language not in ("en", "zh", "any"):
            raise ValueError(f"language {self.language!r}: choose from en, zh, any")


@dataclass(frozen=True)
class Verdict:
    """`thought` as it was read, the answer's `iou`, and every cause against it; none: it is verified."""

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
    """Judge one proposal, the copying of others' thoughts aside (`univg.construct.copies` sees to that).

    `truncated`: the limit cut the text off. `frame`: what the teacher's numbers mean; "pixel" needs `seen_wh`,
    the size of each image as the teacher saw it. The sample must have a box.

    >>> sample = GroundingSample(["a.png"], "Where is the cat?", "referring", boxes=[(0.1, 0.1, 0.5, 0.5)])
    >>> verify(sample, "<think>The ground truth says left.</think><answer>(100,100),(500,500)</answer>", Rules()).causes
    ('leak_phrase', 'too_short')
    """
    n_images = len(sample.images)
    asked = Asked(n_images, sample.query, "think", frame, sample.target_image)
    reading = read(text, asked, seen_wh, truncated)
    thought, result = reading.thought, score(sample, reading)
    size_wh = seen_wh[reading.image_index] if frame == "pixel" else None
    causes: set[str] = {reading.fault} if reading.fault is not None else set()
    if truncated:
        causes.add("truncated")  # also where a box stood before the limit: the rest is not what was meant
    if result.iou < rules.min_iou - 1e-9 and not causes:
        causes.add("low_iou")
    if not thought:
        causes |= {"no_thought"} if not causes else set()
    else:
        causes |= _of_thought(sample, thought, rules)
        causes |= {"leak_box"} if quotes_early(sample, thought, frame, size_wh) else set()
    return Verdict(thought or None, result.iou, tuple(name for name in CAUSES if name in causes))


def _of_thought(sample: GroundingSample, thought: str, rules: Rules) -> set[str]:
    causes = set()
    if leaks(sample.query, thought):
        causes.add("leak_phrase")
    if _MARKUP.search(thought):
        causes.add("markup")
    if missing_images(sample, thought):
        causes.add("missing_image")
    elif concludes_elsewhere(sample, thought):
        causes.add("wrong_image")
    words = count_words(thought)
    if words < rules.min_words:
        causes.add("too_short")
    if words > rules.max_words:
        causes.add("too_long")
    if not is_written_in(rules.language, thought):
        causes.add("language")
    return causes


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


def leaks(query: str, thought: str) -> list[str]:
    """Phrases by which a thought shows that its writer was given the answer.

    What the question itself says is no leak; and a question that marks an object with a box may be answered by
    a thought about the given box.

    >>> leaks("Where is the cat?", "The provided coordinates show a cat.")
    ['provided coordinates']
    >>> leaks("Find the object marked by the red box.", "The given box in the first image holds a cat.")
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
    sample: GroundingSample, thought: str, frame: Frame = "permille", size_wh: SizeWH | None = None
) -> bool:
    """Whether the answer's numbers stand before the end of the thought: in any sentence but the last two, or of
    a thought that short in any but its last.

    Numbers count as the answer's where four of them are nearly its box, or three of them are its own in
    thousandths. A box that the question shows may be quoted.
    """
    sentences = [part for part in _SENTENCES.split(thought) if part.strip()]
    early = sentences[:-_CONCLUSION] if len(sentences) > _CONCLUSION else sentences[:-1]
    truth, shown = sample.boxes[0], {to_unit(quad) for quad in read_quads(sample.query)}
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


def missing_images(sample: GroundingSample, thought: str) -> list[int]:
    """Images, counted from 0, that the thought had to name and does not.

    >>> pair = GroundingSample(["a", "b"], "What differs?", "diff", target_image=1)
    >>> missing_images(pair, "The second image shows a cat."), missing_images(pair, "Both images show a cat.")
    ([0], [])
    """
    n = len(sample.images)
    if n == 1:
        return []
    index, rule = which_image(n, sample.target_image, sample.query)
    wanted = MUST_MENTION.get(sample.task, "target")
    named = images_named(n, thought)
    if wanted == "all":
        must = set(range(n))
    elif rule == "last":  # nobody says which image it is: the thought must, whichever it means
        return [] if named else [index]
    else:
        must = {0, index} if wanted == "first and target" else {index}
    return sorted(must - named)


def concludes_elsewhere(sample: GroundingSample, thought: str) -> bool:
    """Whether the end of the thought, its last two sentences, names one image only, and that not the target."""
    n = len(sample.images)
    if n == 1 or sample.target_image is None:
        return False
    last = [part for part in _SENTENCES.split(thought) if part.strip()][-_CONCLUSION:]
    for sentence in reversed(last):
        named = images_named(n, sentence)
        if named:
            return len(named) == 1 and sample.target_image not in named
    return False


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
    """Words; each Chinese character is one.

    >>> count_words("A cat's paw, 2 of them."), count_words("一只猫")
    (6, 3)
    """
    return sum(1 for _ in _WORD.finditer(text))


def is_written_in(language: str, text: str) -> bool:
    """Whether a text is "en" or "zh" as far as its letters and commonest words tell; any text is "any".

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
