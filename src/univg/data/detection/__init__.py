"""Detection sets: an index of images with their objects, read from whatever file or folder keeps it.

A detection set is an index, not a list of records: boxes and images stand apart in COCO, one file an image in VOC. So
each is read into `DetectionImage`s first. `univg.data.building.build` makes multi-image tasks of them; the readers of
`univg.data.readers` one sample an image and category.
"""

from __future__ import annotations

from collections.abc import Callable

from univg.data.detection.coco import read_coco_images
from univg.data.detection.cvat import read_cvat_images
from univg.data.detection.images import DetectionImage, Instance
from univg.data.detection.label_studio import read_label_studio_images
from univg.data.detection.labelme import read_labelme_images
from univg.data.detection.open_images import read_open_images
from univg.data.detection.questions import asking, asking_sets
from univg.data.detection.tables import read_table_images
from univg.data.detection.voc import read_voc_images
from univg.data.detection.yolo import read_yolo_images
from univg.data.formats.records import Source

__all__ = ["DETECTION", "DetectionImage", "Instance", "asking", "asking_sets"]

DETECTION: dict[str, Callable[[Source], list[DetectionImage]]] = {
    "coco": read_coco_images,
    "voc": read_voc_images,
    "label_studio": read_label_studio_images,
    "labelme": read_labelme_images,
    "cvat": read_cvat_images,
    "yolo": read_yolo_images,
    "csv": read_table_images,
    "open_images": read_open_images,
}
"""What reads the images of each detection format, by the format's name."""
