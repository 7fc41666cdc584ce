"""A folder of images and a table of classes: train, predict, add a class, in Python. The birds are drawn.

python own_images.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import unseen
from unseen.fieldguide.build import build


def main(folder: Path) -> None:
    """Train on drawn birds, name images of species that nobody has photographed."""
    birds = folder / "birds"
    build(birds, species=12, images=5, size=64, workers=1)
    data = unseen.load_dataset(str(birds))
    run = unseen.fit("eszsl", birds, folder / "run", backbone="fieldguide", device="cpu", cache=folder / "cache")
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    new = [path for path, split in zip(data.paths(), data.split, strict=True) if split == "test_unseen"]
    found = recognizer.predict(new, top=3)
    print(found)
    print(found.to_frame()[["class", "confidence", "attributes"]].head(3).to_string())
    name = data.table.names[0]
    recognizer.add_class("a bird of my own", data.table.values[data.table.index(name)])
    print("classes:", len(recognizer.classes), "scores:", recognizer.scores(new[:2]).shape)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
