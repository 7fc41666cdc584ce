"""Name what images show, with a model that `unseen export` wrote: numpy, Pillow and onnxruntime, no torch.

python onnx_predict.py MODEL.onnx IMAGE... [--classes OTHER.csv] [--top 5]
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read_image(path, size, short_side):
    """The upright image as the network sees it: short side resized, centre cropped; uint8 (size, size, 3)."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode.startswith("I"):  # 16-bit greys, scaled by the bits that are used
        greys = np.asarray(image)
        bits = next((b for b in (8, 10, 12, 14, 16, 24) if greys.max() < 1 << b), 32)
        image = Image.fromarray((greys >> (bits - 8)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:  # what is transparent becomes white
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image, (w, h) = image.convert("RGB"), image.size
    w, h = (short_side, int(short_side * h / w)) if w <= h else (int(short_side * w / h), short_side)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return np.asarray(image.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size)))


def read_classes(path, attributes):
    """Names, vectors (N, K) and seen flags (N,) of a table with a column `class` and one for each attribute.

    Last, which class of the training has whose images, by name, for models whose graph asks for it.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    vectors = np.array([[float(row[a]) for a in attributes] for row in rows], np.float32)
    trained = {row["class"]: int(row.get("trained_as", -1)) for row in rows}
    return list(trained), vectors, np.array([row.get("seen") == "1" for row in rows]), trained


def read_images(path, names):
    """What images of classes add to their scores; nothing to those of other classes."""
    with np.load(path, allow_pickle=False) as arrays:
        rows = {name: i for i, name in enumerate(arrays["classes"])}
        shares, prototypes, constants = (arrays[n] for n in ("attribute_shares", "image_prototypes", "image_constants"))
    nothing = np.float32(1), np.zeros_like(prototypes[0]), np.float32(0)
    own = [(shares[i], prototypes[i], constants[i]) if (i := rows.get(name)) is not None else nothing for name in names]
    keys = ("attribute_shares", "image_prototypes", "image_constants")
    return {key: np.array(values, np.float32) for key, values in zip(keys, zip(*own, strict=True), strict=True)}


def main():
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--classes", type=Path, help="another class table, with the same attributes")
    parser.add_argument("--top", type=int, default=5)
    arguments = parser.parse_args()
    facts = json.loads(arguments.model.with_suffix(".json").read_text(encoding="utf-8"))
    table = arguments.model.with_name(facts["classes"])
    *_, trained = read_classes(table, facts["attributes"])
    names, vectors, seen, _ = read_classes(arguments.classes or table, facts["attributes"])
    fed = {"class_vectors": vectors, "seen": seen, "trained": np.array([trained.get(name, -1) for name in names])}
    if facts["class_images"]:
        fed |= read_images(arguments.model.with_name(facts["class_images"]), names)
    fed = {name: fed[name] for name in facts["inputs"] if name in fed}
    lowered = facts["gamma"] * seen * fed.get("attribute_shares", 1)
    session = onnxruntime.InferenceSession(str(arguments.model))
    broken = 0
    for path in arguments.images:
        try:
            pixels = read_image(path, facts["image"]["size"], facts["image"]["short_side"])[None]
        except Exception as error:  # Pillow raises nearly anything on a broken file
            print(f"{path}: {str(error).splitlines()[0]}", file=sys.stderr)
            broken = 1
            continue
        shifted = (session.run(["scores"], {"images": pixels, **fed})[0][0] - lowered) / facts["temperature"]
        confidence = np.exp(shifted - shifted.max()) / np.exp(shifted - shifted.max()).sum()
        best = np.argsort(-shifted, kind="stable")[: arguments.top]
        print(path if confidence[best[0]] >= (facts["threshold"] or 0) else f"{path}: unknown, the nearest are")
        for i in best:
            print(f"  {confidence[i]:8.4%}  {names[i]}{'' if seen[i] else ' (unseen)'}")
    sys.exit(broken)


if __name__ == "__main__":
    main()
