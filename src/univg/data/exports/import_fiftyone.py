"""Make a FiftyOne dataset of the samples in this folder: python import_fiftyone.py [--name NAME] [--launch].

A sample of several pictures is a group, with the slices `image_1`, `image_2` and so on. It needs nothing but FiftyOne.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def make_dataset(folder: Path, name: str) -> Any:
    """Return a persistent dataset; boxes are in the field `ground_truth`, the question is in `question`."""
    import fiftyone as fo  # type: ignore[import-not-found]

    rows = json.loads((folder / "samples.json").read_text("utf-8"))
    grouped = any(len(row["images"]) > 1 for row in rows)
    dataset = fo.Dataset(name, persistent=True)
    if grouped:
        dataset.add_group_field("group", default="image_1")
    samples = []
    for row in rows:
        group = fo.Group() if grouped else None
        for number, image in enumerate(row["images"]):
            detections = [
                fo.Detection(label=box["label"], bounding_box=box["bounding_box"], source=box["source"])
                for box in row["boxes"]
                if box["image"] == number
            ]
            sample = fo.Sample(filepath=str((folder / image).resolve()))
            if group is not None:
                sample["group"] = group.element(f"image_{number + 1}")
            for field in ("question", "task", "thought", "sources", "complete"):
                if row[field]:
                    sample[field] = row[field]
            sample["ground_truth"] = fo.Detections(detections=detections)
            samples.append(sample)
    dataset.add_samples(samples)
    return dataset


def main() -> None:
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Make a FiftyOne dataset of the samples in this folder.")
    parser.add_argument("--name", default=folder.name, help="the dataset's name (default: the folder's)")
    parser.add_argument("--launch", action="store_true", help="open the app and wait until it is closed")
    arguments = parser.parse_args()
    dataset = make_dataset(folder, arguments.name)
    print(dataset)
    if arguments.launch:
        import fiftyone as fo

        fo.launch_app(dataset).wait()


if __name__ == "__main__":
    main()
