"""Time single answers of a model to questions of the world's test split, all families of one box, without its loading.

python benchmarks/answer_time.py                        # the embedded model
OMP_NUM_THREADS=1 python benchmarks/answer_time.py      # on one core
"""

from __future__ import annotations

import argparse
import statistics
import time

from univg import Grounder
from univg.world import FAMILIES, make_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--n", type=int, default=4, help="questions of each family (default: %(default)s)")
    settings = parser.parse_args()
    grounder = Grounder.from_pretrained(settings.model)
    made = [make_sample(name, "test", 0, index) for name in FAMILIES for index in range(settings.n)]
    grounder.ground(made[0].images, made[0].sample.query)  # the first is slower
    seconds = []
    for each in made:
        began = time.perf_counter()
        grounder.ground(each.images, each.sample.query)
        seconds.append(time.perf_counter() - began)
    tenth = sorted(seconds)[int(0.9 * len(seconds))]
    print(
        f"{len(seconds)} answers: median {statistics.median(seconds):.2f} s, nine in ten within {tenth:.2f} s, "
        f"longest {max(seconds):.2f} s"
    )


if __name__ == "__main__":
    main()
