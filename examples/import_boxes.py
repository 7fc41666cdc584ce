"""Boxes of an annotation program (COCO JSON) become a dataset folder: each box is an image of its class.

python import_boxes.py
"""

import json
import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

from unseen.data.layouts.importing import Options, import_export

COLOURS = {"robin": "firebrick", "jay": "steelblue", "rook": "black", "canary": "gold"}


def annotate(folder: Path) -> Path:
    """Three images with two birds each, and their boxes as COCO has them."""
    names = list(COLOURS)
    images: list[dict] = []
    boxes: list[dict] = []
    for i in range(3):
        image = Image.new("RGB", (120, 80), "white")
        for j, left in enumerate((10, 70)):
            category = (2 * i + j) % len(names)
            image.paste(COLOURS[names[category]], (left, 20, left + 40, 60))
            boxes.append({"id": len(boxes), "image_id": i, "category_id": category, "bbox": [left, 20, 40, 40]})
        image.save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 80})
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


def main() -> None:
    """Import them with a margin."""
    with tempfile.TemporaryDirectory() as made:
        found = import_export(annotate(Path(made)), Path(made) / "birds", Options(margin=0.15))
        print(f"{found.layout.title}: {found.images}")
        print(pd.read_csv(Path(made) / "birds/images.csv").to_string())


if __name__ == "__main__":
    main()
