"""Support images: images of a class as evidence beside its attributes, without retraining; their space and rule.

With f the mean-pooled raw regions of an image, whitened by the training images (:mod:`unseen.methods.preparation`) to a
unit vector v, and p_c the normalized mean of the vectors of the n images of class c::

    S'_c = (1 - w) (S_c - gamma [c seen]) + w (a <v, p_c> + b) + d / (n + k)      w = n / (n + k)

S_c is the method's class score, gamma the calibration offset. S'_c is the posterior mean of a normal model of the
class's prototype, on the scale of the class scores: the attributes are the prior and count as k images. Without images
w is 0 and S'_c is the method's score. As n grows, attributes and gamma fade out, for seen and for unseen classes. A
class without attributes has a constant prior S_0 that counts as k_0 images.

k, a, b, d, k_0 and S_0 are chosen on validation classes (:mod:`unseen.training.support`). Ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from unseen.classes.changes import IMAGES
from unseen.errors import DataError, RunError
from unseen.ground.checked import checked
from unseen.ground.tensors import load_tensors, save_tensors
from unseen.methods.preparation import FeaturePreparation


def space_beside(weights: Path) -> Path:
    """File of a model's space: ``honest-images.safetensors`` beside the weights ``honest.safetensors``."""
    return weights.with_name(f"{weights.stem}-images.safetensors")


def pooled(regions: Tensor) -> Tensor:
    """``(B, C)`` mean of raw regions ``(B, R, C)``, scaled to unit length, float32."""
    return F.normalize(regions.float().mean(dim=1), dim=-1)


@dataclass(frozen=True)
class SupportRule:
    """How images and attributes of a class combine to one score; see the module's docstring.

    Args:
        prior: k, number of images that the attributes count as.
        scale: a.
        offset: b.
        few: d, fades out with more images.
        bare_prior: k_0, number of images that the constant of a class without attributes counts as.
        bare_score: S_0, score of a class without attributes.
        together: number of support images that an image of a batch counts as when predicting together, see
            :mod:`unseen.model.together`; 0 if this does not help.
    """

    prior: float
    scale: float
    offset: float
    few: float
    bare_prior: float
    bare_score: float
    together: float = 0.0

    def __post_init__(self) -> None:
        if (
            not all(map(math.isfinite, vars(self).values()))
            or min(self.prior, self.bare_prior) <= 0
            or self.together < 0
        ):
            raise ValueError("no rule: numbers that are not finite, or a prior of 0")

    def terms(self, count: np.ndarray, attributes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weight of S_c - gamma, factor of <v, p_c>, and constant, each ``(N,)``.

        Args:
            count: n of each class.
            attributes: bool ``(N,)``, whether a class has attributes.
        """
        prior = np.where(attributes, self.prior, self.bare_prior)
        keep = prior / (count + prior)
        rest = np.where(attributes, self.few / (count + prior), keep * self.bare_score)
        constant = np.where(count > 0, (1 - keep) * self.offset + rest, 0.0)
        return np.where(attributes, keep, 0.0), (1 - keep) * self.scale, constant


@dataclass(frozen=True, eq=False)
class SupportSpace:
    """The space in which support images are compared, with the rule.

    Args:
        preparation: fitted to training images.
        rule: chosen on validation classes.
    """

    preparation: FeaturePreparation
    rule: SupportRule

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return len(self.preparation.mean)

    @torch.inference_mode()
    def vectors(self, features: Tensor) -> Tensor:
        """v: float32 ``(B, C)`` of :func:`pooled` features ``(B, C)``, unit length, on their device."""
        if self.preparation.mean.device != features.device:
            self.preparation.to(features.device)
        found: Tensor = self.preparation(features.float())
        return found

    def save(self, path: Path) -> None:
        """Write the space as safetensors, with the rule as JSON in it, atomically."""
        save_tensors(path, self.preparation.state_dict(), {"rule": json.dumps(asdict(self.rule))})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is missing, damaged or of another kind.
        """
        try:
            tensors, texts = load_tensors(path)
            rule = checked(SupportRule, json.loads(texts["rule"]), path, error=RunError, hint="train again")
            preparation = FeaturePreparation()
            preparation.load_state_dict(tensors)
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise RunError(f"damaged ({error})", where=path, hint="train again") from None
        return cls(preparation, rule)


def fitted(features: Tensor, labels: Tensor) -> FeaturePreparation:
    """Whitening of training images, from :func:`pooled` features ``(n, C)`` and labels ``(n,)``."""
    preparation = FeaturePreparation()
    preparation.fit("whitened", features.float(), labels)
    return preparation


@dataclass(frozen=True)
class SupportImage:
    """Origin of a support image.

    Args:
        file: path as given; ``""`` for pixels.
        sha256: SHA-256 of the file, or of the pixels.
        added: time of addition, ISO 8601 in UTC; the same for all images added together.
    """

    file: str
    sha256: str
    added: str


@dataclass(frozen=True, eq=False)
class ClassImages:
    """Support images of one class.

    Args:
        images: n of them.
        features: float32 ``(n, C)``, :func:`pooled`.
        attributes: whether the class has attributes; otherwise its row of the class table is meaningless.
    """

    images: tuple[SupportImage, ...]
    features: np.ndarray
    attributes: bool = True

    def without(self, positions: Iterable[int]) -> ClassImages:
        """The same without some images."""
        gone = set(positions)
        kept = [i for i in range(len(self.images)) if i not in gone]
        return replace(self, images=tuple(self.images[i] for i in kept), features=self.features[kept])


@dataclass(frozen=True, eq=False)
class Support:
    """Support images by class name; immutable, changes return a new instance."""

    classes: Mapping[str, ClassImages] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.classes)

    def __getitem__(self, name: str) -> ClassImages:
        return self.classes.get(name, _NONE)

    @cached_property
    def digests(self) -> frozenset[str]:
        """SHA-256 of all images."""
        return frozenset(image.sha256 for mine in self.classes.values() for image in mine.images)

    def added(
        self, name: str, images: Sequence[SupportImage], features: np.ndarray, attributes: bool | None = None
    ) -> tuple[Support, list[SupportImage]]:
        """Add images of a class. Images that it already has, by content, are skipped and returned.

        Args:
            name: name of the class.
            images: n of them.
            features: float32 ``(n, C)``.
            attributes: whether the class has attributes; by default unchanged.
        """
        mine = self[name]
        known = {image.sha256 for image in mine.images}
        fresh: list[int] = []
        again: list[int] = []
        for i, image in enumerate(images):
            (again if image.sha256 in known else fresh).append(i)
            known.add(image.sha256)
        features = features[fresh].astype(np.float32)
        joined = ClassImages(
            (*mine.images, *(images[i] for i in fresh)),
            np.concatenate([mine.features, features]) if len(mine.images) else features,
            mine.attributes if attributes is None else attributes,
        )
        return self._with(name, joined), [images[i] for i in again]

    def removed(self, name: str, files: Sequence[str] | None = None) -> Support:
        """Remove images of a class.

        Args:
            name: name of the class.
            files: paths as given, file names, or prefixes of a SHA-256; by default all.

        Raises:
            DataError: no such image, or a class without attributes would keep no image.
        """
        mine = self[name]
        gone = range(len(mine.images)) if files is None else [_position(mine, file, name) for file in files]
        return self._left(name, mine.without(gone))

    def undone(self, name: str) -> Support:
        """Remove the images of a class that were added last.

        Raises:
            DataError: the class has none, or a class without attributes would keep no image.
        """
        mine = self[name]
        if not mine.images:
            raise DataError(f'"{name}" has no images', hint=f'unseen classes images RUN "{name}" FILE...')
        last = max(image.added for image in mine.images)
        return self._left(name, mine.without(i for i, image in enumerate(mine.images) if image.added == last))

    def described(self, name: str) -> Support:
        """Mark a class as having attributes."""
        return self if self[name].attributes else self._with(name, replace(self[name], attributes=True))

    def renamed(self, old: str, new: str) -> Support:
        """Rename a class."""
        return Support({new if name == old else name: images for name, images in self.classes.items()})

    def without(self, name: str) -> Support:
        """Remove a class."""
        return Support({n: images for n, images in self.classes.items() if n != name})

    def _left(self, name: str, images: ClassImages) -> Support:
        if not images.images and not images.attributes:
            problem = f'"{name}" has no attributes, and would have no image left'
            raise DataError(problem, hint="remove the class, or give it attributes first")
        return self._with(name, images) if images.images else self.without(name)

    def _with(self, name: str, images: ClassImages) -> Support:
        return Support({**self.classes, name: images})

    def save(self, path: Path, *, names_only: bool = False) -> None:
        """Write features as safetensors, with the provenance as JSON in it, atomically.

        Args:
            path: file to write.
            names_only: store file names without folders, for a model that leaves this machine.
        """
        about = [
            _Provenance(
                name,
                mine.attributes,
                [replace(image, file=_name_of(image.file)) if names_only else image for image in mine.images],
            )
            for name, mine in self.classes.items()
        ]
        features = {str(i): torch.from_numpy(mine.features) for i, mine in enumerate(self.classes.values())}
        save_tensors(path, features, {"images": json.dumps([asdict(mine) for mine in about])})

    @classmethod
    def load(cls, path: Path) -> Support:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is damaged or of another kind.
        """
        hint = "restore it, or delete it and add the images again"
        try:
            tensors, texts = load_tensors(path)
            about = checked(list[_Provenance], json.loads(texts["images"]), path, error=RunError, hint=hint)
            found = {}
            for i, mine in enumerate(about):
                features = tensors[str(i)].numpy()
                if features.ndim != 2 or len(features) != len(mine.images) or features.dtype != np.float32:
                    raise ValueError(f'features of "{mine.name}" do not fit its images')
                found[mine.name] = ClassImages(tuple(mine.images), features, mine.attributes)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RunError(f"damaged ({error})", where=path, hint=hint) from None
        return cls(found)


@dataclass(frozen=True)
class _Provenance:
    """What is stored of a class's images beside their features."""

    name: str
    attributes: bool
    images: list[SupportImage]


_NONE = ClassImages((), np.zeros((0, 0), np.float32))


def _name_of(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]


def _position(mine: ClassImages, file: str, name: str) -> int:
    for matches in (
        [i for i, image in enumerate(mine.images) if image.file == file],
        [i for i, image in enumerate(mine.images) if image.file and _name_of(image.file) == _name_of(file)],
        [i for i, image in enumerate(mine.images) if len(file) >= 6 and image.sha256.startswith(file)],
    ):
        if len(matches) == 1:
            return matches[0]
    raise DataError(f'"{file}" is not an image of "{name}"', hint=f'unseen classes images RUN "{name}" lists them')


def read_support(folder: Path) -> Support:
    """Read the support images of a model's folder; empty if there are none."""
    return Support.load(folder / IMAGES) if (folder / IMAGES).is_file() else Support()


def keep_support(folder: Path, support: Support, *, names_only: bool = False) -> None:
    """Keep them in the folder, inside :func:`unseen.classes.changes.changing`; without any, no file."""
    if support:
        support.save(folder / IMAGES, names_only=names_only)
    else:
        (folder / IMAGES).unlink(missing_ok=True)


class OwnImages:
    """Effect of support images on scores: :attr:`keep` times the score, plus the contribution of the images.

    Args:
        names: N class names, in the order of the table.
        support: support images of some of these classes; others are ignored.
        space: space in which they are compared.
        block: number of classes in a matrix product, so that a score does not depend on which classes have images.
        known: p_c of classes whose images have not changed, for speed.

    Attributes:
        positions: increasing positions of the P classes with images.
        keep: ``(N,)`` weight of score and gamma; 1 without images.
        counts: ``(N,)`` number of images.
        prototypes: float64 ``(P, C)`` p_c.
        terms: factor of <v, p_c> and constant, each ``(P,)``.
        means: p_c by the images of the class.
    """

    def __init__(
        self,
        names: Sequence[str],
        support: Support,
        space: SupportSpace,
        block: int,
        known: Mapping[ClassImages, Tensor] = MappingProxyType({}),
    ) -> None:
        mine = [support[name] for name in names]
        self.counts = np.array([len(images.images) for images in mine])
        self.positions = np.flatnonzero(self.counts)
        attributes = np.array([images.attributes for images in mine])
        self.keep, factor, constant = space.rule.terms(self.counts, attributes)
        self.terms = factor[self.positions], constant[self.positions]
        device = space.preparation.mean.device
        self.means: dict[ClassImages, Tensor] = {}
        for images in (mine[c] for c in self.positions):
            mean = known.get(images)
            if mean is None:
                vectors = space.vectors(torch.from_numpy(images.features).to(device)).double()
                mean = F.normalize(vectors.mean(dim=0), dim=0)
            self.means[images] = mean
        means = [self.means[mine[c]] for c in self.positions]
        self.prototypes = torch.stack(means) if means else torch.zeros(0, space.channels, dtype=torch.float64)
        self._blocks = [F.pad(part, (0, 0, 0, block - len(part))) for part in self.prototypes.split(block) if len(part)]

    def similarities(self, vectors: Tensor) -> np.ndarray:
        """float64 ``(B, P)`` cosines <v, p_c>."""
        asked = vectors.to(self.prototypes.device).double()
        found = torch.cat([asked @ part.T for part in self._blocks], dim=1)
        return found[:, : len(self.positions)].cpu().numpy()

    def evidence(self, vectors: Tensor) -> np.ndarray:
        """float64 ``(B, P)`` contribution of the images to the scores of the classes at :attr:`positions`."""
        factor, constant = self.terms
        result: np.ndarray = self.similarities(vectors) * factor + constant
        return result

    def mixed(self, scores: np.ndarray, vectors: Tensor) -> np.ndarray:
        """Scores from attributes and images, float64 ``(B, N)``.

        Args:
            scores: ``(B, N)`` scores of the method; those of classes without images stay unchanged.
            vectors: v ``(B, C)``.
        """
        mixed, here = scores.copy(), self.positions
        mixed[:, here] = self.keep[here] * scores[:, here] + self.evidence(vectors)
        return mixed
