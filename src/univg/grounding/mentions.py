"""Which of several images a text speaks of: "the second image", "Image-2", "the 3th image", "last frame"."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["ImageRule", "decide_image", "find_images_named"]

ImageRule: TypeAlias = Literal["target", "question", "thought", "last"]
"""What decided on which image a box lies: the sample, the question, the thought, or nothing ("last")."""


def decide_image(
    n_images: int, target: int | None, query: str, thought: str | None = None
) -> tuple[int, ImageRule]:
    """Return the image, counted from 0, that an answer's box lies on, and the rule that decided.

    In this order: the sample's own ``target``; what the ``query`` says; what the ``thought`` says; the last
    image. Raises ``ValueError`` without images or for a target outside them.

    Texts name images to answer in and images to compare with. An image governed by a request ("locate it in
    the second image", "in image 3, find ...") precedes one asked about ("which object of Image-2 ..."), which
    precedes the last one named; "from", "unlike", "compared to" or "not in" an image speak against it. Of a
    thought, the last sentence that concludes ("so", "therefore", "the answer") is read first. What stands
    between ``<|object_ref_start|>`` and ``<|object_ref_end|>`` describes a thing, so it names no image, and
    numbers beyond ``n_images`` are passed over.

    >>> decide_image(2, None, "Find and locate where does the object in image-1 locate in the image-2.")
    (1, 'question')
    >>> decide_image(4, None, "Please locate the 2th region picture in the source image. ")
    (0, 'question')
    >>> decide_image(3, None, "Where is the truck?", "It is in the first image. The others show grass.")
    (0, 'thought')
    >>> decide_image(3, None, "Where is the truck?")
    (2, 'last')
    """
    if n_images < 1:
        raise ValueError(f"there must be at least one image, got {n_images}")
    if target is not None:
        if not 0 <= target < n_images:
            raise ValueError(f"target image {target} does not exist among {n_images}, counted from 0")
        return target, "target"
    named = _find_in_question(query, n_images)
    if named is not None:
        return named, "question"
    named = _find_in_thought(thought or "", n_images)
    if named is not None:
        return named, "thought"
    return n_images - 1, "last"


def find_images_named(n_images: int, text: str) -> frozenset[int]:
    """Return all images, counted from 0, that a text speaks of, each by its name or together ("both images").

    "The other image" and "the others" count as those not named before.

    >>> sorted(find_images_named(3, "The first image shows a cat. In image 3 it is gone."))
    [0, 2]
    >>> sorted(find_images_named(3, "All of the images show a cat.")), sorted(find_images_named(2, "It is a cat."))
    ([0, 1, 2], [])
    """
    found = (_read_image(match, n_images) for match in _MENTION.finditer(text))
    named = {image for image in found if 0 <= image < n_images}
    if _TOGETHER.search(text) or (named and _OTHERS.search(text)):
        return frozenset(range(n_images))
    return frozenset(named)


class _Mention(NamedTuple):
    start: int
    end: int
    image: int


_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"),
)
_CARDINALS = (
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_NOUN = r"(?:images?|imgs?|pictures?|pics?|photos?|photographs?|frames?|screenshots?)"
_MENTION = re.compile(
    rf"""
      \b(?P<ordinal>{"|".join(_ORDINALS)}|last|final|(?P<nth>\d{{1,3}})[ -]?(?:st|nd|rd|th))
      [ -]{{1,2}}
      (?:(?:given|input|provided|video|target|query|of[ ](?:the|these|those)(?:[ ]\w{{1,9}})?)[ ]){{0,2}}
      (?:{_NOUN})\b
    | \b(?:{_NOUN})[ ]?[-_#(:]{{0,2}}[ ]?(?:no\.?[ ]?|number[ ])?
      (?:(?P<number>\d{{1,3}})(?!\w|[.,]\d|[ ]?(?:%|times\b|st\b|nd\b|rd\b|th\b))
       |(?P<cardinal>{"|".join(_CARDINALS[1:])}|one(?=\s*(?:[.,;:!?)]|$|is\b|has\b|shows?\b|and\b|contains?\b)))\b)
    | \b(?P<source>source)[ -](?:{_NOUN})\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TOGETHER = re.compile(
    rf"\b(?:both|all|each|every|these|either|across|between|(?:the|of) (?:{'|'.join(_CARDINALS[1:])}))"
    rf"(?: (?:of|the|these|those|given|other|{'|'.join(_CARDINALS[1:])})){{0,3}} (?:{_NOUN})\b"
    r"|\bin both\b|\b(?:all|each|both) of (?:them|these)\b",
    re.IGNORECASE,
)
_OTHERS = re.compile(rf"\b(?:other|remaining)(?: \w{{1,20}})? (?:{_NOUN})\b|\bthe others\b", re.IGNORECASE)
_DESCRIPTION = re.compile(r"<\|object_ref_start\|>[^<]*(?:<\|object_ref_end\|>)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")

_READ = 64  # mentions; a looping model repeats itself for longer than anyone compares
_WINDOW = 120  # characters before a mention that may govern it

_VERB = (
    r"\b(?:locate|localize|localise|find|ground|gorund|detect|identify|recogni[sz]e|output|give|provide|draw|return|"
    r"show|highlight|point|segment|mark|track|spot|pinpoint|box|boxes|coordinates|"
    r"differences?|positions?|locations?)"
)
_STATE = (
    r"(?:\b(?:is|are|was|lies|sits|stands|appears|located|found|visible|seen|present|only|answer|target)|'s)"
)
# A word that turns from the thing asked for to the thing it is compared with.
_TURN = r"(?:that|which|who|whose|where|when|shown|presented|marked|from|in|like|as|than|to|with|and)\b"
_INTO = r"\W{1,3}(?:in|on|within|inside|of|is)\W{1,3}(?:the\W{1,2})?\Z"
_REQUESTED = re.compile(rf"{_VERB}(?:\W{{1,3}}(?!{_TURN})\w{{1,20}}){{0,8}}{_INTO}", re.IGNORECASE)
# Within one phrase: "there is a lake, in image-2 a road" does not find the lake in image 2.
_FOUND = re.compile(
    rf"(?:{_VERB}|{_STATE})(?:[^\w,;:]{{1,3}}(?!{_TURN})\w{{1,20}}){{0,3}}(?![,;:]){_INTO}", re.IGNORECASE
)
_REQUEST_FOLLOWS = re.compile(rf"\W{{0,3}}(?:(?:please|can|could|you)\W{{1,2}}){{0,3}}{_VERB}", re.IGNORECASE)
_ASKED = re.compile(
    r"\b(?:which|what)(?:\W{1,3}(?!(?:can|may|might|could|should|will|is|are|does|do|has|have|that|would|was)\b)"
    rf"\w{{1,20}}){{1,6}}{_INTO}",
    re.IGNORECASE,
)
_SET_ASIDE = re.compile(
    r"(?:\b(?:compared (?:to|with)|than|unlike|like|not|as|from|missing|absent"
    r"|(?:relative|similar|related) to)|n't)"
    r"\W{1,2}(?:(?:that|the one|it|those)\W{1,2})?(?:(?:in|on|from)\W{1,2})?(?:the\W{1,2})?\Z",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|conclude|answer|target|must be|best match|matches)\b",
    re.IGNORECASE,
)


def _find_in_question(query: str, n_images: int) -> int | None:
    text = _DESCRIPTION.sub(" ", query)
    mentions = _find_mentions(text, n_images)
    if not mentions:
        return None
    requested = [m for m in mentions if _is_governed(_REQUESTED, text, m) or _opens_request(text, m)]
    if requested:
        return requested[-1].image
    asked = [m for m in mentions if _is_governed(_ASKED, text, m)]
    return asked[0].image if asked else mentions[-1].image


def _find_in_thought(thought: str, n_images: int) -> int | None:
    text = _DESCRIPTION.sub(" ", thought)
    mentions = _find_mentions(text, n_images)
    if not mentions:
        return None
    concluding = [m for m in mentions if _CONCLUDES.search(_cut_sentence_around(text, m))]
    if concluding:
        # Only the last such sentence: an earlier "so" drew an earlier conclusion.
        last = _find_sentence_start(text, concluding[-1])
        concluding = [m for m in concluding if m.start >= last]
    for candidates in (concluding, mentions):
        found = [m for m in candidates if _is_governed(_FOUND, text, m)]
        if found:
            return found[-1].image
        if candidates is concluding and concluding:
            return concluding[-1].image
    return mentions[-1].image


def _find_mentions(text: str, n_images: int) -> list[_Mention]:
    """Return the images a text names, in its order, without those it sets aside (unless it names no other)."""
    found = []
    for match in _MENTION.finditer(text):
        image = _read_image(match, n_images)
        if 0 <= image < n_images:
            found.append(_Mention(match.start(), match.end(), image))
    found = found[-_READ:]
    return [mention for mention in found if not _is_governed(_SET_ASIDE, text, mention)] or found


def _read_image(match: re.Match[str], n_images: int) -> int:
    if match["source"]:
        return 0
    if match["nth"] or match["number"]:
        return int(match["nth"] or match["number"]) - 1
    if match["cardinal"]:
        return _CARDINALS.index(match["cardinal"].lower())
    word = match["ordinal"].lower()
    return n_images - 1 if word in ("last", "final") else _ORDINALS.index(word)


def _is_governed(pattern: re.Pattern[str], text: str, mention: _Mention) -> bool:
    return pattern.search(text[_find_sentence_start(text, mention) : mention.start]) is not None


def _opens_request(text: str, mention: _Mention) -> bool:
    return _REQUEST_FOLLOWS.match(text, mention.end, mention.end + _WINDOW) is not None


def _find_sentence_start(text: str, mention: _Mention) -> int:
    begin = max(0, mention.start - _WINDOW)
    ends = list(_SENTENCE_END.finditer(text, begin, mention.start))
    return ends[-1].end() if ends else begin


def _cut_sentence_around(text: str, mention: _Mention) -> str:
    end = _SENTENCE_END.search(text, mention.end, mention.end + _WINDOW)
    return text[_find_sentence_start(text, mention) : end.start() if end else mention.end + _WINDOW]
