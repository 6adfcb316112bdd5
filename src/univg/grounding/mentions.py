"""Which of several images a text speaks of: "the second image", "Image-2", "the 3th image", "last frame"."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from univg.grounding.image_names import ImageName, find_names, names_all

__all__ = ["ImageRule", "decide_image", "find_images_named", "find_said"]

ImageRule: TypeAlias = Literal["answer", "target", "question", "thought", "last"]
"""What decided on which image a box lies: the answer beside it, the sample, the question, the thought, or nothing
("last")."""


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
    named = {name.image for name in find_names(n_images, text)} - {-1}
    return frozenset(range(n_images) if names_all(text, bool(named)) else named)


_DESCRIPTION = re.compile(r"<\|object_ref_start\|>[^<]*(?:<\|object_ref_end\|>)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？\n]")

_READ = 64  # mentions; a looping model repeats itself for longer than anyone compares
_WINDOW = 120  # characters before a mention that may govern it

# 第一张图中的猫: the image is said of the cat; 第二张图中的位置 asks for the place in it.
_PLACE = r"(?:位置|坐标|边界框|边框|包围盒|检测框|区域|范围|框|什么|哪)"
_HAN_VERB = r"(?:找|定位|框|标|指|给|检测|识别|圈|输出|返回|画|确定|搜索|寻找|追踪|跟踪)"
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
_REQUESTED = re.compile(
    rf"{_VERB}(?:\W{{1,3}}(?!{_TURN})\w{{1,20}}){{0,8}}{_INTO}|{_HAN_VERB}[^，,。;；]{{0,30}}(?:在|于|到)\Z",
    re.IGNORECASE,
)
# Within one phrase: "there is a lake, in image-2 a road" does not find the lake in image 2.
_FOUND = re.compile(
    rf"(?:{_VERB}|{_STATE})(?:[^\w,;:]{{1,3}}(?!{_TURN})\w{{1,20}}){{0,3}}(?![,;:]){_INTO}", re.IGNORECASE
)
_REQUEST_FOLLOWS = re.compile(
    rf"\W{{0,3}}(?:(?:please|can|could|you)\W{{1,2}}){{0,3}}{_VERB}"
    rf"|(?:中|里|上|内)(?:面)?[，,]?(?:请|把|将|帮我|准确)?{_HAN_VERB}|(?:中|里|上|内)?的?\w{{0,4}}{_PLACE}",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\b(?:which|what)(?:\W{1,3}(?!(?:can|may|might|could|should|will|is|are|does|do|has|have|that|would|was)\b)"
    rf"\w{{1,20}}){{1,6}}{_INTO}",
    re.IGNORECASE,
)
_SET_ASIDE = re.compile(
    r"(?:\b(?:compared (?:to|with)|than|unlike|like|not|as|from|missing|absent"
    r"|(?:relative|similar|related) to)|n't)"
    r"\W{1,2}(?:(?:that|the one|it|those)\W{1,2})?(?:(?:in|on|from)\W{1,2})?(?:the\W{1,2})?\Z"
    r"|(?:与|和|跟|同|像|如|比|参照|参考|根据|按照|不同于|区别于|类似于|不在|没在|相比于|相较于)(?:在)?\Z",
    re.IGNORECASE,
)
_OF_A_THING = re.compile(
    rf"(?:中|里|上|内)?(?:面)?(?:的|所|标出|标记|标注|出现|展示|显示|框出的)(?!{_PLACE}|\w{{0,4}}{_PLACE})"
)
_LACKS = re.compile(
    r"\W{1,3}(?:(?:has|have|had|shows?|contains?|holds?|with|there is|there are)\W{1,2}"
    r"(?:no|none|nothing|neither)\b|(?:lacks?|misses)\b|(?:does|do|did|is|are|was|were)(?:n't\b|\W{1,2}not\b))"
    r"|(?:中|里|上|内)?(?:面)?(?:都|并|也)?(?:没有|没出现|不含|不存在|未出现|无)",
    re.IGNORECASE,
)
"""What a thought says of an image behind its name, that the thing is not in it."""
_CONCLUDES = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|conclude|answer|target|must be|best match|matches)\b"
    r"|因此|所以|答案|综上|最终|目标|可见",
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
    mentions = [m for m in mentions if not _LACKS.match(text, m.end)] or mentions
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


def _find_mentions(text: str, n_images: int) -> list[ImageName]:
    """Return the images a text names, in its order, without those it sets aside (unless it names no other)."""
    found = [name for name in find_names(n_images, text) if name.image >= 0][-_READ:]
    return [name for name in found if not _is_set_aside(text, name)] or found


def _is_set_aside(text: str, mention: ImageName) -> bool:
    return _is_governed(_SET_ASIDE, text, mention) or _OF_A_THING.match(text, mention.end) is not None


def find_said(n_images: int, before: str, behind: str, first: int = 1) -> tuple[int, bool, int] | None:
    """Return the image that an answer names beside a box, whether that is sure, and how much of ``behind`` says so.

    ``before`` and ``behind``: what the answer says between the box and the boxes around it. ``first``: the number of
    the first image. Sure: "(…) in image 2", "Image 2: (…)", "In the second image it is at (…)", "It is in the second
    image. (…)". An image that there is not is -1; None: nothing is said.

    >>> find_said(3, "Image 2: ", ""), find_said(3, "", " in the first image and"), find_said(2, "A cat: ", "")
    ((1, True, 0), (0, True, 19), None)
    """
    place = _BEHIND.match(behind)
    if place:
        after = next(find_names(n_images, behind[: place.end() + 40], first), None)
        if (
            after
            and after.start == place.end()
            and not behind[after.end :].lstrip(" *").startswith((":", "："))
        ):
            return after.image, True, after.end
    place = _APPENDED.match(behind)
    if place:
        after = next(find_names(n_images, behind[: place.end() + 40], first), None)
        if after and after.start == place.end() and _ENDS.match(behind, after.end):
            return after.image, True, after.end
    text = _DESCRIPTION.sub(" ", before)
    names = list(find_names(n_images, text, first))[-_READ:]
    names = [name for name in names if not (_is_governed(_SET_ASIDE, text, name) or _is_likened(text, name))]
    sure = [name for name in names if _leads_to_box(text, name) or _is_governed(_FOUND, text, name)]
    if sure:
        return sure[-1].image, True, 0
    if names:
        return names[-1].image, False, 0
    end = _SENTENCE_END.search(behind)
    after = next(find_names(n_images, behind[: end.start()] if end else behind, first), None)
    if after is None or _is_set_aside(behind, after) or _NEGATED.search(behind, 0, after.start):
        return None
    return (after.image, False, after.end) if not _OPENS_ANOTHER.match(behind, after.end) else None


_OPENS_ANOTHER = re.compile(r"\W{0,8}(?:[:：(\[{<\d]|\W(?:at|it|there|is)\b)")
_NEGATED = re.compile(
    r"\b(?:not|no|never|absent|missing|unlike|whereas|while|other)\b|n't|没|不|未|无", re.IGNORECASE
)
_LIKENED = re.compile(
    r"\b(?:same|identical|similar|corresponds?|corresponding|matches|matching)(?: \w{1,20}){0,2} (?:as|to|with)\b"
    r"(?: \w{1,20}){0,5} (?:in|of|from|on)(?: the)? \Z|与\w{0,9}\Z",
    re.IGNORECASE,
)


def _is_likened(text: str, name: ImageName) -> bool:
    return _LIKENED.search(text, max(0, name.start - _WINDOW), name.start) is not None


_BEHIND = re.compile(
    r"[\])}>|*\"'` ]{0,12}(?:<\|?/?\w{1,12}\|?>)?[ ,，]{0,2}"
    r"(?:[(\[（【–—-][ ]?(?:in |在)?(?:the )?"
    r"|(?:(?:which |that )?(?:is |lies |located |found )?(?:in|on|of|within|inside) )(?:the )?"
    r"|(?:位于|在|于))",
    re.IGNORECASE,
)
_APPENDED = re.compile(
    r"[\])}>|*\"'` ]{0,12}[,;@–—-]?\s?(?:from |belong(?:s|ing) to )?(?:the )?", re.IGNORECASE
)
_ENDS = re.compile(r"[ ]?(?:[.!)\]}*\"'`]|\n|\Z)")
_LEAD = re.compile(
    r"(?:\b(?:in|on|within|inside|for)\W{1,3}(?:the\W{1,2})?|(?:在|于|从)|(?:\A|[\n.;:{[,|*#\"'(<>，。；：-])\s{0,4}(?:the\s)?)\Z",
    re.IGNORECASE,
)
_TURNS = re.compile(r"\b(?:others?|another|both)\b|另|其他", re.IGNORECASE)  # to other images


def _leads_to_box(text: str, name: ImageName) -> bool:
    """Tell whether a name opens the clause in which the box behind ``text`` stands."""
    rest = text[name.end : name.end + _WINDOW + 1]
    if len(rest) > _WINDOW or _SENTENCE_END.search(rest.rstrip("\n .")) or _TURNS.search(rest):
        return False
    return _LEAD.search(text[max(0, name.start - 12) : name.start]) is not None


def _is_governed(pattern: re.Pattern[str], text: str, mention: ImageName) -> bool:
    return pattern.search(text[_find_sentence_start(text, mention) : mention.start]) is not None


def _opens_request(text: str, mention: ImageName) -> bool:
    return _REQUEST_FOLLOWS.match(text, mention.end, mention.end + _WINDOW) is not None


def _find_sentence_start(text: str, mention: ImageName) -> int:
    begin = max(0, mention.start - _WINDOW)
    ends = list(_SENTENCE_END.finditer(text, begin, mention.start))
    return ends[-1].end() if ends else begin


def _cut_sentence_around(text: str, mention: ImageName) -> str:
    end = _SENTENCE_END.search(text, mention.end, mention.end + _WINDOW)
    return text[_find_sentence_start(text, mention) : end.start() if end else mention.end + _WINDOW]
