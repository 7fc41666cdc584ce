"""Files of word vectors: every form read to the same numbers, damage named by its place, memory that stays small."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pytest

from unseen.errors import DataError
from unseen.vectors.word_files import open_word_file, read_word_vectors

WORDS = ("bill", "5", "New", "schön", "tail", "##")
VECTORS = np.random.default_rng(0).standard_normal((len(WORDS), 7)).astype(np.float32)


def binary(newline=b"\n", words=WORDS, vectors=VECTORS):
    parts = [f"{len(words)} {vectors.shape[1]}\n".encode()]
    return b"".join([*parts, *(w.encode() + b" " + v.tobytes() + newline for w, v in zip(words, vectors, strict=True))])


def text(header=False, end="\n"):
    lines = [f"{len(WORDS)} 7"] * header
    lines += [f"{w} {' '.join(repr(float(x)) for x in v)}" for w, v in zip(WORDS, VECTORS, strict=True)]
    return end.join([*lines, ""]).encode()


FORMS = {
    "binary": (binary(), "word2vec binary"),
    "binary without newlines": (binary(b""), "word2vec binary"),
    "word2vec text": (text(True), "word2vec text"),
    "fastText's blanks at line ends": (text(True, " \n"), "word2vec text"),
    "glove": (text(), "GloVe text"),
    "glove from Windows": (text(end="\r\n"), "GloVe text"),
    "compressed": (gzip.compress(text()), "GloVe text"),
    "compressed with header": (gzip.compress(text(True)), "word2vec text"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_numbers(form, tmp_path):
    content, kind = FORMS[form]
    path = tmp_path / "vectors"
    path.write_bytes(content)
    file = open_word_file(path)
    assert (file.kind, file.dim) == (kind, 7)
    found = read_word_vectors(file, {*WORDS, "absent"})
    assert set(found) == set(WORDS)
    for word, vector in zip(WORDS, VECTORS, strict=True):
        np.testing.assert_array_equal(found[word], vector)
    assert set(read_word_vectors(file, {"tail", "absent"})) == {"tail"}


def test_words_with_blanks_and_words_that_are_numbers(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("5 1 2 3\n. . . 4 5 6\na 7 8 9\nat name@domain.com 1 1 1\n")
    file = open_word_file(path)
    assert file.dim == 3
    found = read_word_vectors(file, {"5", ".", "a", "at"})
    assert {k: v.tolist() for k, v in found.items()} == {"5": [1, 2, 3], "a": [7, 8, 9]}


def test_the_first_of_two_counts(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("a 1 2\nb 3 4\na 5 6\n")
    assert read_word_vectors(open_word_file(path), {"a", "c"})["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        (b"", "", "no word vectors"),
        (b"hello\nworld\n", "", "not a word2vec or GloVe file"),
        (b"0 5\nx\n", "", "0 words with 5 dimensions"),
        (b"\x80\x04K\x01.", "", "a pickle; unseen does not load pickles"),
        (b"PK\x03\x04abc", "", "zip"),
        (b"a 1 2 3\nd 4 5 6\nb 4 5\n", "line 3", "not a word and 3"),
        (b"a 1 2\nb 4 5\nc 1\n", "line 3", "not a word and 2 values"),
        (b"a 1 2\nb 4 5\nc 1 x\n", "line 3", "a value is not a number"),
        (b"a 1 2\nb nan 5\n", "line 2", '"b" is not finite'),
        (b"3 2\na 1 2\nb 4 5\n", "", "2 words, but the first line says 3"),
        (b"3 2\na 1 2\nb 4\nc 1 1\n", "line 3", "not a word and 2 values"),
        (binary()[:-50], "", "6 words of 7 numbers need at least 184"),
        (binary()[:70] + b"x" * 5000, "byte 68", "no word starts here (2 of 6 read)"),
        (binary()[:-9], "byte 171", "the file ends within the vector of word 6"),
        (gzip.compress(binary()), "", "compressed binary"),
        (gzip.compress(text())[:-30], "", "cannot be read"),
    ],
)
def test_damage_is_named_by_its_place(content, where, problem, tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_word_vectors(open_word_file(path), {"b", "c", "tail", "absent"})
    assert problem in str(caught.value)
    assert where in str(caught.value)
    assert caught.value.hint


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_word_file(tmp_path / "none")


LARGE = """
import sys
import psutil
from unseen.vectors.word_files import open_word_file, read_word_vectors
file = open_word_file(sys.argv[1])
process = psutil.Process()
before, peak = process.memory_info().rss, [0]
found = read_word_vectors(file, {"w7", "w54321", "absent"},
    lambda *_: peak.__setitem__(0, max(peak[0], process.memory_info().rss)))
print((max(peak[0], process.memory_info().rss) - before) >> 20, sorted(found), float(found["w54321"][0]))
"""


def test_a_large_binary_file_is_not_held_in_memory(tmp_path):
    path, count, dim = tmp_path / "large.bin", 180_000, 300
    with path.open("wb") as file:
        file.write(f"{count} {dim}\n".encode())
        for i in range(count):
            file.write(b"w%d " % i + np.float32(i).tobytes() * dim + b"\n")
    assert path.stat().st_size > 200 << 20
    done = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, check=True)
    path.unlink()
    grown, words, first = done.stdout.split(" ", 1)[0], "['w54321', 'w7']", "54321.0"
    assert int(grown) < 80
    assert words in done.stdout
    assert first in done.stdout
