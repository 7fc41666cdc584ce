"""A run's numbers in plain words and as a few large figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unseen.classes.expectations import Expectation, expectations
from unseen.evaluation.registry import every_metric, sentence
from unseen.evaluation.standing import standing
from unseen.explain.sheet import class_label
from unseen.ground.words import counted
from unseen.report.confusions import Confusion, confusions
from unseen.report.material import Material, recorded
from unseen.report.quality import AttributeSection, mistakes
from unseen.report.tables import percent
from unseen.training.config import RunConfig
from unseen.training.folder import Run
from unseen.training.holdouts import LEAST
from unseen.training.race import AUTO

FEWEST_IMAGES, FEW_IMAGES, FEW_TRAINING = 4, 10, 20
"""Fewest images per class: test images for intervals, test images for precise accuracies, training images."""

NOT_MEASURED = {"mean": None, "low": None, "high": None}

GOOD = 0.9
"""Accuracy from which nothing more needs to be tried."""
CLOSE = 0.95
"""Cosine of two classes' attributes from which they count as nearly the same."""


@dataclass(frozen=True)
class Figure:
    """A large number on the page.

    Args:
        name: short name.
        symbol: symbol used in the field.
        value: a fraction.
        means: meaning in one sentence.
        chance: chance level; ``None`` if meaningless.
        low, high: 95% interval; ``None`` for none.
        estimated: whether it is estimated on held-out classes.
        better: ``high`` or ``low``.
    """

    name: str
    symbol: str
    value: float
    means: str
    chance: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: bool = False
    better: str = "high"


def in_words(share: float) -> str:
    """A fraction as a whole number out of a hundred; 100 only if it is all of them."""
    return f"{percent(share, 0 if share == 1 or share < 0.995 else 1)} of 100"


def key_figures(material: Material) -> list[Figure]:
    """Accuracies with their chance levels, and calibration if measured."""
    seen, unseen = (material.manifest["data"][f"classes_{kind}"] for kind in ("seen", "unseen"))
    aside = material.set_aside
    measured, holdout = material.found["metrics"], material.holdout or {}
    figures = []
    for name, metric in every_metric().items():
        entry, estimated = measured.get(name) or NOT_MEASURED, False
        if entry["mean"] is None:
            entry, estimated = holdout.get(name) or entry, True
        if entry["mean"] is not None and metric.title:
            level = metric.chance(*(material.in_holdouts if estimated else (seen, unseen)))
            told = f"Estimated by setting {counted(aside, 'of your classes', 'of your classes')} aside: "
            means = f"{told}{metric.meaning}." if estimated else f"{sentence(metric.meaning)}."
            if name == "H" and estimated and measured["S"]["mean"] is not None:
                u, s = (percent(holdout[part]["mean"]) for part in ("U", "S"))
                means += f" Both are estimates here: U {u}%, S {s}%."
            interval = entry["low"], entry["high"]
            better = "high" if metric.higher_is_better else "low"
            figures.append(Figure(metric.title, name, entry["mean"], means, level, *interval, estimated, better))
    found = calibration_side(material)
    if found is not None:
        side, numbers = found
        where = {"test": "", "holdout": ", with classes set aside", "validation": ", on validation images"}[side]
        if numbers.get("ece") is not None:
            means = f"Average gap between confidence and accuracy{where}. 0 is best."
            figures.append(Figure("calibration error", "ECE", numbers["ece"], means, better="low"))
        if numbers.get("auroc") is not None:
            means = f"How well the score separates images of seen and unseen classes{where}. 100 is perfect."
            figures.append(Figure("seen or unseen?", "AUROC", numbers["auroc"], means, 0.5))
    return figures


def calibration_side(material: Material) -> tuple[str, dict[str, Any]] | None:
    """Quality of the confidence: on held-out classes if there are any, else on test, else on validation images."""
    draws = [draw.get("calibration") or {} for draw in (material.found.get("holdout") or {}).get("draws", [])]
    held_out = [draw["test"] for draw in draws if draw.get("test")]
    if held_out:
        names = ("ece", "auroc", "accuracy", "confidence", "coverage", "accuracy_when_known")
        values = {name: [r.get(name) for r in held_out] for name in names}
        return "holdout", {n: None if None in v else sum(v) / len(v) for n, v in values.items()}
    block = material.found["seeds"][material.seed].get("calibration") or {}
    for side in ("test", "validation"):
        numbers = block.get(side)
        if numbers and numbers.get("ece") is not None:
            return side, numbers
    return None


def held_out_classes(material: Material) -> int:
    """Number of distinct held-out classes."""
    draws = (material.found.get("holdout") or {}).get("draws", [])
    return len({name for draw in draws for name in draw["classes"]})


def times(material: Material) -> str:
    """How often classes were held out, if more than once."""
    draws = len((material.found.get("holdout") or {}).get("draws", []))
    return f", {draws} times with different classes" if draws > 1 else ""


def compared(entry: Mapping[str, Any], chance: float, classes: int, that: str = "That is") -> list[str]:
    """An accuracy compared with chance, in one sentence; empty if guessing cannot be wrong."""
    if chance >= 1:
        return []
    said = {
        "above": "better than guessing.",
        "below": "worse than guessing: do not rely on these names.",
        "equal": "not measurably better than guessing: do not rely on these names.",
        "too few": "measured on too few classes to tell whether it is better than guessing.",
    }
    return [f"{that} {said[standing(*ends_of_mean(entry), chance, classes)]}"]


def ends_of_mean(entry: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Interval of a mean: of an estimate, that over all classes of the kind."""
    return entry.get("low_mean", entry.get("low")), entry.get("high_mean", entry.get("high"))


def paragraph(material: Material) -> list[str]:
    """What the model can do, and how well."""
    data, measured = material.manifest["data"], material.found["metrics"]
    unseen, seen = data["classes_unseen"], data["classes_seen"]
    holdout, aside = material.holdout or {}, material.set_aside
    named = counted(seen, "class", "classes")
    sentences = [
        f"This model names what an image shows. It learned {named} from {counted(data['trainval'], 'image')}"
        + (
            f", and knows {unseen} more from {'its' if unseen == 1 else 'their'} attributes alone, without any image."
            if unseen
            else "; every class in its table had training images."
        )
    ]
    t1, u, s = (measured[name]["mean"] for name in ("T1", "U", "S"))
    if t1 is not None:
        sentences.append(
            f"If an image is known to show one of those {unseen}, it picks the right one "
            f"{in_words(t1)} times (guessing: {percent(1 / max(unseen, 1), 0)})."
        )
        sentences += compared(measured["T1"], 1 / max(unseen, 1), unseen)
    if u is not None and s is not None:
        sentences.append(
            f"With all {seen + unseen} classes as possible answers it is right {in_words(u)} times "
            f"for unseen classes and {in_words(s)} times for seen classes."
        )
        sentences += compared(measured["U"], 1 / (seen + unseen), unseen, "For unseen classes, that is")
    elif s is not None:
        sentences.append(f"It gets new images of seen classes right {in_words(s)} times.")
    elif u is not None:
        sentences.append(f"With all {seen + unseen} classes as possible answers it is right {in_words(u)} times.")
    guess = holdout.get("T1") or {}
    untested = f"There is no test image of {'that class' if unseen == 1 else f'the {unseen}'}"
    if t1 is None and unseen and guess.get("mean") is not None:
        known, choice = material.in_holdouts
        every = known + choice
        sentences.append(
            f"{untested}. Estimated by setting {aside} of your classes "
            f"aside as unseen{times(material)}: right {in_words(guess['mean'])} times among "
            f"{choice} unseen classes (guessing: {percent(1 / choice, 0)}), and "
            f"{in_words(holdout['U']['mean'])} times with all {every} classes as possible answers."
        )
        distinct = held_out_classes(material)
        among = compared(guess, 1 / choice, distinct, "")
        among_all = compared(holdout["U"], 1 / every, distinct, "")
        if among and among == among_all:
            sentences.append(f"Both are{among[0]}")
        else:
            sentences += [f"Among {choice} that is{text}" for text in among]
            sentences += [f"Among all {every} that is{text}" for text in among_all]
    elif t1 is None and unseen:
        sentences.append(f"{untested}, so the accuracy on {'it' if unseen == 1 else 'them'} is unknown.")
    return sentences


def sureness(material: Material) -> list[str]:
    """How far confidence and accuracies can be trusted."""
    sentences = []
    block = material.found["seeds"][material.seed].get("calibration")
    found = calibration_side(material)
    if found is not None:
        side, numbers = found
        error = numbers["ece"]
        kind = "is reliable" if error < 0.05 else "is a fair guide" if error < 0.12 else "is a rough guide"
        where = {
            "test": "",
            "holdout": " with the classes that were set aside",
            "validation": ", on the images it was fitted on",
        }[side]
        said, right = numbers.get("confidence"), numbers.get("accuracy")
        lean = ""
        if said is not None and right is not None and abs(said - right) >= 0.02:
            lean = ", mostly too high" if said > right else ", mostly too low"
        sentences.append(
            f"Its stated confidence {kind}: it is off by "
            f"{counted(round(100 * error), 'point')} on average{where}{lean}."
        )
        if block and block.get("threshold") and numbers.get("accuracy_when_known") is not None:
            tried = " With classes set aside and a threshold fitted the same way," if side == "holdout" else " So"
            level, known = block["threshold"], percent(numbers["accuracy_when_known"], 0)
            sentences.append(
                f"If it is less than {percent(level, 0 if level < 0.99 else 1)}% confident, it answers "
                f"“unknown”.{tried} it answered for {percent(numbers['coverage'], 0)}% of the images, "
                f"and {known}% of these answers were right."
            )
    elif material.found["seeds"][material.seed].get("temperature") is None:
        sentences.append("Its confidence is not calibrated; use it only to rank answers.")
    else:
        sentences.append(
            "Its confidence was fitted on validation images; its calibration on test images is not measured."
        )
    measured = [m for m in material.found["metrics"].values() if m["mean"] is not None]
    estimated = material.holdout or {}
    chance = by_chance(measured, "the accuracy on seen classes" if estimated else "these accuracies")
    if chance and tested_a_class(material) < FEWEST_IMAGES:
        chance = "There are too few test images per class for reliable confidence intervals."
    sentences += [chance] if chance else []
    off = [(e["high"] - e["low"]) / 2 for n in ("T1", "U") if (e := estimated.get(n)) and e["low"] is not None]
    if off:
        count = material.manifest["data"]["classes_unseen"]
        named = "your unseen class" if count == 1 else f"your {count} unseen classes"
        sentences.append(f"For {named}, the estimates may be off by about {in_points(max(off))}.")
    how = {
        "honest": "Every choice was made on validation classes drawn from the seen classes; the test "
        "images were used once.",
        "paper": "Choices were made on the test images, as in many papers: expect lower accuracy on new images.",
    }
    return [*sentences, how[material.run.protocol]]


def tested_a_class(material: Material) -> float:
    """Mean number of test images of the classes that have any; 0 without test images."""
    counts = [row["images"] for row in material.found["per_class"] if row["images"]]
    return sum(counts) / len(counts) if counts else 0.0


def hardly_recognized(material: Material) -> str:
    """Seen classes that are hardly ever recognized, and what their images are taken for; empty if there are none."""
    never = [
        c
        for c, row in enumerate(material.found["per_class"])
        if row["seen"] and row["images"] >= FEWEST_IMAGES and (row["among_all"] or 0) < 0.1
    ]
    if not never:
        return ""
    names, wrong = material.table.names, mistakes(material)
    told = [
        f"{class_label(names[c])} most often for {class_label(names[wrong[c][0]])} "
        f"({percent(wrong[c][1], 0)}% of its {counted(material.found['per_class'][c]['images'], 'test image')})"
        for c in never[:4]
        if c in wrong
    ]
    one = len(never) == 1
    theirs = "its images and its row" if one else "their images and their rows"
    return (
        f"{_list([class_label(names[c]) for c in never[:4]])} {'is' if one else 'are'} hardly ever recognized, "
        f"although there are training images: check {theirs} in the table."
        + (f" The model takes images of {_list(told)}." if told else "")
    )


def advice(
    material: Material,
    mixed: Sequence[Confusion],
    attributes: AttributeSection | None,
) -> list[str]:
    """What would help according to the numbers, the most useful first."""
    lines: list[str] = []
    measured, data = material.found["metrics"], material.manifest["data"]
    if never := hardly_recognized(material):
        lines.append(never)
    same = [c for c in mixed if not c.differences]
    if same:
        lines.append(
            f"{same[0].name} and {same[0].taken_for} have equal attributes. Add one that separates "
            "them, or merge the classes."
        )
    badly = list(dict.fromkeys(d.name for c in mixed for d in c.differences if d.verdict == "badly"))
    if badly:
        lines.append(
            f"The model hardly recognizes {_list(badly[:3])}, which would separate classes that it "
            "confuses. Training images of more classes with and without "
            f"{'it' if len(badly) == 1 else 'them'}, or clearer definitions, would help."
        )
    close = [c for c in mixed if c.differences and c.alike >= CLOSE]
    if close:
        lines.append(
            f"{close[0].name} and {close[0].taken_for} are nearly the same in the class table "
            f"(similarity {close[0].alike:.2f}). Another attribute that separates them would help; "
            "`unseen classes separate` suggests some."
        )
    u, s = measured["U"]["mean"], measured["S"]["mean"]
    if u is not None and s is not None and s - u > 0.15:
        lines.append(
            f"Unseen classes do {100 * (s - u):.0f} points worse than seen ones. A few images of the "
            "worst unseen classes would help most: `unseen classes images`."
        )
    if attributes is not None and attributes.hardly:
        one, more = "hardly varies between the classes and helps", "hardly vary between the classes and help"
        some = counted(len(attributes.hardly), f"attribute {one}", f"attributes {more}")
        lines.append(f"{some} little; add attributes that vary.")
    seen = max(data["classes_seen"], 1)
    if data["trainval"] / seen < FEW_TRAINING:
        some = counted(round(data["trainval"] / seen), "training image")
        lines.append(f"There are only about {some} per class; more would help.")
    few = round(tested_a_class(material))
    if not material.tested[1] and data["classes_unseen"]:
        draws = len((material.found.get("holdout") or {}).get("draws", []))
        would = "turn the estimate into a measurement" if draws else "measure this accuracy"
        more = "; --holdouts 3 would estimate it" if not draws and data["classes_seen"] >= LEAST else ""
        lines.append(f"A few labeled images of unseen classes, kept for testing, would {would}{more}.")
        if draws == 1:
            lines.append(
                "The estimate comes from one draw of classes; another draw can differ by ten points or "
                "more. Use --holdouts 3 for three draws."
            )
    elif 0 < few < FEW_IMAGES:
        lines.append(
            f"There are only about {counted(few, 'test image')} per class; more would make the numbers more precise."
        )
    t1 = (measured if material.tested[1] else material.holdout or measured)["T1"]["mean"]
    reached = [share for share in (t1, s) if share is not None]
    if reached and min(reached) < GOOD and could_try_more(material.run.config):
        lines.append(
            "With a time limit, such as --time 30m (and another --output), training also tries mirrored and enlarged "
            "images, and training the last layers of the network."
        )
    if len(material.found["seeds"]) == 1 and not material.found["deterministic"]:
        lines.append("The run has one seed; --seeds 5 shows how much the numbers depend on chance.")
    return lines


def in_points(half: float) -> str:
    """Half the width of an interval in percentage points."""
    return f"±{counted(round(100 * half), 'point')}"


def by_chance(metrics: Iterable[Mapping[str, Any]], what: str = "these accuracies") -> str:
    """How much metrics would differ on other images and on other classes; empty if no interval is known."""

    def half(low: str, high: str) -> float | None:
        widths = [(m[high] - m[low]) / 2 for m in metrics if m["mean"] is not None and m.get(low) is not None]
        return max(widths, default=None)

    metrics = list(metrics)
    images, classes = half("low", "high"), half("low_classes", "high_classes")
    if images is None:
        return ""
    if images < 0.005:
        wide = "more than that" if classes is None or classes < 0.005 else f"by about {in_points(classes)}"
        return f"With other images of the same classes, {what} would hardly change; with other classes, perhaps {wide}."
    wide = "by more" if classes is None else f"of this kind by about {in_points(classes)}"
    same = f"With other images of the same classes, {what} would move by about {in_points(images)}"
    return f"{same}, with other classes {wide}."


def could_try_more(config: RunConfig) -> bool:
    """Whether a time would let a run of `auto` try more than it did."""
    if config.method != AUTO and not config.raced:
        return False
    return not (config.time or config.backbone.imported or config.backbone.zoom > 1)


def foreseen(material: Material) -> list[Expectation]:
    """Unseen classes for which the table predicts problems, the worst first."""
    found = [e for e in expectations(material.table) if e.missing]
    return sorted(found, key=lambda e: (not e.trouble, -len(e.missing) / len(e.telling)))


def verdict(run: Run) -> list[str]:
    """The result of a run in at most three lines, from its folder alone.

    Accuracy on unseen classes among themselves, that on unseen and seen classes among all, and the unseen class with
    expected problems, or else what would help most. The report has the rest.
    """
    material = recorded(run)
    data, measured, holdout = material.manifest["data"], material.found["metrics"], material.holdout or {}
    unseen, every = data["classes_unseen"], data["classes_seen"] + data["classes_unseen"]
    lines = []
    s = measured["S"]
    estimated = measured["T1"]["mean"] is None and (holdout.get("T1") or {}).get("mean") is not None
    among, total = (material.in_holdouts[1], sum(material.in_holdouts)) if estimated else (unseen, every)
    source, classes = (holdout, held_out_classes(material)) if estimated else (measured, unseen)
    if source["T1"]["mean"] is not None:
        what = "Estimate for unseen classes" if estimated else "Unseen classes"
        lines.append(f"{_line(source['T1'], f'{what}, among {among}', 1 / max(among, 1), classes)}.")
        line = _line(source["U"], f"{what}, among all {total}", 1 / total, classes)
        if s["mean"] is not None:
            line += f"; seen {in_words(s['mean'])}{f', measured among all {every}' if estimated else ''}"
        lines.append(f"{line}.")
    else:
        if s["mean"] is not None:
            lines.append(f"{_line(s, f'Seen classes, among all {every}', 1 / every, data['classes_seen'])}.")
        if unseen:
            lines.append(
                f"There is no test image of the {'' if unseen == 1 else f'{unseen} '}unseen "
                f"{'class, so the accuracy on it' if unseen == 1 else 'classes, so the accuracy on them'} is unknown."
            )
    expected = foreseen(material)
    if expected:
        more = f" ({len(expected) - 1} more: see `unseen classes list`)" if len(expected) > 1 else ""
        return [*lines, f"{class_label(expected[0].name)}: {expected[0].text}{more}."]
    return [*lines, *advice(material, confusions(material), None)[:1]]


def _line(entry: Mapping[str, Any], what: str, chance: float, classes: int) -> str:
    """An accuracy, its interval, and its interpretation."""
    if entry["mean"] is None:
        return f"{what}: not measured"
    span = "" if entry["low"] is None else f", 95% interval {percent(entry['low'], 0)} to {percent(entry['high'], 0)}"
    said = {
        "above": "better than guessing",
        "below": "worse than guessing",
        "equal": "no different from guessing",
        "too few": "too few classes to tell",
    }
    close = f": {said[standing(*ends_of_mean(entry), chance, classes)]}" if chance < 1 else ""
    return f"{what}: {in_words(entry['mean'])} right (guessing {percent(chance, 0)}{span}){close}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
