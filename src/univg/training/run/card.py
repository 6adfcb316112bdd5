"""The model card of what a stage has trained: where it comes from, on what, how, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from univg.models.checkpoint import EMBEDDED
from univg.report.cards import write_card
from univg.report.markdown import table
from univg.training.config import StageConfig
from univg.training.run.log import read_rows
from univg.training.run.settings import name_base
from univg.training.run.validation import Best, list_scores

__all__ = ["write_stage_card"]

TITLES = {"sft": "supervised fine-tuning", "grpo": "GRPO with difficulty weights"}
LAST_STEPS = 20


def write_stage_card(
    folder: Path,
    name: str,
    config: StageConfig,
    facts: Mapping[str, Any],
    log: Path,
    best: Best | None = None,
) -> None:
    """Write `README.md`; `facts` as `stage.record_run` gives them, `log` the run's rows, `best` what validation
    found."""
    stage = str(facts["stage"])
    adapter = config.lora is not None
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    kind = "A LoRA adapter for" if adapter else "Trained from"
    loads = "`transformers.AutoModelForImageTextToText.from_pretrained` reads it too"
    if adapter:
        loads += " (with peft installed), and `univg merge` makes one model of it and its base"
    body = f"""# {name}

{kind} `{config.model}` by univg's {TITLES.get(stage, stage)}: {facts["steps"]} steps.
It is asked in the style `{config.prompt_style}` and answers in integers 0–1000 of the image's width and height.
This card claims nothing of how good it is: measure it with `univg evaluate`.

```python
from univg import Grounder

Grounder.from_pretrained("path/of/this/folder").ground(["a.png", "b.png"], "…")
```

Also `univg ground --model FOLDER …`; {loads}.

## Training

{_describe_last_steps(log)}
{_describe_validation(log, best)}
Data digest (sha256): `{facts["data_digest"]}`. Python {facts["python"]}; {versions}; {facts["processes"]} process(es).

```yaml
{yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)}```
"""
    named, _ = name_base(config.model)
    base = (
        None if named in EMBEDDED or Path(named).is_absolute() else named
    )  # the hub takes its own names alone
    write_card(folder, body, ["trl", stage], "peft" if adapter else "transformers", base)


def _describe_last_steps(log: Path) -> str:
    """Write the means of the last steps' numbers as a table."""
    rows = [row for row in read_rows(log) if "loss" in row][-LAST_STEPS:]
    if not rows:
        return "No step was logged."
    means = []
    for name in [key for key, value in rows[-1].items() if isinstance(value, float)]:
        # A reward that applies to no rollout of a step is no number there.
        values = [
            row[name] for row in rows if isinstance(row.get(name), (int, float)) and row[name] == row[name]
        ]
        means.append((name, f"{sum(values) / len(values):.4g}" if values else "none"))
    return f"Means of the last {len(rows)} logged steps:\n\n{table(('number', 'mean'), means)}"


def _describe_validation(log: Path, best: Best | None) -> str:
    """Write what the run was scored on while it learned, and which step the model is of; nothing without."""
    if best is None:
        return ""
    finished = best.best if best.kept else best.last
    scored = [(each.step, str(each), f"{each.iou:.3f}") for each in list_scores(read_rows(log))]
    chosen = ", chosen by these very scores, so they are a little too good" if best.kept else ""
    return f"""
## Validation

This is the model of step {finished.step}{chosen}:

{table(("step", "Acc@0.5", "mean IoU"), scored)}
"""
