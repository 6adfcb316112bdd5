"""Run `univg data …`: read, check, convert, count, look at, split, fetch, build and push data sets.

Exit codes: 0 done, 1 faults were found (or records left out), 2 what the caller can put right.
"""

from __future__ import annotations

from cyclopts import App

from univg.cli.data import build, convert, fetch, push, show, split, stats, validate

__all__ = ["app"]


def print_formats() -> None:
    """List the formats that can be read, and those that can be written."""
    from univg.data.exports import EXPORTS
    from univg.data.readers import READERS

    for name, reader in READERS.items():
        print(f"{name:18} {reader.title}{' (needs --images)' if reader.needs_images else ''}")
    print(f"\nconvert --to: {', '.join(EXPORTS)}")


app = App(name="data", help="Data sets: check, convert, count, look at, split, fetch, build, push.")
app.command(print_formats, name="formats", sort_key=0)
for order, verb in enumerate((validate, convert, stats, show, split, fetch, build, push), start=1):
    verb.app.sort_key = order
    app.command(verb.app)
