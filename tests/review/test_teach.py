"""What a person said of images helps the model, and measures nothing afterwards."""

from __future__ import annotations

import pytest
import torch

from review_tools import draw_images, model
from unseen.errors import RunError
from unseen.methods.preparation import FeaturePreparation
from unseen.model.support import SupportRule, SupportSpace
from unseen.review import Verdict
from unseen.review.begin import begin
from unseen.review.teach import teach

RULE = SupportRule(prior=1.0, scale=4.0, offset=0.0, few=0.0, bare_prior=1.0, bare_score=0.0)


@pytest.fixture
def recognizer(tiny_backbone):
    made = model(tiny_backbone)
    preparation = FeaturePreparation()
    channels = made.backbone.channels[0]
    preparation.fit("unit", torch.eye(channels), torch.arange(channels))
    return model(tiny_backbone, space=SupportSpace(preparation, RULE))


def test_reviewed_images_become_support_and_are_not_measured_again(recognizer, tmp_path):
    (tmp_path / "images").mkdir()
    images = draw_images(tmp_path / "images", 5)
    images[3].write_bytes(b"no image")
    with begin(recognizer, images, tmp_path / "r") as review:
        review.decide([0, 1, 3], Verdict("b/c"))
        review.decide([2], Verdict(None))
        assert teach(recognizer, review) == {"b/c": 2}
        assert teach(recognizer, review) == {}  # by their content
        before = review.items[0].classes
    assert [image.file for image in recognizer.support["b/c"].images] == [str(image) for image in images[:2]]
    with pytest.raises(RunError, match="a review with other support images — pass --again"):
        begin(recognizer, images, tmp_path / "r")
    with begin(recognizer, images, tmp_path / "r", again=True) as review:
        assert review.verdicts == {0: Verdict("b/c"), 1: Verdict("b/c"), 3: Verdict("b/c"), 2: Verdict(None)}
        assert review.items[0].classes != before
        assert review.used == {0, 1}
        assert review.reviewed().reviewed == 2  # the unknown one and the broken one
        rest = [row for row in review.order if row not in review.used]
        review.decide([rest[0]], Verdict(None))
        assert review.estimated().reviewed >= 1
    with pytest.raises(RunError, match="a review with other images"):
        begin(recognizer, images[:4], tmp_path / "r", again=True)
    begin(recognizer, images, tmp_path / "r").close()


def test_verdicts_follow_a_renamed_class_and_leave_a_removed_one(recognizer, tmp_path):
    (tmp_path / "images").mkdir()
    images = draw_images(tmp_path / "images", 4)
    before = recognizer.table
    with begin(recognizer, images, tmp_path / "r") as review:
        right = review.items[0].classes[0][0]
        other, gone = [name for name in recognizer.classes if name != right][:2]
        review.decide([0], Verdict(right))
        review.decide([1], Verdict(other))
        review.decide([2, 3], Verdict(gone))
        assert (review.reviewed().right, review.removed()) == (1 + (review.items[1].classes[0][0] == other), {})
    recognizer.rename_class(right, "New name")
    recognizer.remove_class(gone)
    with pytest.raises(RunError, match="a review with other class table — pass --again"):
        begin(recognizer, images, tmp_path / "r")
    with begin(recognizer, images, tmp_path / "r", again=True) as review:
        assert review.verdicts == {0: Verdict("New name"), 1: Verdict(other), 2: Verdict(gone), 3: Verdict(gone)}
        assert review.is_right(0)
        assert review.removed() == {gone: 2}
        assert teach(recognizer, review) == {"New name": 1, other: 1}
    assert set(recognizer.support.classes) == {"New name", other}
    recognizer.table = before


def test_verdicts_follow_two_classes_that_swap_names(recognizer, tmp_path):
    (tmp_path / "images").mkdir()
    images = draw_images(tmp_path / "images", 4)
    before = recognizer.table
    a, b, gone = before.names[:3]
    with begin(recognizer, images, tmp_path / "r") as review:
        for row, name in enumerate((a, b, gone)):
            review.decide([row], Verdict(name))
    for old, new in ((a, "between"), (b, a), ("between", b)):
        recognizer.rename_class(old, new)
    recognizer.remove_class(gone)
    with begin(recognizer, images, tmp_path / "r", again=True) as review:
        assert review.verdicts == {0: Verdict(b), 1: Verdict(a), 2: Verdict(gone)}
        review.decide([3], Verdict(a))
    recognizer.rename_class(b, gone)  # a class takes the name of the removed one
    with begin(recognizer, images, tmp_path / "r", again=True) as review:
        assert review.verdicts == {0: Verdict(gone), 1: Verdict(a), 2: Verdict(f"{gone} (removed)"), 3: Verdict(a)}
        assert review.removed() == {f"{gone} (removed)": 1}
    recognizer.table = before
