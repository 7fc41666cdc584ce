"""Pretrain the small backbone that the fieldguide ships with.

The birds are of species that the fieldguide does not have: every value of every group is drawn apart from all others
(so none of the fieldguide's shortcuts holds among them), and each species differs from every species of the default
fieldguide in three groups or more. As in ImageNet pretraining, the network is told nothing but the species; it sees no
attributes, no parts and none of the fieldguide's images.

    PYTHONPATH=src python scripts/pretrain_fieldguide_backbone.py
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from unseen.fieldguide import BACKBONE, draw, invent, random_appearance
from unseen.fieldguide.species import differing_groups

WORLD = 1_000_003


def other_species(count: int) -> list[dict[str, str]]:
    """Appearances that differ from each other and from all of the default fieldguide's species."""
    rng = np.random.default_rng(WORLD)
    taken = [species.appearance for species in invent(0, 60)]
    found: list[dict[str, str]] = []
    while len(found) < count:
        appearance = random_appearance(rng)
        if min(differing_groups(appearance, other) for other in taken + found) >= 3:
            found.append(appearance)
    return found


def draw_all(looks: list[dict[str, str]], images: int, size: int) -> torch.Tensor:
    """All images as uint8 (species, images, 3, size, size)."""
    out = torch.empty((len(looks), images, 3, size, size), dtype=torch.uint8)
    for index, appearance in enumerate(looks):
        for number in range(images):
            image = draw(appearance, np.random.default_rng([WORLD, index, number]), size)[0]
            out[index, number] = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    return out


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Float images as the backbone wants them."""
    mean, std = (torch.tensor(BACKBONE[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random mirror images, one crop place and one brightness per batch."""
    size = batch.shape[-1]
    crop = size - size // 8
    top, left = (int(torch.randint(0, size - crop + 1, (), generator=generator)) for _ in range(2))
    batch = batch[..., top : top + crop, left : left + crop]
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
    return normalised(batch) + 0.15 * torch.randn((len(batch), 3, 1, 1), generator=generator)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images whose species is recognised."""
    model.eval()
    with torch.inference_mode():
        parts = zip(images.split(128), labels.split(128), strict=True)
        right = sum(int((model(normalised(p)).argmax(1) == y).sum()) for p, y in parts)
    model.train()
    return right / len(labels)


def main() -> None:
    """Draw, train and save."""
    parser = argparse.ArgumentParser(description="Pretrain the fieldguide's backbone on birds of other species.")
    parser.add_argument("--species", type=int, default=240)
    parser.add_argument("--images", type=int, default=30, help="images per species; a tenth is held out")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BACKBONE["weights"])
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    started = time.time()
    images = draw_all(other_species(options.species), options.images, BACKBONE["image_size"])
    drawn = time.time()
    print(f"drew {options.species * options.images} images in {drawn - started:.0f} s", flush=True)

    kept = options.images // 10
    labels = torch.arange(options.species)[:, None].expand(-1, options.images)
    held_out, held_labels = images[:, :kept].flatten(0, 1), labels[:, :kept].flatten()
    train, train_labels = images[:, kept:].flatten(0, 1), labels[:, kept:].flatten()

    model: Any = timm.create_model(BACKBONE["name"], num_classes=options.species, **BACKBONE["options"])
    model = model.to(memory_format=torch.channels_last)
    steps = math.ceil(len(train) / options.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps * options.epochs)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(options.epochs):
        total = 0.0
        for chosen in torch.randperm(len(train), generator=generator).split(options.batch):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(augmented(train[chosen], generator))
            loss = criterion(scores.float(), train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(train):.3f}, {time.time() - drawn:.0f} s", flush=True)

    right = accuracy(model, held_out, held_labels)
    print(f"held-out accuracy over {options.species} species: {right:.3f}")
    head = tuple(f"{name}." for name, module in model.named_modules() if module is model.get_classifier())
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith(head)
    }
    metadata = {
        "architecture": BACKBONE["name"],
        "options": json.dumps(BACKBONE["options"]),
        "image_size": str(BACKBONE["image_size"]),
        "mean": json.dumps(BACKBONE["mean"]),
        "std": json.dumps(BACKBONE["std"]),
        "pretraining": f"{options.species} drawn species x {options.images - kept} images, labels are the species",
        "command": "scripts/pretrain_fieldguide_backbone.py "
        + " ".join(f"--{key} {value}" for key, value in vars(options).items() if key != "out"),
        "held_out_accuracy": f"{right:.4f}",
    }
    save_file(weights, options.out, metadata)
    print(
        f"wrote {options.out} ({options.out.stat().st_size / 1e6:.2f} MB) after {(time.time() - started) / 60:.1f} min"
    )


if __name__ == "__main__":
    main()
