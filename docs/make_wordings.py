"""Write docs/wordings.md: every way in which the world asks, from the tables that it draws from.

python docs/make_wordings.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from univg.world.cross_image import WORDINGS as ACROSS
from univg.world.multi_image import WORDINGS as MANY
from univg.world.sets import WORDINGS as SETS
from univg.world.single_image import USES
from univg.world.single_image import WORDINGS as SINGLE
from univg.world.wordings import names
from univg.world.wordings.choosing import FILM, NOT_PUBLISHED, ODD_ONE, OWN, PUBLISHED_SHARE
from univg.world.wordings.single import MORE_USES

PAGE = Path(__file__).with_name("wordings.md")
PUBLISHED: dict[str, Mapping[str, tuple[str, ...]]] = MANY | ACROSS | SINGLE | SETS
HEAD = f"""# How the world asks

Every wording of the world's second version, by family. `python docs/make_wordings.py` writes this page from the tables
in `src/univg/world/wordings`.

- Training and test ask in a family's first wordings (where a benchmark has the family: that benchmark's own) one time
  in {round(1 / PUBLISHED_SHARE)}, and else in one of the others. `unseen` asks in those under that name, and no others.
- Words in braces are filled in: `{{one}}` and `{{many}}` by a name as below, `{{a}}` by the same with its article,
  `{{n}}` and `{{nth}}` by the image as a number and as a word, `{{box}}` by coordinates, `{{these}}` by "this image",
  "these pictures" and the like.
- At times the first letter is small or the last point is missing, as people type.
"""


def make_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for name, own in OWN.items():
        first = "First, ours" if name in NOT_PUBLISHED else "Published"
        parts.append(f"## {name}\n")
        for title, lines in (
            (first, PUBLISHED[name]["seen"]),
            ("Others", own.seen),
            ("unseen", own.unseen),
        ):
            parts.append(f"{title} ({len(lines)}):\n\n{_list(lines)}\n")
    parts.append("## What `{instruction}` stands for\n")
    parts.append("Films and odd ones out; training and test, then `unseen`:\n")
    for kind, phrases in {**FILM, "odd one": ODD_ONE}.items():
        parts.append(f"- {kind}: {_join(phrases.seen)}. `unseen`: {_join(phrases.unseen)}.")
    parts.append("\nUses; training and test, then `unseen`:\n")
    parts += [
        f"- {shape}: {_join(USES[shape][0] + more)}. `unseen`: {_join(unseen)}."
        for shape, (more, unseen) in MORE_USES.items()
    ]
    parts.append("\n## Names\n\nThe first word is the usual one, and the one that thoughts use.\n")
    for title, table in (
        ("shapes", names.SHAPES),
        ("colours", names.COLOURS),
        ("patterns", names.PATTERNS),
        ("patterns, behind the name", names.WITH_PATTERN),
        ("of two", names.SIDES),
        ("of all", names.EXTREMES),
        ("beside another thing", names.RELATIONS),
    ):
        parts.append(
            f"- {title}: "
            + "; ".join(f"{word}: {', '.join(table[word])}" for word in table).replace("{}", "…")
            + "."
        )
    parts.append(f"- whatever its shape: {', '.join(names.THING_WORDS)}.")
    return "\n".join(parts) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line.strip()}" for line in lines)


def _join(phrases: Iterable[str]) -> str:
    return ", ".join(f"“{phrase}”" for phrase in phrases)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
