"""Attribute vectors: the initial representation of an attribute's meaning in a method."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unseen.backbones.towers import TextTower, model_digest
from unseen.classes.attributes import Attributes
from unseen.classes.naming import attribute_phrase, attribute_words, class_phrase, spellings
from unseen.errors import DataError, UnseenError
from unseen.ground.files import write_json, write_with
from unseen.ground.progress import Progress, silent
from unseen.methods.class_space import Words
from unseen.vectors.sentences import SentenceEncoder
from unseen.vectors.word_files import open_word_file, read_word_vectors

KINDS = ("auto", "given", "words", "random", "text:MODEL", "sentence:MODEL")
TEXT, SENTENCE = "text:", "sentence:"
COMBINE = ("sum", "mean")


def name_things(classes: Sequence[str], attributes: Attributes, tower: TextTower) -> Words:
    """Names of classes and attributes, for methods that read text."""
    return Words(
        tuple(map(class_phrase, classes)), tuple(map(attribute_phrase, attributes.names)), attributes.groups, tower
    )


def word_vectors(names: tuple[str, ...], dim: int = 64) -> np.ndarray:
    """Vectors without a language model: the sum of a fixed Gaussian vector for every word of a name.

    Names that share a word ("crown_color::red", "bill_color::red") share that word's vector, as in the sums of word2vec
    vectors that the field uses; otherwise the vectors carry no meaning.

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


def attribute_vectors(
    attributes: Attributes, given: np.ndarray | None = None, kind: str = "auto", *, dim: int = 64, seed: int = 0
) -> tuple[np.ndarray, str]:
    """The K x D vectors that a method starts from, and their name for tables.

    Args:
        attributes: K attributes.
        given: ``(K, D)`` vectors of the dataset, if any.
        kind: ``given`` (the dataset's), ``words`` (:func:`word_vectors`), ``random`` (N(0, 1), learned from scratch),
            ``text:MODEL`` (the text tower of a CLIP or SigLIP model, a folder or an id of the hub), ``sentence:MODEL``
            (a sentence encoder, likewise), or ``auto``: given if available, else words, else (for names of digits only)
            random.
        dim: D for ``words`` and ``random``.
        seed: seed for ``random``.

    Raises:
        UnseenError: ``given`` without vectors of the dataset, or an unknown kind.
    """
    if kind == "auto":
        named = any(not name.isdigit() for name in attributes.names)
        kind = "given" if given is not None else "words" if named else "random"
    if kind == "given":
        if given is None:
            raise UnseenError("no attribute vectors", hint='add attribute_vectors.npy, or use "words"')
        return given, f"given vectors ({given.shape[1]}-d)"
    if kind == "words":
        return word_vectors(attributes.names, dim), f"hashed words ({dim}-d)"
    if kind == "random":
        shape = (len(attributes), dim)
        return np.random.default_rng(seed).standard_normal(shape), f"random, learned ({dim}-d)"
    if kind.startswith((TEXT, SENTENCE)):
        vectors, label, _ = encoded(attributes.names, kind)
        return vectors, label
    raise UnseenError(f'unknown attribute vectors "{kind}"', hint=f"use one of {', '.join(KINDS)}")


def encoded(names: Sequence[str], source: str) -> tuple[np.ndarray, str, str]:
    """Vectors of attribute phrases from a model.

    Args:
        names: K attribute names.
        source: ``text:MODEL`` (unit rows) or ``sentence:MODEL`` (as the encoder returns them).

    Returns:
        float64 ``(K, D)``, their name, and the SHA-256 of the model's files.
    """
    kind, _, model = source.partition(":")
    phrases = list(map(attribute_phrase, names))
    if kind == "text":
        what, vectors = "text tower", TextTower(model)(phrases).double().numpy()
    else:
        what, vectors = "sentence encoder", SentenceEncoder(model)(phrases)
    digest = model_digest(model)
    return vectors, f"{what} {model}, {digest[:8]} ({vectors.shape[1]}-d)", digest


@dataclass(frozen=True)
class MadeVectors:
    """Attribute vectors made from a file of word vectors or by a model.

    Args:
        values: float64 ``(K, D)``; a row of zeros for an attribute without any known word.
        about: origin, as JSON.
        lacking: words that the file has in no spelling, with their attributes.
        empty: attributes without any known word.
    """

    values: np.ndarray
    about: dict[str, Any]
    lacking: dict[str, list[str]]
    empty: list[str]


def make_vectors(
    names: Sequence[str],
    source: str,
    *,
    combine: str = "sum",
    instead: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> MadeVectors:
    """Make vectors for attributes, to store beside a dataset as ``attribute_vectors.npy``.

    Args:
        names: K attribute names; see :func:`attribute_words`.
        source: a file of word vectors (see :mod:`unseen.vectors.word_files`), ``text:MODEL`` or ``sentence:MODEL``.
        combine: ``sum`` of the vectors of a name's words, as in the field's files, or their ``mean``.
        instead: replacements of words, such as ``{"toughskin": "tough skin"}``.
        progress: progress callback for reading.

    Raises:
        UnseenError: no such file or model, or a damaged one.
    """
    if combine not in COMBINE:
        raise UnseenError(f'cannot combine by "{combine}"', hint=f"use one of {', '.join(COMBINE)}")
    about: dict[str, Any] = {"attributes": list(names)}
    if source.startswith((TEXT, SENTENCE)):
        if instead:
            raise UnseenError(
                "replacement words work only with word-vector files", hint="rename the attributes instead"
            )
        values, label, digest = encoded(names, source)
        return MadeVectors(values, about | {"source": source, "sha256": digest, "label": label}, {}, [])
    words = [[part for word in attribute_words(n) for part in (instead or {}).get(word, word).split()] for n in names]
    file = open_word_file(source)
    needed = {spelling for own in words for word in own for spelling in spellings(word)}
    known = read_word_vectors(file, needed, progress)
    values = np.zeros((len(names), file.dim))
    lacking: dict[str, list[str]] = {}
    used: dict[str, str] = {}
    empty = []
    for name, own, row in zip(names, words, values, strict=True):
        rows = []
        for word in own:
            spelling = next((s for s in spellings(word) if s in known), None)
            if spelling is None:
                if name not in lacking.setdefault(word, []):
                    lacking[word].append(name)
            else:
                used[word] = spelling
                rows.append(known[spelling].astype(np.float64))
        if rows:
            row[:] = np.sum(rows, axis=0) / (len(rows) if combine == "mean" else 1)
        if not row.any():
            empty.append(name)
    about |= {
        "source": file.path.name,
        "format": file.kind,
        "bytes": file.path.stat().st_size,
        "sha256": _sha256(file.path),
        "combine": combine,
        "instead": dict(instead or {}),
        "spelt": {word: spelling for word, spelling in sorted(used.items()) if word != spelling},
        "lacking": sorted(lacking),
        "label": f"{combine} of {file.path.name} ({file.dim}-d)",
    }
    return MadeVectors(values, about, lacking, empty)


def write_vectors(path: Path, made: MadeVectors) -> Path:
    """Write the array, and its origin beside it (``.json``, with the array's SHA-256); returns the latter's path."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, made.values, allow_pickle=False)

    write_with(path, write)
    write_json(path.with_suffix(".json"), {"file": path.name, "file_sha256": _sha256(path), **made.about})
    return path


def read_names(path: Path) -> tuple[str, ...]:
    """Attribute names of a text file, one per line; drops a number before every name (CUB, AWA2).

    Raises:
        DataError: not UTF-8, no names, or a repeated name.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start} is not UTF-8", where=path, hint="save it as UTF-8") from None
    numbered = [(row, line) for row, line in enumerate(lines, 1) if line]
    if numbered and all(re.match(r"\d+[\s,.]+\S", line) for _, line in numbered):
        numbered = [(row, re.sub(r"^\d+[\s,.]+", "", line)) for row, line in numbered]
    first: dict[str, int] = {}
    for row, name in numbered:
        if first.setdefault(name, row) != row:
            raise DataError(
                f'"{name}" already appears in line {first[name]}', where=f"{path}, line {row}", hint="keep one"
            )
    if not first:
        raise DataError("no attribute names", where=path, hint="use one name per line")
    return tuple(first)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
