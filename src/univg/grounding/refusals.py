"""Tell whether an answer without boxes says that nothing of what was asked for is there.

A policy's refusal ("I cannot help with that"), an empty text and a broken answer say nothing of the kind: they must not
count as having seen that a picture holds no such thing.
"""

from __future__ import annotations

import re

__all__ = ["says_none"]

_READ = 2000  # characters: what is said of absence is said early, or last
_WORDS = re.compile(
    r"[\W_]*(?:none|null|nil|n/?a|no|nothing|nobody|nowhere|absent|not (?:there|here|present|found|visible|applicable)"
    r"|无|没有|不存在|没|空)(?:[\W_]*(?:box(?:es)?|objects?|targets?|matches|such objects?)?)[\W_]*",
    re.IGNORECASE,
)
_EMPTY_VALUE = r"(?:\[\s*(?:\{\s*\})?\s*\]|null|\"(?:none|null|)\"|\{\s*\})"
_EMPTY_JSON = re.compile(
    rf"(?:```\w{{0,8}})?\s*(?:[\[{{]\s*)*(?:\"\w{{1,24}}\"\s*:\s*(?:{_EMPTY_VALUE}|0)\s*,?\s*)*(?:[\]}}]\s*)+(?:```)?",
    re.IGNORECASE,
)
_IS = r"(?:is|are|was|were)"
_DOES = rf"(?:does|do|did|has|have|{_IS})"
_THERE = (
    r"(?:exist|appear|contain|match|show|include|depict|fit|have|see"
    r"|present|visible|found|seen|shown|there|here|in)"
)
_CAN_BE = rf"(?:{_IS}|(?:can|could)\sbe|exists?|appears?|match(?:es)?|fits?|in\s(?:the|any|either))"
_OF_A_KIND = r"(?!(?:doubt|question|need|problem|reason)\b)"  # "there is no doubt" speaks of no thing
_SAID = re.compile(
    rf"""
      \bthere\s{_IS}\s(?:no\s{_OF_A_KIND}|none\b|nothing\b|not\s(?:an?|any)\b)
    | \bthere\s{_IS}n['’]?t\s(?:an?|any)\b
    | \bno\ssuch\b | \bnone\sof\s(?:the|these|them|those)\b
    | \bnothing\s(?:of\sthe\skind|like|matches|fits|here|there|is|in|that)\b
    | \bno\s{_OF_A_KIND}[\w'-]{{1,24}}(?:\W{{1,3}}[\w'-]{{1,24}}){{0,8}}?\s{_CAN_BE}\b
    | \b{_DOES}(?:\snot|n['’]?t)\s(?:\w{{1,12}}\s)?{_THERE}\b
    | \b(?:can(?:not|['’]t|\snot)|could(?:n['’]t|\snot)|unable\sto|failed\sto|did(?:n['’]t|\snot))
      \s(?:find|see|locate|detect|spot)\b
    | \b(?:shows?|contains?|see|find|have|has|depicts?)\sno\s{_OF_A_KIND}\w
    | 没有 | 不存在 | 未能?(?:找到|发现|出现|检测|看到|包含) | 找不到 | 看不到 | 看不见 | 并无 | 均无 | 都不
    | 无法(?:找到|定位|检测|看到) | 不(?:在|包含|含有|符合) | 无(?:此|该|符合|匹配|目标|对应)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def says_none(answer: str) -> bool:
    """Tell whether an answer, in which there is no box, says that nothing fits: "none", ``[]``, "There is no red
    circle in either image.", 图中没有狗. In time linear in its length.

    >>> [says_none(text) for text in ("none", "[]", "There is no dog here.", "图中没有狗。")]
    [True, True, True, True]
    >>> [says_none(text) for text in ("", "I cannot help with that.")]
    [False, False]
    """
    text = answer.strip()
    if not text:
        return False
    if len(text) <= 200 and (_WORDS.fullmatch(text) or _EMPTY_JSON.fullmatch(text)):
        return True
    return bool(_SAID.search(text[:_READ]) or _SAID.search(text[-_READ:]))
