"""Attribute vectors: names as words, sums of word vectors, encoders, and the command that makes them."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
import torch

from unseen.data.folder import load_folder
from unseen.errors import DataError, UnseenError
from unseen.formats.xlsa17 import read_class_table
from unseen.vectors.sources import (
    attribute_vectors,
    attribute_words,
    make_vectors,
    read_names,
    spellings,
    write_vectors,
)

GLOVE = {"bill": [1, 0], "shape": [0, 1], "curved": [2, 2], "or": [0.5, 0], "Up": [0, 3], "#": [7, 7], "##": [9, 9]}


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"{word} {a} {b}\n" for word, (a, b) in GLOVE.items()))
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("has_bill_shape::curved_(up_or_down)", ["bill", "shape", "curved", "up", "or", "down"]),
        ("has_size::small_(5_-_9_in)", ["size", "small", "5", "9", "in"]),
        ("has_tail_shape::fan-shaped_tail", ["tail", "shape", "fan", "shaped", "tail"]),
        ("billColor::red/orange", ["bill", "Color", "red", "orange"]),
        ("has_größe", ["größe"]),
        ("::", []),
    ],
)
def test_names_as_words(name, words):
    assert attribute_words(name) == words


def test_spellings_in_order():
    assert spellings("Bill") == ["Bill", "bill"]
    assert spellings("up") == ["up", "Up"]
    assert spellings("USA") == ["USA", "usa", "Usa"]
    assert spellings("16") == ["16", "##"]
    assert spellings("5") == ["5"]


def test_sum_and_mean_by_hand(glove):
    names = ["has_bill_shape::curved_(up_or_down)", "bill::16", "Bill"]
    made = make_vectors(names, str(glove))
    np.testing.assert_array_equal(made.values, [[1 + 0 + 2 + 0 + 0.5, 0 + 1 + 2 + 3 + 0], [10, 9], [1, 0]])
    assert made.lacking == {"down": [names[0]]}
    assert made.about["spelt"] == {"up": "Up", "16": "##", "Bill": "bill"}
    mean = make_vectors(names, str(glove), combine="mean")
    np.testing.assert_allclose(mean.values, made.values / [[5], [2], [1]])


def test_other_words_and_attributes_without_any(glove):
    made = make_vectors(
        ["crookedBeak", "none::of_these"], str(glove), instead={"crooked": "curved", "Beak": "bill shape"}
    )
    np.testing.assert_array_equal(made.values, [[3, 3], [0, 0]])
    assert made.empty == ["none::of_these"]
    assert sorted(made.lacking) == ["none", "of", "these"]
    with pytest.raises(UnseenError, match="cannot combine"):
        make_vectors(["bill"], str(glove), combine="max")


def test_names_from_a_file(tmp_path):
    path = tmp_path / "attributes.txt"
    path.write_text("1 has_bill_shape::curved_(up_or_down)\n2 has_bill_shape::dagger\n\n")
    assert read_names(path) == ("has_bill_shape::curved_(up_or_down)", "has_bill_shape::dagger")
    path.write_text("     1\tblack\n     2\twhite\n")
    assert read_names(path) == ("black", "white")
    path.write_text("4 legs\nbrown\n")
    assert read_names(path) == ("4 legs", "brown")
    path.write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r'line 3: "a" already appears in line 1'):
        read_names(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_names(path)


def test_what_is_written_is_what_a_dataset_reads(tiny_guide, tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    for entry in tiny_guide.iterdir():
        if not entry.name.startswith("attribute_vectors"):
            (folder / entry.name).symlink_to(entry)
    names = load_folder(folder).table.attributes.names
    words = sorted({w for n in names for w in attribute_words(n)})
    rng = np.random.default_rng(0)
    file = tmp_path / "words.txt"
    file.write_text("".join(f"{w} {' '.join(map(str, rng.integers(-9, 9, 5)))}\n" for w in words))
    made = make_vectors(names, str(file))
    write_vectors(folder / "attribute_vectors.npy", made)
    dataset = load_folder(folder)
    given, label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, "given")
    np.testing.assert_array_equal(given, made.values)
    assert label == "given vectors (5-d)"
    about = json.loads((folder / "attribute_vectors.json").read_text())
    assert about["attributes"] == list(names)
    assert (about["format"], about["lacking"], about["combine"]) == ("GloVe text", [], "sum")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny encoder with random weights."""
    transformers = pytest.importorskip("transformers", reason="needs unseen[clip]")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "crown", "color", "long", "bill", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_sentence_encoder_is_the_mean_of_its_tokens(bert, tiny_guide):
    import transformers

    names = ["has_crown_color::red", "bill::long"]
    made = make_vectors(names, f"sentence:{bert}")
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    tokens = tokenizer(["red crown color", "long bill"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    np.testing.assert_allclose(made.values, expected.numpy(), atol=1e-5)
    dataset = load_folder(tiny_guide)
    values, label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, f"sentence:{bert}")
    assert values.shape == (len(dataset.table.attributes), 16)
    assert label.startswith(f"sentence encoder {bert}, ")


def test_models_that_are_no_sentence_encoders(tiny_pairs, tmp_path):
    with pytest.raises(UnseenError, match="use text:"):
        make_vectors(["bill"], f"sentence:{tiny_pairs['clip']}")
    with pytest.raises(UnseenError, match=r"no config\.json"):
        make_vectors(["bill"], f"sentence:{tmp_path}")
    made = make_vectors(["bill", "tail"], f"text:{tiny_pairs['clip']}")
    np.testing.assert_allclose(np.linalg.norm(made.values, axis=1), 1, atol=1e-6)


def test_the_command(unseen, glove, tmp_path):
    names, target = tmp_path / "names.txt", tmp_path / "v.npy"
    names.write_text("bill_shape::curved\nbill::crooked\ncrooked_beak\n")
    status, _, err = unseen("vectors", names, "--from", glove, "-o", target)
    assert status == 2
    assert '"crooked" in bill::crooked, crooked_beak' in err
    assert 'no word vector for any word of "crooked_beak"' in err
    assert not target.exists()
    status, out, _ = unseen("vectors", names, "--from", glove, "-o", target, "--instead", "beak=bill", "--json")
    assert status == 0
    assert json.loads(out)["lacking"] == {"crooked": ["bill::crooked", "crooked_beak"]}
    np.testing.assert_array_equal(np.load(target), [[3, 3], [1, 0], [1, 0]])
    for arguments, message in (
        (["-o", target], "already exists"),
        ([], "pass --output"),
        (["-o", tmp_path / "v.txt"], "not a .npy file"),
        (["-o", tmp_path / "w.npy", "--instead", "wing=bill"], 'no attribute has the word "wing"'),
    ):
        status, _, err = unseen("vectors", names, "--from", glove, *arguments)
        assert status == 2
        assert message in err
    status, out, err = unseen("vectors", names, "--from", glove, "-o", target, "--force", "--allow-missing")
    assert status == 0
    assert "gets a zero vector" in err
    assert not np.load(target)[2].any()
    target.unlink()
    status, out, _ = unseen("vectors", names, "--from", glove, "--dry-run")
    assert (status, target.exists()) == (0, False)


class ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        assert module.split(".")[0] == "numpy"
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


@pytest.mark.real_data
def test_the_field_sums_the_vectors_of_a_name_s_words(real_data):
    """CUB's 312 published vectors are sums of at most 113 unknown word vectors to rounding, and not means of them."""
    folder = real_data / "proposed_split" / "CUB"
    names = read_names(folder / "attributes.txt")
    published = np.asarray(
        ArraysOnly(io.BytesIO((folder / "CUB_attribute.pkl").read_bytes()), encoding="latin1").load()
    )
    words = sorted({w for n in names for w in attribute_words(n)})
    counts = np.array([[attribute_words(n).count(w) for w in words] for n in names], dtype=float)

    def residual(design):
        found, _, rank, _ = np.linalg.lstsq(design, published, rcond=None)
        assert rank < 100
        return np.linalg.norm(design @ found - published, axis=1) / np.linalg.norm(published, axis=1)

    assert residual(counts).max() < 1e-12
    assert residual(counts / counts.sum(axis=1, keepdims=True)).max() > 0.05


@pytest.mark.real_data
@pytest.mark.parametrize(("file", "attributes"), [("CUB/sent_splits.mat", 1024), ("FLO/att_splits.mat", 1024)])
def test_sentence_embeddings_of_classes_are_a_class_table(file, attributes, real_data):
    table = read_class_table(real_data / "proposed_split" / file, ())
    assert table.values.shape == (200 if file.startswith("CUB") else 102, attributes)
    assert np.linalg.norm(table.values, axis=1).min() > 0
