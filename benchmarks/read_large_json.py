"""Compare ways to read a large JSON list: univg's stream, json.load and ijson, in memory and in records a second.

    python benchmarks/read_large_json.py --megabytes 1420

Makes a file in the shape of MGrounding-630k in a temporary folder (its real file has 630,000 records in 1.42 GB),
reads it in a process of its own for each way, and prints peak memory, seconds and records a second. With `ijson`
installed that is measured too. `stream` is the bare stream, `samples` the whole way to samples.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("stream", "samples", "json.load", "ijson")
WORDS = (
    "the statue",
    "of a man",
    "wearing an orange shirt",
    "a white truck",
    "with a crane on top",
    "at the left",
)


def make_record(rng: random.Random, number: int) -> dict[str, object]:
    """Make a record like those of the group grounding sub-task: several images, several turns."""
    ids = [rng.randrange(10**7) for _ in range(rng.randint(2, 6))]
    turns = []
    for turn in range(rng.randint(2, 5)):
        said = " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
        tags = "<image>\n" * len(ids) if turn == 0 else ""
        question = f"{tags}Give the bounding box of the region this sentence refers to: "
        x, y = rng.randint(0, 400), rng.randint(0, 400)
        box = f"<|box_start|>({x},{y}),({rng.randint(x + 1, 1000)},{rng.randint(y + 1, 1000)})<|box_end|>"
        turns += [
            {"from": "human", "value": f"{question}<|object_ref_start|>{said}<|object_ref_end|>."},
            {"from": "gpt", "value": f"It's in the {('first', 'second')[turn % 2]} image. {box}"},
        ]
    return {
        "id": f"{number}_{'_'.join(map(str, ids))}",
        "images": [f"./MGrounding-630k/Group_Grounding/SA-1B/sa_{i}.jpg" for i in ids],
        "conversations": turns,
        "type": "gg_train",
    }


def write_list(path: Path, megabytes: float) -> int:
    """Write the file, of about that size, indented as published files are; return how many records it has."""
    rng, count = random.Random(0), 0
    pool = [make_record(rng, i) for i in range(2000)]
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        while file.tell() < megabytes * 1e6:
            file.write(",\n" if count else "\n")
            file.write(json.dumps({**pool[count % len(pool)], "id": str(count)}, indent=2))
            count += 1
        file.write("\n]")
    return count


def read_list(way: str, path: str) -> int:
    """Read the whole file one way; return how many records it had."""
    if way == "json.load":
        with open(path, encoding="utf-8") as file:
            return len(json.load(file))
    if way == "ijson":
        import ijson

        with open(path, "rb") as file:
            return sum(1 for _ in ijson.items(file, "item", use_float=True))
    if way == "stream":
        from univg.data.formats.json_stream import read_items

        return sum(1 for _ in read_items(path))
    from univg.data.readers import read

    # One sample a turn; what all the ways count are the records behind them.
    count, last = 0, ""
    for sample in read(path, "mgrounding"):
        name = sample.source.partition("@")[0]
        count += name != last
        last = name
    return count


def measure(way: str, path: str) -> None:
    started = time.perf_counter()
    count = read_list(way, path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"way": way, "records": count, "seconds": seconds, "peak_bytes": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=50, help="size of the file (default: 50)")
    parser.add_argument("--way", choices=WAYS, action="append", help="measure only these (default: all)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return measure(*given.child)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.json")
        count = write_list(path, given.megabytes)
        print(f"{path.stat().st_size / 1e6:.0f} MB, {count} records")
        print(f"{'way':10} {'peak memory':>12} {'seconds':>9} {'records/s':>11}")
        for way in given.way or WAYS:
            command = [sys.executable, __file__, "--child", way, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
            if done.returncode:
                why = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
                print(f"{way:10} not measured: {why}")
                continue
            found = json.loads(done.stdout)
            assert found["records"] == count, found
            speed = f"{count / found['seconds']:>11,.0f}"
            print(f"{way:10} {found['peak_bytes'] / 1e6:>9.0f} MB {found['seconds']:>9.1f} {speed}")


if __name__ == "__main__":
    main()
