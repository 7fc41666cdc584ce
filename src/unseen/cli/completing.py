"""Shell completion beyond files: methods, datasets, runs, backbones and other names, without slow imports."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import unseen

BACKBONES = (
    *("fieldguide", "resnet50.tv_in1k", "resnet101.tv_in1k", "mobilenetv2_100.ra_in1k", "convnext_tiny.fb_in22k"),
    *("vit_small_patch14_reg4_dinov2.lvd142m", "vit_base_patch14_reg4_dinov2.lvd142m"),
    *(
        "vit_base_patch16_siglip_224.v2_webli",
        "hf:openai/clip-vit-base-patch32",
        "hf:google/siglip2-base-patch16-224",
        "hf:imageomics/bioclip-2",
    ),
)
"""Some of timm's and the hub's models; any other one can be typed."""
NAMED = {
    "tracker": ("tensorboard", "wandb", "mlflow", "trackio"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "pixels": ("exact", "fast"),
    "folds": ("random", "axes"),
    "engine": ("auto", "torch", "onnxruntime", "openvino"),
    "among": ("all", "seen", "unseen"),
    "protocol": ("honest", "paper", "both"),
}


@cache
def method_names() -> tuple[str, ...]:
    """Names of the methods, read from their source as text, since importing them would take seconds."""
    found = {entry.name for entry in entry_points(group="unseen.methods")}
    for path in (Path(unseen.__file__).parent / "methods").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any("register_method" in ast.unparse(d) for d in node.decorator_list):
                found |= set(_name_of(node))
    return tuple(sorted(found))


def _name_of(node: ast.ClassDef) -> Iterator[str]:
    for line in node.body:
        targets = [line.target] if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [])
        named = any(isinstance(t, ast.Name) and t.id == "name" for t in targets)
        value = getattr(line, "value", None)
        if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def _folders(roots: tuple[str, ...], holds: Callable[[Path], bool]) -> list[str]:
    inside = (path for root in roots if Path(root).is_dir() for path in sorted(Path(root).iterdir()))
    return [str(path) for path in inside if path.is_dir() and holds(path)]


def runs(incomplete: str) -> list[str]:
    """Runs and saved models here and in ``runs/``, and folders that lead to others."""
    found = _folders((".", "runs"), lambda p: (p / "config.json").is_file() or (p / "recognizer.json").is_file())
    return _begin([*found, *_paths(incomplete)], incomplete)


def datasets(incomplete: str) -> list[str]:
    """Dataset folders here and in ``datasets/``, and the built-in birds."""
    found = _folders((".", "datasets"), lambda p: any(p.glob("classes.*")) or (p / "att_splits.mat").is_file())
    return _begin(["fieldguide", *found, *_paths(incomplete)], incomplete)


def _paths(incomplete: str) -> list[str]:
    """Folders with this prefix."""
    parent = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    if not parent.is_dir():
        return []
    return [f"{path}/" for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def methods(incomplete: str) -> list[str]:
    """Methods."""
    return _begin(list(method_names()), incomplete)


def backbones(incomplete: str) -> list[str]:
    """Frequently used backbones."""
    return _begin(list(BACKBONES), incomplete)


def layouts(incomplete: str) -> list[str]:
    """Layouts of exports, from the modules that read them."""
    found = [p.stem.replace("_", "-") for p in (Path(unseen.__file__).parent / "data/layouts").glob("*.py")]
    plain = {"--init--", "entries", "importing", "sheets", "source"}
    return _begin(sorted({*found, "traits-long"} - plain), incomplete)


def one_of(kind: str) -> Callable[[str], list[str]]:
    """Complete one of :data:`NAMED`."""

    def complete(incomplete: str) -> list[str]:
        return _begin(list(NAMED[kind]), incomplete)

    return complete


def _begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
