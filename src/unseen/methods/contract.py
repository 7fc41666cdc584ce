"""Check that a method keeps to the interface: its class when it is first named, and its numbers on a few images.

The methods of this package have tests for that. A method of somebody else's could break the interface without any
error: weights that its file does not hold, or class vectors that depend on other classes, would only give other answers
than its test.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from unseen.errors import UnseenError
from unseen.ground.outside import path_of
from unseen.methods.base import Branch, ClosedFormMethod, GradientMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Ablation, Preset, Settings

HOOKS = {
    Method: {"forward": "regions", "fused_attribute_scores": "branches", "maps": "regions"},
    GradientMethod: {"loss": "branches, labels, classes"},
    ClosedFormMethod: {"fit": "regions, labels, classes", "grid": "", "use": "candidate"},
}
"""Hooks without a default, with their arguments after ``self``."""
CLOSE = 1e-3
"""Largest difference of numbers that should be equal, relative to the largest of them."""


def check_class(kind: type[Method]) -> None:
    """Check a class that has a name.

    Raises:
        UnseenError: a hook is missing, takes other arguments, or is not used; or its settings or presets are not valid.
    """
    if not issubclass(kind, GradientMethod | ClosedFormMethod):
        _refuse(kind, "has no kind of training", "derive it from unseen.GradientMethod or unseen.ClosedFormMethod")
    if not _takes(kind, "channels, vectors, settings, generator"):
        _refuse(kind, "cannot be created", "define __init__(self, channels, vectors, settings, generator=None)")
    if not kind.end_to_end and (kind.prepare is Method.prepare or not _takes(kind.prepare, "regions")):
        _refuse(kind, "has no static prepare", "define it as @staticmethod prepare(regions)")
    for base, hooks in HOOKS.items():
        for name, arguments in hooks.items() if issubclass(kind, base) else ():
            given = f"self, {arguments}".rstrip(", ")
            bound = isinstance(inspect.getattr_static(kind, name, None), staticmethod | classmethod)
            if getattr(kind, name) is getattr(base, name) or not _takes(
                getattr(kind, name), arguments if bound else given
            ):
                _refuse(kind, f"has no {name}({given})", "define it, see the table of hooks in the docs")
    if kind.class_scores is not Method.class_scores:
        hint = "define class_vectors, or query, class_embeddings and class_offsets instead"
        _refuse(kind, "defines class_scores, which predictions do not call", hint)
    _check_settings(kind)
    for name, preset in getattr(kind, "presets", {}).items():
        if not isinstance(preset, Preset) or (preset.recipe is None) != issubclass(kind, ClosedFormMethod):
            hint = "use Preset(settings, Recipe(...), source), with None as the recipe of a closed form"
            _refuse(kind, f'its preset "{name}" is not valid', hint)
    hint = 'use unseen.Ablation("what it takes away", {"setting": value})'
    if not isinstance(kind.ablations, Mapping):
        _refuse(kind, "its ablations are no dict", f"from the name of a row, {hint}")
    for name, ablation in kind.ablations.items():
        if not isinstance(ablation, Ablation):
            _refuse(kind, f'its ablation "{name}" is not valid', hint)


def _check_settings(kind: type[Method]) -> None:
    settings, wanted = kind.settings_class, "@dataclass(frozen=True, kw_only=True)"
    if not inspect.isclass(settings) or not issubclass(settings, Settings):
        _refuse(kind, "its settings_class is not valid", "pass a subclass of unseen.Settings")
    for base in settings.__mro__:
        if issubclass(base, Settings) and inspect.get_annotations(base) and "__dataclass_fields__" not in vars(base):
            _refuse(kind, f"{base.__name__} is not a dataclass", f"put {wanted} before it")
    try:
        made = settings()
    except TypeError:
        _refuse(kind, f"a setting of {settings.__name__} has no default", "give every setting one")
    for name, value in vars(made).items():
        values = value if isinstance(value, tuple) and value else (value,)
        if not all(isinstance(one, bool | int | float | str) for one in values):
            _refuse(kind, f"setting {name} is {value!r}", "use true or false, a number, text, or a tuple of numbers")


def _takes(function: Any, arguments: str) -> bool:
    try:
        inspect.signature(function).bind(*filter(None, arguments.split(", ")))
    except TypeError:
        return False
    return True


def try_method(
    kind: type[Method], make: Callable[[int], Method], regions: Tensor, labels: Tensor, classes: ClassSpace
) -> None:
    """Run a method on frozen features on a few images.

    Args:
        kind: its class.
        make: creates it with the initial weights of a seed.
        regions: raw regions ``(B, R, C)`` of images of several classes.
        labels: ``(B,)`` positions in ``classes``.
        classes: N classes.

    Raises:
        UnseenError: it breaks the interface.
    """
    method, x = make(0), kind.prepare(regions)
    if not isinstance(getattr(method, "settings", None), Settings):
        _refuse(kind, "does not keep its settings", "set self.settings = settings in __init__")
    if not isinstance(x, Tensor) or len(x) != len(regions):
        _refuse(kind, "prepare returns no tensor with a row per image", "return prepared regions (B, R', C)")
    vectors = len(classes.vectors.T)
    if isinstance(method, GradientMethod):
        if not _worked(lambda: method.start([(x, labels)], classes)):
            return
        _check_loss(kind, method.train(), x, labels, classes, vectors)
    elif isinstance(method, ClosedFormMethod) and not _solved(kind, method, x, labels, classes):
        return
    with torch.no_grad():
        branches = _branches(kind, method.eval(), x, vectors)
        if not all(one.attribute_scores.isfinite().all() for one in branches.values()):
            return
        _check_classes(kind, method, method.query(branches), classes)
        _check_maps(kind, method, regions, method.fused_attribute_scores(branches))
        _check_kept(kind, method, make(1).eval(), x)


def _worked(step: Callable[[], object]) -> bool:
    """Whether a step succeeds; it may need more images than these few, so training is left to tell of an error."""
    try:
        step()
    except UnseenError:
        raise
    except Exception:
        return False
    return True


def _branches(kind: type[Method], method: Method, x: Tensor, vectors: int) -> dict[str, Branch]:
    found: Any = method(x)
    shape = (len(x), vectors)
    if not isinstance(found, dict) or not found or not all(isinstance(one, Branch) for one in found.values()):
        _refuse(kind, "forward returns no branches", "return a dict from names to unseen.Branch(attribute_scores)")
    shapes = {name: tuple(one.attribute_scores.shape) for name, one in found.items()}
    shapes["fused_attribute_scores"] = tuple(method.fused_attribute_scores(found).shape)
    for name, given in shapes.items():
        if given != shape:
            _refuse(kind, f"{name} has attribute scores {given} for {shape}", "return one per image and attribute")
    return found


def _check_loss(
    kind: type[Method], method: GradientMethod, x: Tensor, labels: Tensor, classes: ClassSpace, vectors: int
) -> None:
    if not any(p.requires_grad for p in method.parameters()):
        _refuse(kind, "has no parameter to train", "register its weights as nn.Parameter")
    terms: Any = method.loss(_branches(kind, method, x, vectors), labels, classes)
    if not isinstance(terms, dict) or "total" not in terms:
        _refuse(kind, "loss has no total", 'return a dict from names to scalars with "total", which is differentiated')
    wrong = [name for name, term in terms.items() if not isinstance(term, Tensor) or term.ndim]
    if wrong or not terms["total"].requires_grad:
        _refuse(
            kind, f'its loss "{(*wrong, "total")[0]}" is not valid', "make every term a scalar tensor with gradients"
        )


def _solved(kind: type[Method], method: ClosedFormMethod, x: Tensor, labels: Tensor, classes: ClassSpace) -> bool:
    """Whether a candidate has a solution for these few images."""
    if not _worked(lambda: method.fit(x, labels, classes)):
        return False
    grid: Any = method.grid()
    try:
        fine = isinstance(grid, list) and all(isinstance(one, dict) for one in grid) and json.dumps(grid) != "[]"
    except TypeError:
        fine = False
    if not fine:
        _refuse(kind, "its grid is not valid", "return a list of dicts from names to numbers, such as float(value)")
    for candidate in grid:
        try:
            method.use(candidate)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # public, says torch's documentation
            continue
        if all(value.isfinite().all() for value in method.state_dict().values() if value.is_floating_point()):
            return True
    return False


def _check_classes(kind: type[Method], method: Method, query: Tensor, classes: ClassSpace) -> None:
    """Each row of the class embeddings must come from its own class."""
    count = len(classes.vectors)
    rows = torch.arange(0, count, 2, device=classes.vectors.device)
    some = ClassSpace(classes.vectors[rows], classes.seen[rows], None, classes.trained[rows])
    for name in ("class_vectors", "class_embeddings", "class_offsets"):
        every, own = getattr(method, name)(classes), getattr(method, name)(some)
        if every is None:
            continue
        if len(every) != count:
            _refuse(kind, f"{name} has {len(every)} rows for {count} classes", "return one per class")
        if len(own) != len(rows) or not _close(every[rows], own):
            hint = "compute each row from its own class, and keep what all share as a buffer"
            _refuse(kind, f"{name} of a class depends on the other classes", hint)
    width = method.class_embeddings(classes).shape[1]
    if query.shape[1] != width:
        _refuse(kind, f"query has {query.shape[1]} columns, and class_embeddings {width}", "make them equal")


def _check_maps(kind: type[Method], method: Method, regions: Tensor, scores: Tensor) -> None:
    """What regions contribute must add up to the attribute scores."""
    branches = method.maps(regions)
    shape = (*scores.shape, regions.shape[1])
    for name, one in branches.items():
        for part, given in (("contributions", one.contributions), ("attention", one.attention)):
            if given is None and part == "attention":
                continue
            found = None if given is None else tuple(given.shape)
            if found != shape:
                _refuse(
                    kind, f'maps: {part} of "{name}" are {found} for {shape}', "return one per attribute and region"
                )
    if not _close(method.fused_contributions(branches).sum(dim=2), scores):
        hint = "maps gets regions before prepare; fuse branches linearly"
        _refuse(kind, "contributions of maps do not add up to the attribute scores", hint)


def _check_kept(kind: type[Method], method: Method, again: Method, x: Tensor) -> None:
    """Another instance with its weights must answer the same."""
    hint = "register what training changes as nn.Parameter, or in its final shape with register_buffer"
    try:
        again.load_state_dict(method.state_dict())
    except RuntimeError as error:
        _refuse(kind, f"its weights cannot be loaded ({str(error).splitlines()[-1].strip()})", hint)
    if not _close(again.query(again(x)), method.query(method(x))):
        _refuse(kind, "answers differently after its weights are saved and loaded", hint)


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(torch.cat([one.flatten(), other.flatten()]).abs().max()) if len(one) else 0.0
    return one.shape == other.shape and bool(((one - other).abs() <= CLOSE * scale).all())


def _refuse(kind: type[Method], problem: str, hint: str) -> NoReturn:
    raise UnseenError(problem, where=path_of(kind), hint=hint)
