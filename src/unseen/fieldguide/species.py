"""Invent species: distinct appearances, names, and which of them are seen."""

from dataclasses import dataclass

import numpy as np

from unseen.fieldguide.attributes import GROUPS, PAIRS

MIN_DIFFERING_GROUPS = 4
_NOUNS = {
    "conical": ("Finch", "Bunting", "Grosbeak", "Seedeater", "Sparrow", "Canary"),
    "needle": ("Kingfisher", "Warbler", "Reedling", "Gnatpiper", "Creeper", "Flycatcher"),
    "hooked": ("Shrike", "Kestrelet", "Butcherbird", "Vanga", "Parrotlet", "Puffbird"),
    "decurved": ("Sunbird", "Thrasher", "Curlet", "Honeybill", "Scimitar", "Hoopoe"),
}
_FAMILIES = {"conical": "Finches", "needle": "Warblers", "hooked": "Shrikes", "decurved": "Sunbirds"}
_ADJECTIVES = {
    ("crown_color", "red"): ("Ruby-crowned", "Scarlet-capped", "Flame-crowned"),
    ("crown_color", "black"): ("Ink-capped", "Soot-crowned", "Raven-capped"),
    ("crown_color", "white"): ("Snow-crowned", "Hoary-capped", "Ivory-crowned"),
    ("crown_color", "blue"): ("Azure-crowned", "Cobalt-capped", "Sky-crowned"),
    ("belly_color", "white"): ("Pale-bellied", "Chalk-bellied"),
    ("belly_color", "yellow"): ("Saffron-bellied", "Lemon-bellied"),
    ("belly_color", "rust"): ("Copper-bellied", "Russet-bellied"),
    ("belly_color", "gray"): ("Ashy-bellied", "Pearl-bellied"),
    ("wing_color", "rufous"): ("Chestnut-winged", "Cinnamon-winged"),
    ("wing_color", "green"): ("Moss-winged", "Fern-winged"),
    ("wing_color", "blue"): ("Lapis-winged", "Cerulean-winged"),
    ("wing_color", "black"): ("Dusky-winged", "Coal-winged"),
    ("back_color", "brown"): ("Umber-backed", "Walnut-backed"),
    ("back_color", "green"): ("Olive-backed", "Sage-backed"),
    ("back_color", "slate"): ("Slate-backed", "Steel-backed"),
    ("back_color", "black"): ("Ebony-backed", "Sable-backed"),
    ("throat_color", "orange"): ("Amber-throated", "Ember-throated"),
    ("breast_pattern", "spotted"): ("Freckled", "Speckled"),
    ("breast_pattern", "streaked"): ("Streaked", "Penciled"),
    ("breast_pattern", "banded"): ("Collared", "Banded"),
}


@dataclass(frozen=True)
class Species:
    """One invented species.

    Attributes:
        name: field-guide name.
        appearance: the value of every group.
        seen: whether training may use its images.
        validation: whether a seen species counts as unseen in validation.
    """

    name: str
    appearance: dict[str, str]
    seen: bool
    validation: bool

    @property
    def family(self) -> str:
        """Its family, which determines the shape of its bill."""
        return _FAMILIES[self.appearance["bill_shape"]]


def invent(seed: int, count: int) -> list[Species]:
    """The world of a seed: training species first, then validation species, then unseen ones.

    The attributes of `PAIRS` are coupled in the training species, with at most one exception per pair; a third of the
    validation species and about two thirds of the unseen species break each pair. All other values are balanced and
    drawn independently. Any two species differ in at least `MIN_DIFFERING_GROUPS` groups.
    """
    rng = np.random.default_rng([seed, count])
    unseen = max(2, round(count * 0.27))
    validation = max(2, round((count - unseen) * 0.25))
    sizes = (count - unseen - validation, validation, unseen)
    looks: list[dict[str, str]] = []
    for size, broken in zip(
        sizes, (round(sizes[0] * 0.02), round(sizes[1] * 0.34), round(sizes[2] * 0.66)), strict=True
    ):
        looks += _distinct(rng, size, broken, looks)
    names = _names(rng, looks)
    seen = count - unseen
    return [
        Species(name, appearance, index < seen, sizes[0] <= index < seen)
        for index, (name, appearance) in enumerate(zip(names, looks, strict=True))
    ]


def differing_groups(a: dict[str, str], b: dict[str, str]) -> int:
    """Number of groups in which two appearances differ."""
    return sum(a[group.name] != b[group.name] for group in GROUPS)


def _balanced(rng: np.random.Generator, values: tuple[str, ...], count: int) -> list[str]:
    """The given number of values, balanced and shuffled."""
    order = [values[i % len(values)] for i in range(count)]
    return [order[i] for i in rng.permutation(count)]


def _draw(rng: np.random.Generator, count: int, broken: int) -> list[dict[str, str]]:
    """Appearances of one kind of species; each pair is broken in the given number of them."""
    columns = {group.name: _balanced(rng, group.values, count) for group in GROUPS}
    values = {group.name: group.values for group in GROUPS}
    for pair in PAIRS:
        (first, a), (second, b) = (attribute.split("::") for attribute in pair)
        has = np.array(_balanced(rng, ("yes", "no", "no", "yes", "no"), count)) == "yes"
        breaks = np.zeros(count, dtype=bool)
        breaks[rng.permutation(count)[:broken]] = True
        for name, value, present in ((first, a, has), (second, b, has ^ breaks)):
            others = iter(_balanced(rng, tuple(v for v in values[name] if v != value), int((~present).sum())))
            columns[name] = [value if yes else next(others) for yes in present]
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def _distinct(rng: np.random.Generator, count: int, broken: int, taken: list[dict[str, str]]) -> list[dict[str, str]]:
    """Draw until all differ enough from each other and from those taken."""
    while True:
        drawn = _draw(rng, count, broken)
        if all(
            differing_groups(look, other) >= MIN_DIFFERING_GROUPS
            for i, look in enumerate(drawn)
            for other in taken + drawn[:i]
        ):
            return drawn


def _names(rng: np.random.Generator, looks: list[dict[str, str]]) -> list[str]:
    """A different name for each, from its bill and one more visible feature."""
    names: list[str] = []
    for appearance in looks:
        nouns = _NOUNS[appearance["bill_shape"]]
        adjectives = [
            word for (group, value), words in _ADJECTIVES.items() if appearance[group] == value for word in words
        ]
        names.append(next(name for name in _candidates(rng, adjectives, nouns) if name not in names))
    return names


def _candidates(rng: np.random.Generator, adjectives: list[str], nouns: tuple[str, ...]) -> list[str]:
    pairs = [f"{adjective} {noun}" for adjective in adjectives for noun in nouns]
    return [pairs[i] for i in rng.permutation(len(pairs))]
