"""Readable names of classes and attributes."""

from __future__ import annotations

import re

from unseen.classes.attributes import SEPARATOR


def attribute_phrase(name: str) -> str:
    """An attribute as words, value before group: ``has_bill_shape::hooked_(sea)`` is "hooked (sea) bill shape"."""
    group, _, value = name.removeprefix("has_").rpartition(SEPARATOR)
    return " ".join(re.sub(r"[_+]", " ", f"{value} {group}").split())


def class_phrase(name: str) -> str:
    """A class as words: ``001.Black_footed_Albatross`` is "Black footed Albatross"."""
    return " ".join(re.sub(r"[_+]", " ", re.sub(r"^\d+\.", "", name)).split()) or name


def attribute_words(name: str) -> list[str]:
    """Words of an attribute's name: ``has_bill_shape::curved_(up_or_down)`` gives bill, shape, curved, up, or, down.

    Splits at everything that is not a letter or digit, and where a capital follows a small letter; drops ``has_``.
    """
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removeprefix("has_")))


def spellings(word: str) -> list[str]:
    """Spellings of a word in files, preferred first: unchanged, lower case, capitalized, digits as # (GoogleNews)."""
    found = [word, word.lower(), word.lower().title()]
    if len(word) > 1 and any(c.isdigit() for c in word):
        found.append(re.sub(r"\d", "#", word))
    return list(dict.fromkeys(found))


def label(name: str) -> str:
    """A readable attribute name: ``has_bill_shape::hooked`` becomes ``bill shape: hooked``."""
    return name.removeprefix("has_").replace("::", ": ").replace("_", " ")
