"""Tell whether an answer without boxes says that nothing of what was asked for is there.

A policy's refusal ("I cannot help with that"), a picture that was not seen, an empty text and a broken answer say
nothing of the kind: they must not count as having seen that a picture holds no such thing. Nor does what is said of the
thing itself ("the cup that has no handle"). What can be read either way counts as not said.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["says_none"]

_READ = 2000  # characters: what is said of absence is said early, or last

# --- answers that are nothing but a word, or a value ---

_NOTHING = (
    r"(?:none|null|nil|n\.?/?a\.?|nope|no|nothing|nobody|nowhere|absent|empty|zero|0|[-–—]"
    r"|not (?:there|here|present|found|visible|applicable|in (?:the|any|either|this) (?:image|picture|photo)s?)"
    r"|(?:no|empty)[ ]list|无|没有|不存在|没|空|空列表|零|[零0] ?个|无结果|没找到|未见|未找到|未发现|未检测到)"
)
_OBJECT = r"(?:bounding[ -]?box(?:es)?|bbox(?:es)?|box(?:es)?|objects?|targets?|match(?:es)?|such objects?)"
_WORD = re.compile(
    rf"[\W_]*(?:{_OBJECT}\W{{0,3}})?{_NOTHING}(?:[\W_]*{_OBJECT})?"
    r"(?:[ ](?:was|were))?(?:[ ]?(?:found|detected))?[\W_]*",
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"<\|?/?(?:box|ref|object_ref|box_start|box_end|answer)(?:_start|_end)?\|?>|\\boxed\b|```(?:\w{0,8})|`"
)
_LEAD = re.compile(
    r"(?:(?:the |final )?answer(?: is)?|result|output|bbox(?:_2d)?|box(?:es)?|count|答案|结果|回答)"
    r"\s{0,3}[:：=]\s{0,3}|答案是",
    re.IGNORECASE,
)
_IMAGE = (
    r"(?:(?:in )?(?:the )?(?:first|second|third|fourth|fifth|last) (?:image|picture|photo|frame)"
    r"|(?:image|picture|photo|frame|图|图片|图像)[ _-]?\d{1,3}|第[一二两三四五六七八九十\d]{1,3}[张幅个]?图[片像]?)"
)
_OF_IMAGES = re.compile(rf"{_IMAGE}\s{{0,2}}[:：]\s{{0,2}}", re.IGNORECASE)
_DESCRIBING = frozenset(
    {
        "label",
        "name",
        "category",
        "class",
        "description",
        "query",
        "object",
        "target",
        "ref",
        "phrase",
        "reason",
    }
    | {
        "explanation",
        "thought",
        "image",
        "image_id",
        "image_index",
        "image_idx",
        "frame",
        "confidence",
        "score",
    }
)

# --- sentences ---

_PICTURE = r"(?:images?|pictures?|photos?|photographs?|scenes?|frames?)"
_KIND = (  # "there is no doubt" speaks of no thing
    r"(?!(?:doubt|question|need|problem|reason|other|way|information|idea|point|comment|thanks|longer|more|less)\b)"
)
_IS = r"(?:is|are|was|were)"
_NOT = r"(?:\snot|n['’]?t)"
_CLAUSES = re.compile(r"[.;!?\n。；！？]+|,\s(?:but|while|and|whereas)\s|，")
_FIND = r"(?:find|see|locate|detect|spot|identify|recogni[sz]e)"
_FOUND = r"(?:found|seen|located|detected|identified|spotted|visible|present|shown|depicted|there|here)"
_HAS = r"(?:contains?|shows?|has|have|includes?|depicts?)"
_NO_RELATIVE = r"(?<!\bthat\s)(?<!\bwho\s)(?<!\bwhich\s)"  # "the cup that does not fit" is a cup
_DENIES = re.compile(
    rf"""
      \bthere(?:\s{_IS}|['’]s)\s(?:no\s{_KIND}|none\b|nothing\b|not\s(?:an?|any)\b)
    | \bthere\s(?:is|are|was|were)n['’]?t\s(?:an?|any)\b
    | \bthere\s(?:does|do|did){_NOT}\s(?:appear|seem)\sto\sbe\b | \bthere\sexists?\sno\b
    | \bno\ssuch\b | \bnone\sof\s(?:the|these|them|those)\b | \bnone\s(?:was|were|is|are)\b
    | \bnothing\s(?:of\sthe\skind|like|matches|match|fits|here|there|is|was|in|that|found|detected)\b
    | \bneither\s(?:of\sthe\s(?:\w+\s)?)?{_PICTURE}\s{_HAS}\b
    | \bno\s{_KIND}[\w'-]{{1,24}}(?:\W{{1,3}}[\w'-]{{1,24}}){{0,8}}?
      \s(?:{_IS}|(?:can|could)\sbe|exists?|appears?|match(?:es)?|fits?|found|detected|in\s(?:the|any|either))\b
    | {_NO_RELATIVE}\b{_IS}{_NOT}\s
      (?:{_FOUND}\b|in\s(?:the|any|either|this|these)\s(?:\w{{1,12}}\s)?{_PICTURE})
    | {_NO_RELATIVE}\b(?:does|do|did){_NOT}\s
      (?:exist|match|fit|appear(?!\sto\b)|appear\sto\s(?:be\s(?:present|visible|there|shown|in)|exist))\b
    | \b(?:{_PICTURE}|it|they)\s(?:\w{{1,12}}\s){{0,2}}?(?:does|do|did){_NOT}\s(?:\w{{1,12}}\s)?
      (?:contain|show|include|depict|have)\b
    | \b(?:{_PICTURE}|it|they|both|either)\s(?:\d{{1,3}}\s)?(?:clearly\s)?{_HAS}\sno\s{_KIND}\w
    | \b(?:I|we)\s(?:can\s|could\s|have\s)?(?:see|find|found|detect|spot|locate)\sno\s{_KIND}\w
    | {_NO_RELATIVE}\b(?:can(?:not|['’]t|\snot)|(?:could|did|do)(?:n['’]t|\snot)|unable\sto|failed\sto)\s
      (?:{_FIND}|be\s{_FOUND})\b
    | \b{_IS}\s(?:absent|nowhere)\b | \b{_IS}\smissing\sfrom\s(?:the|both|all|either|this)\b
    | ^\s*没有 | (?:图|图片|图像|画面|照片|[里中内张])[^的，。]{{0,4}}没有
    | 没有?(?:找到|看到|发现|检测|出现|见到|包含|符合|匹配|任何) | 不存在 | 未能?(?:找到|发现|出现|检测|看到|包含|见)
    | 找不到 | 看不到 | 看不见 | 并无 | 均无 | 都不(?:包|含|存|在|符) | 不(?:包含|含有|符合) | 不在(?![第左右上下前后])
    | 无法(?:在[^，。]{{0,8}})?(?:找到|定位|检测|看到|发现) | 无(?:此|该|符合|匹配|目标|对应|相应)
    | (?:图|图片|图像|画面|照片)[里中内]?[均都并]?无(?![法论疑人])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NO_THING = re.compile(rf"\W*no\s{_KIND}(?:[^\W\d_][\w'-]{{0,24}}[ ]?){{1,6}}\W*", re.IGNORECASE)
_UNSEEN = re.compile(
    rf"""
      \b(?:see|view|find|access|load|open|process|analy[sz]e)\s(?:the\s|this\s|these\s|any\s|your\s|an?\s)?(?:attached\s|uploaded\s)?
      {_PICTURE}(?!\s(?:of|with|that|contain|show)) | \bas\san?\s(?:ai|language|text)
    | \bno\s{_PICTURE}\s(?:{_IS}|has|have|provided|attached|given|uploaded|in\syour) | ^\W*no\s{_PICTURE}\W*$
    | \bthere\s{_IS}\sno\s{_PICTURE}\b | {_PICTURE}\s(?:attached|provided|uploaded)
    | \bhave\s(?:access|the\sability) | \bable\sto\s(?:see|view|process)\s(?:the\s)?{_PICTURE}
    | (?:看不到|看不见|找不到|没有|未|无法(?:看到|查看|处理|访问|识别|打开|读取))
      [您你]?(?:上传|提供|发送|收到)?的?(?:任何)?(?:图片|图像|照片)(?![中里内上])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PLACE = (
    r"(?:left|right|top|bottom|upper|lower|cent(?:re|er)|middle|first|second|third|fourth|last"
    r"|(?:image|picture)[ _-]?\d)"
)
_AFFIRMS = re.compile(
    rf"""
      \b(?:is|are|lies?|sits?|stands?|located|appears?)\s(?:located\s|placed\s|shown\s)?(?:at|on|in|near|to)\s(?:the\s)?{_PLACE}\b
    | \bno\b[^.;]{{0,40}}\bbut\s(?:an?|the|one|two)\b | \bdifferences?\b
    | (?:(?<!不)在|位于)(?:第[^，。]{{1,3}}[张幅个]|[左右上下](?:边|侧|方|面|图)|图[片像]?\s?\d)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_HERE_A = re.compile(rf"{_IMAGE}[^.;]{{0,20}}\bthere\s{_IS}\s(?:an?|one|two|the)\b", re.IGNORECASE)


def says_none(answer: str) -> bool:
    """Tell whether an answer, in which there is no box, says that nothing fits: "none", ``[]``, "There is no red
    circle in either image.", 图中没有狗. In time linear in its length.

    >>> [says_none(text) for text in ("none", "[]", "There is no dog here.", "图中没有狗。")]
    [True, True, True, True]
    >>> [says_none(text) for text in ("", "I cannot help with that.", "I can't see the image.")]
    [False, False, False]
    """
    text = answer.strip()
    if not text:
        return False
    if len(text) <= 400 and _is_nothing(text):
        return True
    ends = text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"
    if _UNSEEN.search(ends) or _AFFIRMS.search(ends) or _HERE_A.search(ends):
        return False
    clauses = (_OF_IMAGES.sub("", clause) for clause in _CLAUSES.split(ends))
    return any(_DENIES.search(clause) or _NO_THING.fullmatch(clause) for clause in clauses)


def _is_nothing(text: str) -> bool:
    """Tell whether a short answer is a word for nothing or an empty value, of every image that it names."""
    bare = _MARKS.sub(" ", text).strip()
    if not bare:
        return "box" in text  # <box></box>, an empty mark
    parts = [part for part in _OF_IMAGES.split(bare) if part.strip(" ;,.\n")]
    return bool(parts) and all(_is_one_nothing(part) for part in parts)


def _is_one_nothing(part: str) -> bool:
    part = _LEAD.sub("", part.strip(), count=1).strip(" ;")
    try:
        value = json.loads(part)
    except (ValueError, RecursionError):
        return _WORD.fullmatch(part) is not None
    return _is_empty(value)


def _is_empty(value: Any) -> bool:
    """Tell whether a value of JSON says that there is nothing: null, [], 0, false, or an object of such and of words
    that describe what was looked for."""
    if isinstance(value, list):
        return all(map(_is_empty, value))
    if isinstance(value, dict):
        said = [one for key, one in value.items() if str(key).lower() not in _DESCRIBING]
        return not value or (bool(said) and all(map(_is_empty, said)))
    if isinstance(value, str):
        return not value.strip() or _WORD.fullmatch(value) is not None
    return not value
