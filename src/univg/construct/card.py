"""Write the dataset card: what a reader must know before training on constructed data, out of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from univg.construct.select import MEANINGS
from univg.construct.verify import CAUSES
from univg.report.markdown import table

CARD = """---
{header}
---

# Grounding samples with chains of thought
{state}
{kept} of {total} samples, each with images, a question, its boxes and a chain of thought that leads to it. \
Made by `univg construct` {univg}.

- **Data**: {about} (digest `{digest}`).
- **Teacher**: {teacher}.
- **Verified**: the answer's IoU with the ground truth (of a set, its soft-F1) at least {min_iou:g}; no leak of the \
answer; {min_words} to {max_words} words, language {language}; no copy of another sample's thought.
- **Selected by**: {judge}.
- **Prompts**: {prompts}.

The boxes of each sample are the ground truth; only the thought is the teacher's. Thoughts were checked by program, \
not by people. They may be used as the licences of the data and the teacher's terms allow.

## Samples by task

{tasks}

## Proposals: {proposals}

{rejected}

## How the kept chain was chosen

{chosen}

## Use

```
univg data show samples.jsonl --images ROOT
univg data convert samples.jsonl --to llamafactory --out train.json
```

`proposals.jsonl` holds every proposal with its verdicts, `left-out.jsonl` what was not kept and why, `manifest.json` \
all settings and digests.
"""


def write_card(manifest: Mapping[str, Any]) -> str:
    """Return the card: Markdown below a YAML header, as dataset hubs show it."""
    from huggingface_hub import DatasetCardData

    tags = ["visual-grounding", "chain-of-thought", "univg"]
    data, plan, judge = manifest["data"], manifest["plan"], manifest["judge"]
    rejected = sorted(manifest["rejected"].items(), key=lambda entry: (-entry[1], entry[0]))
    by_task = [(task, *_count(samples)) for task, samples in manifest["by_task"].items()]
    total, kept, _ = _count(manifest["samples"])
    undecided = f"\n**Not complete: {manifest['undecided']} samples are undecided.**\n"
    return CARD.format(
        header=DatasetCardData(task_categories=["image-text-to-text"], tags=tags).to_yaml(),
        state="" if manifest["complete"] else undecided,
        kept=kept,
        total=total,
        univg=manifest["univg"],
        about=data["about"],
        digest=data["digest"],
        teacher=_name(manifest["teacher"]) + _describe_asking(manifest),
        **{name: plan["rules"][name] for name in ("min_iou", "min_words", "max_words", "language")},
        judge=_name(judge) if judge else "the rule (no judge was asked)",
        prompts=", ".join(f"{name} `{digest}`" for name, digest in manifest["prompts"].items()),
        tasks=_table(("task", "samples", "kept", "left out"), by_task),
        proposals=manifest["proposals"],
        rejected=_table(("rejected for", "count", "meaning"), [(*one, CAUSES[one[0]]) for one in rejected]),
        chosen=_table(
            ("by", "count", "meaning"),
            [(by, count, MEANINGS[by]) for by, count in manifest["chosen_by"].items()],
        ),
    )


def count_kept(samples: Mapping[str, int]) -> int:
    """Count the samples that are written out, of counts by outcome."""
    return samples.get("kept", 0) + samples.get("simple", 0)


def _count(samples: Mapping[str, int]) -> tuple[int, int, str]:
    """Return how many samples there are, how many are kept, and what became of the rest."""
    rest = ", ".join(f"{name} {n}" for name, n in samples.items() if name not in ("kept", "simple"))
    return sum(samples.values()), count_kept(samples), rest


def _name(about: Mapping[str, Any]) -> str:
    at = f" at {about['address']}" if "address" in about else ""
    model = f" ({about['model']})" if about["kind"] == "local" else ""
    return f"{about['name']}{model}{at}"


def _describe_asking(manifest: Mapping[str, Any]) -> str:
    if manifest["teacher"]["kind"] == "world":
        return ""
    plan = manifest["plan"]
    shown = "was shown the ground truth" if plan["shown"] else "was not shown the ground truth"
    return f"; it {shown}, and proposed {plan['chains']} chain{'s' * (plan['chains'] > 1)} a sample"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = list(rows)
    return table(header, rows) if rows else "None."
