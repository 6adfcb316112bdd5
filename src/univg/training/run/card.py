"""The model card of what a stage has trained: where it comes from, on what, how, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from univg.training.config import StageConfig

TITLES = {"sft": "supervised fine-tuning", "grpo": "GRPO with difficulty weights"}


def write_stage_card(
    folder: Path, name: str, config: StageConfig, facts: Mapping[str, Any], log: Path
) -> None:
    """Write `README.md`; `facts` as `stage_run.record` gives them, `log` the run's rows."""
    stage = str(facts["stage"])
    adapter = config.lora is not None
    base = "" if config.model.startswith("embedded") else f"base_model: {config.model}\n"
    library = "peft" if adapter else "transformers"
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    kind = "A LoRA adapter for" if adapter else "Trained from"
    loads = "`transformers.AutoModelForImageTextToText.from_pretrained` reads it too"
    if adapter:
        loads += " (with peft installed), and `univg merge` makes one model of it and its base"
    text = f"""---
license: apache-2.0
library_name: {library}
pipeline_tag: image-text-to-text
tags: [visual-grounding, univg, trl, {stage}]
{base}---

# {name}

{kind} `{config.model}` by univg's {TITLES.get(stage, stage)}: {facts["steps"]} steps.
It is asked in the style `{config.prompt_style}` and answers in integers 0–1000 of the image's width and height.
What it does well is for `univg evaluate` to say; nothing is claimed here.

```python
from univg import Grounder

Grounder.from_pretrained("path/of/this/folder").ground(["a.png", "b.png"], "…")
```

Also `univg ground --model FOLDER …`; {loads}.

## Training

{_last(log)}

Data digest (sha256): `{facts["data_digest"]}`. Python {facts["python"]}; {versions}; {facts["processes"]} process(es).

```yaml
{yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)}```
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _last(log: Path) -> str:
    """The means of the last steps' numbers."""
    if not log.exists():
        return "No step was logged."
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[-20:]]
    names = [key for key, value in rows[-1].items() if isinstance(value, float)] if rows else []
    lines = [f"Means of the last {len(rows)} logged steps:", "", "| | |", "|---|---|"]
    for name in names:
        values = [row[name] for row in rows if isinstance(row.get(name), (int, float))]
        lines.append(f"| {name} | {sum(values) / len(values):.4g} |")
    return "\n".join(lines)
