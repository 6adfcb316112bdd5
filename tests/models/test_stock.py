"""A stock checkpoint, published layout and no `univg.json`, through the public commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import families
from univg.cli import main as cli


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "style"), [("qwen2_vl", "think"), ("qwen2_5_vl", "json"), ("qwen3_vl", "json")]
)
def test_a_stock_checkpoint_is_asked_in_its_own_style(
    family: str, style: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, picture = families.save_family(tmp_path / "model", family, tied=False), tmp_path / "a.png"
    Image.effect_noise((1600, 1200), 60).convert("RGB").save(picture)
    ask = ["ground", str(picture), "-q", "the dog", "--model", str(model), "--json", "--max-new-tokens", "2"]
    capsys.readouterr()
    assert cli.main(ask) == 1, "two tokens hold no answer"
    told = capsys.readouterr()
    assert json.loads(told.out)["style"] == style
    assert "models without univg.json are; --style asks otherwise" in told.err
    assert ("--max-pixels sets it" in told.err) == (style == "json")
    assert cli.main([*ask, "--style", "native", "--all", "--max-pixels", "50000"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["style"] == ("set_marks" if family == "qwen2_vl" else "set_json")
    assert "--style" not in told.err and "--max-pixels" not in told.err
    out, small = (
        str(tmp_path / "run"),
        ["--n", "1", "--task", "referring", "--task", "find_all", "--size", "60"],
    )
    assert (
        cli.main(
            [
                "evaluate",
                "--benchmark",
                "world",
                "--model",
                str(model),
                *small,
                "--out",
                out,
                "--max-new-tokens",
                "2",
            ]
        )
        == 0
    )
    told = capsys.readouterr()
    assert "--style asks otherwise" in told.err
    rows = [json.loads(line) for line in (Path(out) / "rows-0-of-1.jsonl").read_text().splitlines()]
    sets = {"think": "set", "json": "set_json"}[style]
    assert {row["style"] for row in rows} == {style, sets}
    prompt = json.loads((Path(out) / "run.json").read_text())["fingerprint"]["prompt"]
    assert prompt["style"] == style and ("wording_of_several" in prompt) == (style == "json")
