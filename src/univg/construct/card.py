"""The dataset card: what a reader must know before training on it, out of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from univg.construct.select import MEANINGS
from univg.construct.verify import CAUSES


def card(manifest: Mapping[str, Any]) -> str:
    """Markdown with a YAML head, as dataset hubs show it."""
    counts, data = manifest["samples"], manifest["data"]
    teacher, judge, plan = manifest["teacher"], manifest["judge"], manifest["plan"]
    kept = counts.get("kept", 0) + counts.get("simple", 0)
    total = sum(counts.values())
    state = (
        ""
        if manifest["complete"]
        else f"\n**Not complete: {manifest['undecided']} samples are undecided.**\n"
    )
    shown = "was shown the ground truth" if plan["shown"] else "was not shown the ground truth"
    told = f"; it {shown}, and proposed {plan['chains']} chain{'s' * (plan['chains'] > 1)} a sample"
    lines = [
        "---",
        "task_categories: [image-text-to-text]",
        "tags: [visual-grounding, chain-of-thought, univg]",
        "---",
        "",
        "# Grounding samples with chains of thought",
        state,
        f"{kept} of {total} samples, each with images, a question, a box and a chain of thought that leads to it. "
        f"Made by `univg construct` {manifest['univg']}.",
        "",
        f"- **Data**: {data['about']} (digest `{data['digest']}`).",
        f"- **Teacher**: {_who(teacher)}{'' if teacher['kind'] == 'world' else told}.",
        f"- **Verified**: the answer's IoU with the ground truth at least {plan['rules']['min_iou']:g}; no leak of "
        f"the answer; {plan['rules']['min_words']} to {plan['rules']['max_words']} words, language "
        f"{plan['rules']['language']}; no copy of another sample's thought.",
        f"- **Selected by**: {_who(judge) if judge else 'the rule (no judge was asked)'}.",
        f"- **Prompts**: {', '.join(f'{name} `{digest}`' for name, digest in manifest['prompts'].items())}.",
        "",
        "The box of each sample is the ground truth; only the thought is the teacher's. Thoughts were checked by "
        "program, not by people. They may be used as the licences of the data and the teacher's terms allow.",
        "",
        "## Samples by task",
        "",
        *_table(("task", "samples", "kept", "left out"), _tasks(manifest["by_task"])),
        "",
        f"## Proposals: {manifest['proposals']}",
        "",
        *_table(
            ("rejected for", "count", "meaning"),
            [(name, count, CAUSES[name]) for name, count in sorted(manifest["rejected"].items(), key=_most)],
        ),
        "",
        "## How the kept chain was chosen",
        "",
        *_table(("by", "count", "meaning"), [(by, n, MEANINGS[by]) for by, n in manifest["chosen_by"].items()]),
        "",
        "## Use",
        "",
        "```",
        "univg data show samples.jsonl --images ROOT",
        "univg data convert samples.jsonl --to llamafactory --out train.json",
        "```",
        "",
        "`proposals.jsonl` holds every proposal with its verdicts, `left-out.jsonl` what was not kept and why, "
        "`manifest.json` all settings and digests.",
        "",
    ]
    return "\n".join(lines)


def _who(about: Mapping[str, Any]) -> str:
    at = f" at {about['address']}" if "address" in about else ""
    model = f" ({about['model']})" if about["kind"] == "local" else ""
    return f"{about['name']}{model}{at}"


def _tasks(by_task: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int, int, str]]:
    rows = []
    for task, counts in by_task.items():
        kept = counts.get("kept", 0) + counts.get("simple", 0)
        rest = ", ".join(f"{name} {n}" for name, n in counts.items() if name not in ("kept", "simple"))
        rows.append((task, sum(counts.values()), kept, rest))
    return rows


def _table(head: tuple[str, ...], rows: list[Any]) -> list[str]:
    if not rows:
        return ["None."]
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def _most(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
