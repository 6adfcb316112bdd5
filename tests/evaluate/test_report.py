"""Reports of runs: what stands in the tables, and a page that a real browser shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from univg.data.dataset import reopen_pictures
from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_file
from univg.evaluate.gallery import choose_rows
from univg.evaluate.report import build_sections, render_html_page, render_markdown_page, write_report
from univg.evaluate.runner import evaluate
from univg.evaluate.runs import Run, read_runs
from univg.models.answering import Decoding
from univg.report.tables import build_published_table, build_scores_table, read_published, render_markdown

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folders(scripted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one benchmark, and a third of consensus."""
    root = tmp_path_factory.mktemp("runs")
    benchmark = scripted.world(2)
    evaluate(benchmark, scripted.ScriptedEngine(name="models/alpha"), root / "a")
    evaluate(benchmark, scripted.ScriptedEngine(name="models/beta", version=2), root / "b")
    evaluate(benchmark, scripted.ScriptedEngine(name="models/beta", version=2), root / "c", Decoding(4, 1.0))
    return [root / "a", root / "b", root / "c"]


def test_runs_are_named_apart(folders: list[Path]) -> None:
    assert [run.label for run in read_runs(folders[:2])] == ["alpha", "beta"]
    assert [run.label for run in read_runs(folders)] == ["alpha (a)", "beta (b)", "beta (c)"]


def test_shards_from_several_folders_are_one_run(
    scripted: ModuleType, folders: list[Path], tmp_path: Path
) -> None:
    benchmark = scripted.world(2)
    for number in (0, 1):
        evaluate(benchmark, scripted.ScriptedEngine(), tmp_path / str(number), shard=(number, 2))
    [one] = read_runs([tmp_path / "0"])
    assert one.missing == benchmark.total // 2
    [both] = read_runs([tmp_path / "0", tmp_path / "1"])
    [whole] = read_runs(folders[:1])
    assert both.missing == 0 and [row["iou"] for row in both.rows.values()] == [
        row["iou"] for row in whole.rows.values()
    ]


def test_what_a_report_holds(folders: list[Path]) -> None:
    sections = build_sections(read_runs(folders[:2]), legacy=True)
    [section] = sections
    titles = [table.title for table in section.tables if not re.search("sets|nothing there", table.title)]
    assert titles == [
        *("alpha", "alpha: Acc@0.5 by wording", "beta", "beta: Acc@0.5 by wording"),
        *("alpha, scored as the reference code does", "beta, scored as the reference code does"),
        "beta minus alpha",
    ]
    table = section.tables[0]
    assert table.headings == (
        *("task", "n", "Acc@0.3", "Acc@0.5", "Acc@0.7", "mean IoU", "faults", "truncated", "format ok"),
    )
    assert [row[0] for row in table.rows][-2:] == ["macro", "micro"]
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d–\d+\.\d\)", table.rows[-1][2])
    told = render_markdown_page(sections)
    assert "| **macro** |" in told and told.count("\n### ") == len(section.tables)
    runs = read_runs(folders[:1])
    assert "<|object_ref_start|>" in str(runs[0].rows)
    assert "object_ref" not in render_html_page(build_sections(runs)), "marks are for models"


def test_an_incomplete_run_says_so(
    scripted: ModuleType, tmp_path: Path, own_set: Callable[..., tuple[Path, Path]]
) -> None:
    data, root = own_set(4)
    (root / "2-b.png").unlink()
    evaluate(open_file("univg", data, root), scripted.ScriptedEngine(), tmp_path / "run")
    [section] = build_sections(read_runs([tmp_path / "run"]))
    assert (
        "NOT COMPLETE: 3 of 4 samples are scored; could not be evaluated: 1 image." in section.tables[0].notes
    )
    page = render_html_page([section])
    assert "NOT COMPLETE" in page and "2-b.png" in page


def test_folders_that_are_no_runs(tmp_path: Path, scripted: ModuleType) -> None:
    with pytest.raises(UnivgError, match="no run here"):
        read_runs([tmp_path])
    evaluate(replace(scripted.world(1), total=0), scripted.ScriptedEngine(), tmp_path)
    with pytest.raises(UnivgError, match="no row yet"):
        read_runs([tmp_path])


def mig_bench_run(counts: dict[str, int]) -> Run:
    rows = {}
    for task, count in counts.items():
        for number in range(count):
            hits = {"hit_30": True, "hit_50": number % 2 == 0, "hit_70": False, "iou": 0.5}
            shape = {
                "task": task,
                "source": f"{task}/{number}",
                "fault": None,
                "truncated": False,
                "format_ok": True,
            }
            rows[f"{task}/{number}"] = {**hits, **shape, "truth_unit": [0.0, 0.0, 0.5, 0.5]}
    fingerprint = {"decoding": {"samples": 1}}
    return Run("ours", "mig_bench", fingerprint, {}, rows, len(rows))


def test_ground_truth_of_another_scale_is_told(scripted: ModuleType, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    boxes = [[10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]]
    rows = [{"images": ["a.png"], "query": f"Where {box}?", "task": "t", "boxes": [box]} for box in boxes]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(open_file("univg", tmp_path / "s.jsonl", tmp_path), scripted.ScriptedEngine(), tmp_path / "run")
    [section] = build_sections(read_runs([tmp_path / "run"]))
    assert any(
        note.startswith("1 ground-truth boxes are of another scale") for note in section.tables[0].notes
    )


def test_the_papers_rows_stand_beside_mig_bench() -> None:
    counts = dict.fromkeys(read_published()["mig_bench"]["columns"], 2)
    [section] = build_sections([mig_bench_run(counts)])
    table = next(table for table in section.tables if table.title.startswith("Beside the paper"))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["ours"] == ("50.00",) * 11
    assert rows["UniVG-R1 (paper)"][-1] == "72.64"
    assert rows["Qwen2-VL-7B (paper)"][0] == "29.92"
    assert "revised" in table.notes[0] and "diff 2 here, 528 there" in table.notes[-1]


def test_a_part_of_the_tasks_has_no_avg() -> None:
    [section] = build_sections([mig_bench_run({"diff": 2, "region": 2})])
    table = next(table for table in section.tables if table.title.startswith("Beside the paper"))
    assert table.rows[0][-1] == "–" and table.rows[0][2] == "–"


def test_published_numbers_are_the_papers() -> None:
    published = read_published()["mig_bench"]
    off = []
    for name, values in published["rows"].items():
        assert len(values) == 11, name
        if abs(sum(values[:10]) / 10 - values[10]) > 0.011:
            off.append((name, values[10]))
    assert [value for _, value in off] == [72.64, 67.3], "the two slips that the notes name"
    assert build_published_table("lisa_val", {}) is not None and build_published_table("world", {}) is None
    for values in read_published()["zero_shot"]["rows"].values():
        assert sum(values[:5]) / 5 == pytest.approx(values[5], abs=0.02)


def test_the_gallery_shows_every_kind() -> None:
    rows = [
        {"key": f"{task}{number}", "task": task, "fault": fault, "hit_50": hit, "iou": float(hit)}
        for task in ("a", "b")
        for number, (fault, hit) in enumerate([(None, True)] * 50 + [(None, False), ("no_box", False)])
    ]
    chosen = choose_rows(rows, 8)
    kinds = {(row["task"], row["fault"], row["hit_50"]) for row in chosen}
    assert len(kinds) == 6 and len(chosen) == 8
    assert chosen == choose_rows(list(reversed(rows)), 8)
    assert len(choose_rows(rows, 1000)) == len(rows)


def test_pictures_are_found_again(scripted: ModuleType, folders: list[Path]) -> None:
    [run] = read_runs(folders[:1])
    cases = {case.key: case for case in scripted.world(2).items()}
    for key, row in list(run.rows.items())[:4]:
        again = reopen_pictures(row, run.about)
        assert [one.tobytes() for one in again] == [one.tobytes() for one in cases[key].pictures()]


def test_markdown_keeps_its_columns() -> None:
    table = replace(
        build_scores_table(build_sections([mig_bench_run({"diff": 2})])[0].summaries["ours"], "a|b"),
        notes=("x < y",),
    )
    text = render_markdown(table)
    assert text.startswith("### a\\|b") and "x &lt; y" in text


HOSTILE = "</script><img src=x onerror=document.title='broken'>"


def test_a_browser_shows_the_page(folders: list[Path], tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    runs = read_runs(folders[:2])
    hostile = {key: {**row, "query": HOSTILE, "text": HOSTILE} for key, row in runs[0].rows.items()}
    sections = build_sections([replace(runs[0], rows=hostile), runs[1]])
    paths = write_report(sections, tmp_path, gallery=20)
    page = tmp_path / "report.html"
    assert page in paths and not re.search(r'(?:src|href)="(?!data:)', page.read_text())
    shot = tmp_path / "page.png"
    browse(page, f"--screenshot={shot}", "--window-size=1200,3000")
    with Image.open(shot) as image:
        colours = image.convert("RGB").getcolors(1 << 24)
        assert image.size == (1200, 3000) and colours is not None and len(colours) > 500
    shown = browse(page, "--dump-dom")
    assert "40 of 40 samples" in shown and "<title>univg report: world</title>" in shown
    picked = tmp_path / "picked.html"
    choose_hits = "document.querySelector('select[name=outcome]').value='hit';"
    script = (
        f"<script>{choose_hits}document.querySelector('select').dispatchEvent(new Event('change'));</script>"
    )
    picked.write_text(page.read_text().replace("</body>", script + "</body>"))
    shown = browse(picked, "--dump-dom")
    hits = len(re.findall(r'<article[^>]*data-outcome="hit"', shown))
    assert 0 < hits < 40 and f"{hits} of 40 samples" in shown
    assert len(re.findall(r'<article[^>]*data-outcome="miss"[^>]*hidden', shown)) == 40 - hits


def browse(page: Path, *options: str) -> str:
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [str(CHROMIUM), *arguments, *options, page.as_uri()], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "replace")


def test_the_fingerprint_is_on_the_page(folders: list[Path]) -> None:
    runs = read_runs(folders[:1])
    page = render_html_page(build_sections(runs), gallery=0)
    assert "what decided these numbers" in page and "scripted" in page and "<article" not in page
    stored: dict[str, Any] = json.loads((folders[0] / "run.json").read_text())
    assert stored["fingerprint"] == runs[0].fingerprint
