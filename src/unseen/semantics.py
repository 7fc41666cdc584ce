"""Attribute vectors: where a method's picture of an attribute's meaning starts from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from unseen.classes import SEPARATOR, Attributes
from unseen.data.dataset import Dataset
from unseen.errors import UnseenError
from unseen.methods.base import Words
from unseen.towers import TextTower, model_digest

KINDS = ("auto", "given", "words", "random", "text:MODEL")
TEXT = "text:"


def attribute_phrase(name: str) -> str:
    """An attribute as words, value before group: ``has_bill_shape::hooked_(sea)`` is "hooked (sea) bill shape"."""
    group, _, value = name.removeprefix("has_").rpartition(SEPARATOR)
    return " ".join(re.sub(r"[_+]", " ", f"{value} {group}").split())


def class_phrase(name: str) -> str:
    """A class as words: ``001.Black_footed_Albatross`` is "Black footed Albatross"."""
    return " ".join(re.sub(r"[_+]", " ", re.sub(r"^\d+\.", "", name)).split()) or name


def name_things(classes: Sequence[str], attributes: Attributes, tower: TextTower) -> Words:
    """Classes and attributes as words, for methods that read text."""
    return Words(
        tuple(map(class_phrase, classes)), tuple(map(attribute_phrase, attributes.names)), attributes.groups, tower
    )


def word_vectors(names: tuple[str, ...], dim: int = 64) -> np.ndarray:
    """Vectors without a language model: the sum of a fixed Gaussian vector for every word of a name.

    Names that share a word ("crown_color::red", "bill_color::red") share that word's vector, as in the sums of
    word2vec vectors that the field uses; beyond that the vectors know no meaning.

    Args:
        names: K attribute names.
        dim: D.

    Returns:
        float64 ``(K, D)``, the same on every machine.
    """
    vectors = np.zeros((len(names), dim))
    for k, name in enumerate(names):
        for word in re.findall(r"[^\W_]+", name.lower()) or [name]:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
            vectors[k] += np.random.default_rng(seed).standard_normal(dim)
    return vectors


def attribute_vectors(dataset: Dataset, kind: str = "auto", *, dim: int = 64, seed: int = 0) -> tuple[np.ndarray, str]:
    """The K x D vectors that a method starts from, and what to call them in a table.

    Args:
        dataset: its own vectors are used where it has some.
        kind: ``given`` (the dataset's), ``words`` (:func:`word_vectors`), ``random`` (N(0, 1), learned from
            scratch), ``text:MODEL`` (the text tower of a CLIP or SigLIP model, a folder or an id of the hub), or
            ``auto``: given where there are some, else words, else (names of digits alone) random.
        dim: D of ``words`` and ``random``.
        seed: of ``random``.

    Raises:
        UnseenError: ``given`` where the dataset has none, or an unknown kind.
    """
    if kind == "auto":
        named = any(not name.isdigit() for name in dataset.table.attributes.names)
        kind = "given" if dataset.attribute_vectors is not None else "words" if named else "random"
    if kind == "given":
        if dataset.attribute_vectors is None:
            raise UnseenError(
                "no attribute vectors", where=dataset.name, mend='add attribute_vectors.npy, or use "words"'
            )
        return dataset.attribute_vectors, f"given vectors ({dataset.attribute_vectors.shape[1]}-d)"
    if kind == "words":
        return word_vectors(dataset.table.attributes.names, dim), f"hashed words ({dim}-d)"
    if kind == "random":
        shape = (len(dataset.table.attributes), dim)
        return np.random.default_rng(seed).standard_normal(shape), f"random, learned ({dim}-d)"
    if kind.startswith(TEXT):
        model = kind.removeprefix(TEXT)
        vectors = TextTower(model)(list(map(attribute_phrase, dataset.table.attributes.names))).double().numpy()
        return vectors, f"text tower {model}, {model_digest(model)[:8]} ({vectors.shape[1]}-d)"
    raise UnseenError(f'unknown attribute vectors "{kind}"', mend=f"one of {', '.join(KINDS)}")
