"""Export a recognizer as one ONNX graph: images and a class table in, class scores and attribute scores out.

The class table is an input, so classes can change without a new export. The graph contains everything that determines
the numbers: normalization of the image, backbone, rounding of the regions, method, and the class vectors in the
method's form. Resizing, cropping and the confidence are left to the caller; a JSON file beside the graph has the
parameters.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.files import write_arrays, write_json
from unseen.methods import ClassSpace
from unseen.methods.base import Branch
from unseen.model.assembled import EndToEnd
from unseen.model.scoring import ClassScorer
from unseen.model.support import pooled
from unseen.model.trained import TrainedModel
from unseen.version import __version__

FORMAT = 1
TOLERANCE = 1e-4
"""Largest accepted difference of scores and attribute scores from torch, relative to the largest of them."""
MAP_TOLERANCE = 1e-3
"""The same for maps: a single region's features may round differently, by 5e-4 in float16."""
INPUTS = ("images", "class_vectors", "seen")
TRAINED = "trained"
"""A further input if own training images share in class scores, see :class:`unseen.methods.ClassSpace`."""
GIVEN = ("attribute_shares", "image_prototypes", "image_constants")
"""Further inputs, one row per class, if classes have support images (:mod:`unseen.model.support`)."""
SCORES = ("scores", "attribute_scores")
_EXTRA = "pip install 'unseen[export]'"


class _TracedClasses(ClassSpace):
    """Number of classes whose derived vectors the graph computes in each call."""

    @property
    def unit(self) -> Tensor:
        return nn.functional.normalize(self.vectors, dim=1)

    @property
    def unit_nonnegative(self) -> Tensor:
        return nn.functional.normalize(self.vectors.clamp(min=0), dim=1)


class Graph(nn.Module):
    """The exported function of tensors.

    Args:
        model: recognizer; its backbone and method are in evaluation mode, on the CPU.
        maps: also return attention and contributions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: TrainedModel, maps: bool = False) -> None:
        super().__init__()
        self.method = model.method
        self.backbone = None if model.method.end_to_end else model.backbone
        self.store_dtype = getattr(torch, model.store_dtype)
        self.grid = model.backbone.grids[-1]
        self.maps = maps
        transform = model.backbone.transform
        self.register_buffer("mean", torch.tensor(transform.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(transform.std).view(3, 1, 1))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of :meth:`forward`."""
        return INPUTS if self.method.own_query is None else (*INPUTS, TRAINED)

    def forward(
        self, images: Tensor, class_vectors: Tensor, seen: Tensor, trained: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Scores, in the order of :meth:`outputs`.

        Args:
            images: uint8 ``(B, S, S, 3)``, RGB, resized and cropped.
            class_vectors: float32 ``(N, K)`` attribute values in the table's unit.
            seen: bool ``(N,)``.
            trained: int64 ``(N,)`` position of each class among the classes trained on, or -1.
        """
        return self._answers(self._inputs(images), class_vectors, seen, trained)

    def _inputs(self, images: Tensor) -> Tensor:
        """Inputs of the method."""
        inputs: Tensor = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return inputs if self.backbone is None else self.backbone(inputs)[0].to(self.store_dtype).float()

    def _answers(
        self, inputs: Tensor, class_vectors: Tensor, seen: Tensor, trained: Tensor | None
    ) -> tuple[Tensor, ...]:
        classes = _TracedClasses(class_vectors, seen, None, torch.zeros_like(seen, dtype=torch.int64) - 1)
        if trained is not None:
            classes = _TracedClasses(class_vectors, seen, None, trained)
        method = self.method
        branches = method.maps(inputs) if self.maps else method(method.prepare(inputs))
        found = [method.class_scores(branches, classes), method.fused_attribute_scores(branches)]
        if self.maps:
            found += [self._on_grid(method.fused_contributions(branches))]
            found += [self._on_grid(attention) for attention in _attention(branches).values()]
        return tuple(found)

    def _on_grid(self, values: Tensor) -> Tensor:
        result: Tensor = values.unflatten(2, self.grid)
        return result

    @torch.inference_mode()
    def outputs(self) -> list[str]:
        """Names of the results of :meth:`forward`; with maps, the sub-nets' attention comes last."""
        if not self.maps:
            return list(SCORES)
        size = self.backbone.transform.size if self.backbone is not None else self._image_size()
        inputs = torch.zeros(1, 3, size, size)
        branches = self.method.maps(inputs if self.backbone is None else self.backbone(inputs)[0])
        return [*SCORES, "contributions", *_attention(branches)]

    def _image_size(self) -> int:
        backbone: Any = self.method.backbone
        return int(backbone.transform.size)


class GraphWithImages(Graph):
    """The same for classes with support images (:mod:`unseen.model.support`)."""

    def __init__(self, model: TrainedModel, maps: bool = False) -> None:
        super().__init__(model, maps)
        self.preparation = model.space.preparation

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of :meth:`forward`."""
        return (*INPUTS, *GIVEN, *super().inputs[len(INPUTS) :])

    def forward(  # type: ignore[override]
        self,
        images: Tensor,
        class_vectors: Tensor,
        seen: Tensor,
        attribute_shares: Tensor,
        image_prototypes: Tensor,
        image_constants: Tensor,
        trained: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Like :meth:`Graph.forward`; attribute_shares * scores + <v, image_prototypes> + image_constants.

        Args:
            images, class_vectors, seen, trained: as there.
            attribute_shares: float32 ``(N,)``; 1 for a class without images.
            image_prototypes: float32 ``(N, C)``; 0 for a class without images.
            image_constants: float32 ``(N,)``; likewise.
        """
        inputs = self._inputs(images)
        scores, *others = self._answers(inputs, class_vectors, seen, trained)
        regions = self.method.regions(inputs) if isinstance(self.method, EndToEnd) else inputs
        vectors = self.preparation(pooled(regions))
        return attribute_shares * scores + vectors @ image_prototypes.T + image_constants, *others


def given_images(model: TrainedModel) -> dict[str, np.ndarray]:
    """The inputs :data:`GIVEN` for the table's classes; empty if no class has support images."""
    own = model.own_images
    if own is None:
        return {}
    prototypes = np.zeros((len(model.table), model.space.channels), np.float32)
    constants = np.zeros(len(model.table), np.float32)
    factor, constant = own.terms
    prototypes[own.positions] = factor[:, None] * own.prototypes.cpu().numpy()
    constants[own.positions] = constant
    return dict(zip(GIVEN, (own.keep.astype(np.float32), prototypes, constants), strict=True))


def _attention(branches: dict[str, Branch]) -> dict[str, Tensor]:
    return {f"attention_{name}": b.attention for name, b in branches.items() if b.attention is not None}


@dataclass(frozen=True)
class Exported:
    """Files of an export.

    Args:
        model: file of the graph.
        facts: JSON with everything else that a program needs.
        classes: class table, with all attribute values.
        images: arrays of the support images' contribution; ``None`` if no class has any.
        differences: largest difference of each output from torch, see :func:`difference_from_torch`; empty if not
            compared.
    """

    model: Path
    facts: Path
    classes: Path
    images: Path | None
    differences: dict[str, float]


def export_onnx(
    model: TrainedModel,
    path: Path | str,
    *,
    opset: int | None = None,
    maps: bool = False,
    check: bool = True,
    external_data: bool | None = None,
) -> Exported:
    """Write ``NAME.onnx``, ``NAME.json``, ``NAME-classes.csv`` and, with support images, ``NAME-images.npz``.

    Args:
        model: recognizer on the CPU.
        path: file of the graph, ending in ``.onnx``.
        opset: ONNX operator set; by default torch's.
        maps: further outputs: contribution of each region to each attribute score, and attention.
        check: compare with torch in onnxruntime before writing anything.
        external_data: write weights to their own file, ``NAME.onnx.data``; by default if ONNX requires it, from about 2
            GB.

    Raises:
        UnseenError: the extra is not installed, the method reads texts of classes, or the graph differs from torch.
    """
    path = Path(path)
    _possible(model, path)
    own = given_images(model)
    graph = (GraphWithImages if own else Graph)(model, maps).eval()
    names = graph.outputs()
    example = _example(model, graph, 2, 3)
    axes: Any = {name: {0: "B" if name == "images" else "N"} for name in graph.inputs}
    options: dict[str, Any] = {} if opset is None else {"opset_version": opset}
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=names,
            dynamic_shapes=axes,
            verbose=False,
            **options,
        )
    given = program.model.opset_imports[""]
    if opset is not None and given != opset:
        raise UnseenError(f"opset {opset} does not support this graph", where="--opset", hint=f"pass {given}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            program.save(Path(folder) / path.name, external_data=external_data)
            differences = difference_from_torch(model, Path(folder) / path.name, graph) if check else {}
            for name, difference in differences.items():
                if difference > (TOLERANCE if name in SCORES else MAP_TOLERANCE):
                    raise UnseenError(f"{name} differ from torch by {difference:.1e} of the largest", where=path)
            for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph follows its data
                file.replace(path.parent / file.name)
    except OSError as error:
        raise UnseenError(
            error.strerror or str(error), where=path, hint="free some disk space, then repeat the command"
        ) from None
    images = path.with_name(f"{path.stem}-images.npz")
    exported = Exported(
        path,
        path.with_suffix(".json"),
        path.with_name(f"{path.stem}-classes.csv"),
        images if own else None,
        differences,
    )
    replace(model.table, former={}).to_csv(exported.classes, trained=TRAINED in graph.inputs)
    if own:
        write_arrays(images, classes=np.array(model.table.names), **own)
    else:
        images.unlink(missing_ok=True)  # of an earlier export
    write_json(exported.facts, _facts(model, exported, given, names, graph))
    return exported


def difference_from_torch(model: TrainedModel, path: Path, graph: Graph) -> dict[str, float]:
    """Largest difference between onnxruntime and the model on random images, for each output.

    Uses 1 and 5 images, with the table's classes and with two more. The unit is torch's largest value of the output;
    for contributions, which sum to attribute scores, it is the largest attribute score.
    """
    _needs("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    for images, more in ((1, 0), (5, 2)):
        example = _example(model, graph, images, len(model.table) + more)
        expected = _expected(model, graph, names, example)
        given = {name: value.numpy() for name, value in zip(graph.inputs, example, strict=True)}
        for name, found in zip(names, session.run(None, given), strict=True):
            if expected[name].shape != found.shape:
                raise UnseenError(f"{name} {found.shape} where torch gives {expected[name].shape}", where=path)
            unit = np.abs(expected["attribute_scores" if name == "contributions" else name]).max()
            worst[name] = max(worst[name], float(np.abs(expected[name] - found).max() / max(unit, 1e-12)))
    return worst


def _expected(
    model: TrainedModel, graph: Graph, names: list[str], example: tuple[Tensor, ...]
) -> dict[str, np.ndarray]:
    """Expected outputs: scores as the model computes them, maps as the graph does in torch."""
    entries = dict(zip(graph.inputs, example, strict=True))
    images, vectors, seen = example[:3]
    with torch.inference_mode():
        expected = dict(zip(names, (value.numpy() for value in graph(*example)), strict=True))
        answer = model.answer(model.inputs(images.permute(0, 3, 1, 2).contiguous()))
        trained = entries.get(TRAINED)
        space = ClassSpace(vectors, seen) if trained is None else ClassSpace(vectors, seen, None, trained)
        scores = ClassScorer(model.method, space).scores(answer.query)
        if GIVEN[0] in entries:
            assert answer.pooled is not None
            keep, prototypes, constants = (entries[name].double().numpy() for name in GIVEN)
            features = model.space.vectors(answer.pooled).double().numpy()
            scores = keep * scores + features @ prototypes.T + constants
        expected["scores"] = scores
    expected["attribute_scores"] = answer.attribute_scores
    return expected


def _example(model: TrainedModel, graph: Graph, images: int, classes: int) -> tuple[Tensor, ...]:
    """Random images, and the given number of rows of the class table, repeated if necessary."""
    size, table = model.backbone.transform.size, model.table
    generator = torch.Generator().manual_seed(images)
    pixels = torch.randint(0, 256, (images, size, size, 3), dtype=torch.uint8, generator=generator)
    rows = np.arange(classes) % len(table)
    every = {
        "images": pixels,
        "class_vectors": torch.from_numpy(table.values[rows]).float(),
        "seen": torch.from_numpy(table.seen[rows]),
        TRAINED: torch.from_numpy(table.images_of[rows]),
        **{name: torch.from_numpy(value[rows]) for name, value in given_images(model).items()},
    }
    return tuple(every[name] for name in graph.inputs)


def _facts(model: TrainedModel, exported: Exported, opset: int, outputs: list[str], graph: Graph) -> dict[str, Any]:
    transform = model.backbone.transform
    return {
        "format": FORMAT,
        "unseen": __version__,
        "opset": opset,
        "model": exported.model.name,
        "classes": exported.classes.name,
        "class_images": None if exported.images is None else exported.images.name,
        "inputs": list(graph.inputs),
        "outputs": outputs,
        "image": {
            "size": transform.size,
            "short_side": transform.short_side,
            "interpolation": "bicubic",
            "background": "white",
        },
        "normalization": {"mean": list(transform.mean), "std": list(transform.std), "in_graph": True},
        "attributes": list(model.table.attributes.names),
        "gamma": model.gamma,
        "temperature": model.temperature or 1.0,
        "calibrated": model.temperature is not None,
        "threshold": model.threshold,
        "rank_thresholds": {rank: vars(one) for rank, one in model.rank_thresholds.items()},
        "method": model.method.name,
        "differences_from_torch": exported.differences,
        "about": model.about,
    }


def check_path(path: Path) -> None:
    """Raise an :class:`UnseenError` if a graph cannot have this name."""
    if path.suffix != ".onnx":
        raise UnseenError("not an .onnx file", where=path, hint="use a file name that ends in .onnx")


def _possible(model: TrainedModel, path: Path) -> None:
    check_path(path)
    _needs("onnx", "onnxscript")
    if model.device.type != "cpu":
        raise UnseenError("only a model on the CPU can be exported", hint='load the model with device="cpu"')
    settings = model.method.settings
    if model.method.reads_text and settings.mode != "scores":
        raise UnseenError(
            f"{model.method.name} in mode {settings.mode} uses class texts, not the class table",
            hint="train with --set mode=scores",
        )


def _needs(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UnseenError(f"needs {' and '.join(missing)}", where="export", hint=_EXTRA)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of the exporter about its own internals."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [log.level for log in logs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in logs:
            log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)
