"""Files of word vectors: word2vec, binary and text, and GloVe."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np

from faults.fuzz.mutate import spoil
from faults.fuzz.target import Case, Target, WrongResultError

WORDS = ("wing", "beak", "tail_feather", "é", "red")
D = 6


class Words(Target):
    """A file of word vectors, and the words wanted of it."""

    name: ClassVar[str] = "words"
    weight: ClassVar[float] = 1.2

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.vectors.word_files  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        kind, said = rng.choice(("binary", "text", "glove")), []
        numbers = np.random.default_rng(rng.randrange(2**32)).normal(size=(len(WORDS), D)).astype("<f4")
        words, count, dim = list(WORDS), len(WORDS), D
        for _ in range(rng.randint(0, 2)):
            how = rng.choice(("count", "dim", "nan", "twice", "long word", "ragged", "text", "none", "cr"))
            said.append(how)
            if how == "count":
                count = rng.choice((0, 1, 6, 10**6, 10**18, 2**64))
            elif how == "dim":
                dim = rng.choice((0, 1, 5, 7, 10**6, 10**12, 10**30))
            elif how == "nan":
                numbers[rng.randrange(len(words)) % len(numbers)] = rng.choice((np.nan, np.inf))
            elif how == "twice":
                words[-1] = words[0]
            elif how == "long word":
                words[0] = "x" * rng.choice((4000, 5000, 10**6))
            elif how == "none":
                words, numbers = [], numbers[:0]
                break
        head = f"{count} {dim}\n".encode()
        if kind == "binary":
            content = head + b"".join(
                w.encode() + b" " + v.tobytes() + b"\n" for w, v in zip(words, numbers, strict=True)
            )
        else:
            lines = [" ".join([w, *(f"{x:.6f}" for x in v)]) for w, v in zip(words, numbers, strict=True)]
            if "ragged" in said and lines:
                lines[rng.randrange(len(lines))] += rng.choice((" 1", " x", "\t1", " 1e999", " 0x1"))
            if "text" in said and lines:
                lines[rng.randrange(len(lines))] = rng.choice(
                    (
                        "",
                        " ",
                        "word",
                        "\x00",
                        "# a comment",
                        "1 2 3",
                        "9" * 100_000,
                        "x 1 2 3 4 5 1_0",
                        "a b c d e f g h i",
                    )
                )
            content = (head if kind == "text" else b"") + ("\r\n" if "cr" in said else "\n").join([*lines, ""]).encode()
        if rng.random() < 0.4:
            content, how = spoil(content, rng)
            said.append(how)
        if rng.random() < 0.15 and kind != "binary":
            content = gzip.compress(content + (bytes(2 * 10**8) if rng.random() < 0.15 else b""), 1)
            said.append("gzip")
            if rng.random() < 0.5:
                content, how = spoil(content, rng)
                said.append(how)
        path = folder / f"vectors.{'bin' if kind == 'binary' else 'txt'}"
        path.write_bytes(content)
        data = dict(zip(words, numbers, strict=True)) if not said else None
        return Case(f"{kind}: {'; '.join(said)}", (path.name,), None if said else "accepted", (path.name, data))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.vectors.word_files import open_word_file, read_word_vectors

        name, written = case.data
        opened = open_word_file(folder / name)
        found = read_word_vectors(opened, [*WORDS, "nowhere"])
        for word, vector in found.items():
            if vector.shape != (opened.dim,) or not np.isfinite(vector).all():
                raise WrongResultError(f"{word}: {vector}")
            if written is not None and not np.allclose(vector, written[word], atol=1e-6):
                raise WrongResultError(f"{word} has other numbers than were written")
        if written is not None and set(found) != set(WORDS):
            raise WrongResultError("not all words")
