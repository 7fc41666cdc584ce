"""CLIP and SigLIP zero-shot: images compared with texts (Radford et al., ICML 2021; Zhai et al., ICCV 2023).

v is the unit embedding of the image. The score of a class is the cosine of v and the class's text embedding, which is
the mean of the unit embeddings of its sentences. The mode determines the sentences:

* ``names``: every template with the class's name, as CLIP does.
* ``attributes``: no name. The attributes in which the class exceeds the average class most, a sentence each (or a few
  in each), as Menon and Vondrick (ICLR 2023) do with descriptors that a language model wrote. With one attribute a
  sentence the score is a sum over attributes.
* ``scores``: no name. Every attribute is scored against what it is to be told from (the other values of its group, or a
  sentence without attributes), psi_k = <v, t_k - r_k>, and a class is <psi, z_c> with z_c its centred attribute values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.errors import UnseenError
from unseen.methods.base import Branch, Card, ClosedFormMethod
from unseen.methods.class_space import ClassSpace, Words
from unseen.methods.pooled import pool
from unseen.methods.preparation import region_shares
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, Settings, check_choice

COUNTS = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class CLIPSettings(Settings):
    """Settings of :class:`CLIP`.

    Args:
        mode: ``names``, ``attributes`` or ``scores``; see the module's docstring.
        templates: sentences with ``{}`` for the description, separated by ``|``; their embeddings are averaged.
        kind: what every image shows, for modes without class names, such as "bird".
        attributes: number of attributes that describe a class in mode ``attributes``; 0 chooses from 4, 8, 16, 32.
        per_sentence: number of attributes per sentence in mode ``attributes``.
    """

    mode: str = "names"
    templates: str = "a photo of a {}."
    kind: str = "thing"
    attributes: int = 0
    per_sentence: int = 1

    def __post_init__(self) -> None:
        check_choice(self, "mode", ("names", "attributes", "scores"))
        for template in self.templates.split("|"):
            if template.count("{}") != 1:
                raise UnseenError(
                    f'"{template}" needs exactly one {{}}', where="setting templates", hint='"a photo of a {}."'
                )
        for name, least in (("attributes", 0), ("per_sentence", 1)):
            if getattr(self, name) < least:
                raise UnseenError(
                    f"{getattr(self, name)} is too small", where=f"setting {name}", hint=f"use {least} or more"
                )

    def fill(self, text: str) -> list[str]:
        """The text inserted in every template."""
        return [template.strip().replace("{}", text) for template in self.templates.split("|")]


@register_method
class CLIP(ClosedFormMethod):
    """See the module's docstring. Pooled regions must be image embeddings of an image tower of the same model.

    Buffers: ``weight`` ``(K, C)`` and ``bias`` ``(K,)`` give attribute scores, ``mean`` ``(K,)`` is the average class,
    ``count`` the number of attributes that describe a class.
    """

    name = "clip"
    card = Card(
        title="CLIP and SigLIP zero-shot, by class names or by attributes",
        paper="Radford et al., ICML 2021 (arXiv 2103.00020); SigLIP: Zhai et al., ICCV 2023 (arXiv 2303.15343); "
        "descriptions: Menon and Vondrick, ICLR 2023 (arXiv 2210.07183)",
        exact="scores by names and by descriptions are the model's own logits up to its scale and bias, checked "
        "against transformers' whole models with random weights",
        ours="descriptions come from the class table; attribute scores by contrast; region shares by projected tokens; "
        "gamma and temperature are fitted on validation classes",
    )
    settings_class = CLIPSettings
    presets: ClassVar = {
        "any": Preset(CLIPSettings(), None, "CLIP's prompt; for other modes ours"),
        "cub": Preset(CLIPSettings(kind="bird"), None, "CLIP's prompt; for other modes ours"),
        "awa2": Preset(CLIPSettings(kind="animal"), None, "CLIP's prompt; for other modes ours"),
        "sun": Preset(CLIPSettings(kind="scene"), None, "CLIP's prompt; for other modes ours"),
        "fieldguide": Preset(CLIPSettings(kind="bird"), None, "CLIP's prompt; for other modes ours"),
    }
    reads_text = True
    prepare = staticmethod(pool)
    weight: Tensor
    bias: Tensor
    mean: Tensor
    count: Tensor

    def __init__(
        self, channels: int, vectors: Tensor, settings: CLIPSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", vectors.new_zeros(len(vectors), channels))
        self.register_buffer("bias", vectors.new_zeros(len(vectors)))
        self.register_buffer("mean", vectors.new_zeros(len(vectors)))
        self.register_buffer("count", vectors.new_ones(()))
        self._last: tuple[ClassSpace, float, Tensor] | None = None

    @property
    def by_attributes(self) -> bool:
        """Whether a class score is a sum over attributes; otherwise the text of a class is compared as a whole."""
        s = self.settings
        result: bool = s.mode == "scores" or (s.mode == "attributes" and s.per_sentence == 1)
        return result

    @property
    def offset_name(self) -> str:
        """Name of the part of a class score that is not evidence of attributes."""
        return "offset" if self.by_attributes else f"the class's {'name' if self.settings.mode == 'names' else 'text'}"

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Compute the average class, attribute embeddings, and their scores on the training images. Uses no labels."""
        words = _words(classes)
        self.mean.copy_(classes.vectors.mean(dim=0))
        texts = self._attribute_texts(words)
        if self.settings.mode != "attributes" or not self.by_attributes:
            texts = texts - self._references(words, texts)
        self._texts = texts
        scores = regions[:, 0].to(texts.dtype) @ texts.T
        self._statistics = scores.mean(dim=0), scores.std(dim=0, correction=0).clamp(min=1e-6)

    def _attribute_texts(self, words: Words) -> Tensor:
        """``(K, C)``; each row is the mean of the templates' unit embeddings."""
        sentences = [s for a in words.attributes for s in self.settings.fill(f"{self.settings.kind} with {a}")]
        return self._encode(words, sentences).view(len(words.attributes), -1, self.weight.shape[1]).mean(dim=1)

    def _references(self, words: Words, texts: Tensor) -> Tensor:
        """``(K, C)`` reference of each attribute: the mean of its group, or the empty text if it is alone."""
        plain = self._encode(words, self.settings.fill(self.settings.kind)).mean(dim=0)
        found = plain.repeat(len(texts), 1)
        for group in dict.fromkeys(words.groups):
            members = torch.tensor([g == group for g in words.groups], device=texts.device)
            if members.sum() > 1:
                found[members] = texts[members].mean(dim=0)
        return found

    def grid(self) -> list[dict[str, float]]:
        """Numbers of attributes per class, or whether to standardize attribute scores on the training images."""
        s, most = self.settings, len(self.weight)
        if s.mode == "names":
            return [{}]
        if s.mode == "attributes":
            counts = (s.attributes,) if s.attributes else COUNTS
            return [{"attributes": float(n)} for n in sorted({min(n, most) for n in counts})]
        return [{"standardize": 0.0}, {"standardize": 1.0}]

    def use(self, candidate: dict[str, float]) -> None:
        """Use a candidate."""
        mean, deviation = self._statistics
        if not candidate.get("standardize"):
            mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
        self.weight.copy_(self._texts / deviation[:, None])
        self.bias.copy_(-mean / deviation)
        self.count.fill_(candidate.get("attributes", 1.0))
        self._last = None

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled regions ``(B, 1, C)`` to attribute scores and embedding."""
        embedding = regions[:, 0]
        return {"text": Branch(F.linear(embedding, self.weight, self.bias), embedding=embedding)}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``, with the bias split equally; there is no attention."""
        shares = region_shares(regions) @ self.weight.T + self.bias / regions.shape[1]
        contributions = shares.transpose(1, 2)
        return {"text": Branch(contributions.sum(dim=2), None, contributions, embedding=pool(regions)[:, 0])}

    def fused_attribute_scores(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` attribute scores."""
        return branches["text"].attribute_scores

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors; zero if texts are compared as a whole."""
        if not self.by_attributes:
            return torch.zeros_like(classes.vectors)
        if self.settings.mode == "scores":
            return F.normalize(classes.vectors - self.mean, dim=1)
        chosen = torch.zeros_like(classes.vectors)
        for row, attributes in zip(chosen, self.described_by(classes), strict=True):
            row[attributes] = 1
        result: Tensor = chosen / (chosen @ self.weight).norm(dim=1, keepdim=True).clamp(min=1e-12)
        return result

    def query(self, branches: dict[str, Branch]) -> Tensor:
        """``(B, K)`` attribute scores, or ``(B, C)`` embeddings if texts are compared as a whole."""
        if self.by_attributes:
            return super().query(branches)
        embedding = branches["text"].embedding
        assert embedding is not None
        return embedding.to(self.weight.dtype)

    def class_embeddings(self, classes: ClassSpace) -> Tensor:
        """``(N, K)`` class vectors, or ``(N, C)`` text embeddings."""
        return super().class_embeddings(classes) if self.by_attributes else self.class_texts(classes)

    def described_by(self, classes: ClassSpace) -> list[list[int]]:
        """Attributes that describe each class: those that exceed the average class most, at least one."""
        excess = classes.vectors - self.mean
        order = excess.argsort(dim=1, descending=True, stable=True)[:, : int(self.count)].tolist()
        return [[k for i, k in enumerate(row) if i == 0 or excess[c, k] > 0] for c, row in enumerate(order)]

    def sentences(self, classes: ClassSpace) -> list[list[str]]:
        """The sentences about each class, for modes that have them."""
        words, s = _words(classes), self.settings
        if s.mode == "names":
            return [s.fill(name) for name in words.classes]
        found = []
        for row in self.described_by(classes):
            phrases = [words.attributes[k] for k in row]
            parts = [phrases[i : i + s.per_sentence] for i in range(0, len(phrases), s.per_sentence)]
            found.append([sentence for part in parts for sentence in s.fill(f"{s.kind} with {_listed(part)}")])
        return found

    def class_texts(self, classes: ClassSpace) -> Tensor:
        """``(N, C)`` unit embeddings of the class texts, cached for the same classes."""
        if self._last is None or self._last[0] is not classes or self._last[1] != float(self.count):
            sentences = self.sentences(classes)
            every = self._encode(_words(classes), [s for own in sentences for s in own])
            means = [part.mean(dim=0) for part in every.split([len(own) for own in sentences])]
            self._last = classes, float(self.count), F.normalize(torch.stack(means), dim=1)
        return self._last[2].to(classes.vectors)

    def _encode(self, words: Words, sentences: list[str]) -> Tensor:
        return words.encode(sentences, self.weight.device).to(self.weight.dtype)


def _words(classes: ClassSpace) -> Words:
    if classes.words is None:
        raise UnseenError("clip needs class names and a text tower", hint="use an hf: backbone")
    return classes.words


def _listed(parts: list[str]) -> str:
    """Join parts as "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
