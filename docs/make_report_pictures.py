"""Make the pictures of a report in docs/evaluation.md: `make docs-report`.

    python docs/make_report_pictures.py [--runs DIR] [--n 20]

Evaluates the embedded model on the world and on other programs' drawings (a second call with the same runs only
draws), writes the report, and takes screenshots of its page in Chromium, which must be installed. They show the head
of each benchmark's section, and a few cards of its gallery.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
BENCHMARKS = ("world", "world_drawn")
SCREEN_WH = (1180, 1500)
LIMIT_BYTES = 400_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="where the runs are kept (default: a temporary folder)")
    parser.add_argument("--n", type=int, default=20, help="samples of each task family")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary)
        for benchmark in BENCHMARKS:
            univg("evaluate", "--benchmark", benchmark, "--n", str(options.n), "--out", str(runs / benchmark))
            univg("report", str(runs / benchmark), "--out", str(runs / f"{benchmark}-report"))
            page = runs / f"{benchmark}-report" / "report.html"
            for part in ("tables", "gallery"):
                photograph(page, part, PICTURES / f"report-{benchmark}-{part}.png")


def univg(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "univg.cli.main", *arguments], check=True)


def photograph(page: Path, part: str, picture: Path) -> None:
    """Take a screenshot of the page's head, or of its gallery alone, as a PNG of few colours, so that it is small."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium: it takes the screenshots: install the package `chromium`")
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder, "page.html")
        shown.write_text(hide_all_but(page.read_text(encoding="utf-8"), part), encoding="utf-8")
        shot = Path(folder, "shot.png")
        width, height = SCREEN_WH
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [
            f"--user-data-dir={folder}/profile",
            f"--screenshot={shot}",
            f"--window-size={width},{height}",
        ]
        subprocess.run([chromium, *options, shown.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)
    size = picture.stat().st_size
    print(f"{picture}  {size / 1000:.0f} kB")
    if size > LIMIT_BYTES:
        sys.exit(f"larger than {LIMIT_BYTES / 1000:.0f} kB: {picture}")


def hide_all_but(page: str, part: str) -> str:
    """Return the page as it is, or with everything before its gallery hidden."""
    if part == "tables":
        return page
    script = (
        "<script>const first = document.querySelector('article').closest('section, div');"
        "window.scrollTo(0, 0); let node = first;"
        "while (node && node !== document.body) { let before = node.previousElementSibling;"
        "while (before) { before.style.display = 'none'; before = before.previousElementSibling; }"
        "node = node.parentElement; }</script>"
    )
    return re.sub(r"</body>", lambda _: script + "</body>", page)


if __name__ == "__main__":
    main()
