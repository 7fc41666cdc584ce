"""Facts about a model in plain words."""

from __future__ import annotations

import json

from unseen.serve.about import metrics_of


def test_estimates_stand_in_for_what_has_no_test_images(tmp_path):
    """A run without test images of unseen classes must not show its seen classes alone."""
    nothing, known = {"mean": None, "low": None, "high": None}, {"mean": 1.0, "low": 0.87, "high": 1.0}
    holdout = {
        "classes_set_aside": 2,
        "metrics": {"T1": {"mean": 0.9, "low": 0.7, "high": 1.0}, "S": known, "U": nothing},
    }
    block = {"metrics": {"T1": nothing, "S": known, "U": nothing}, "holdout": holdout}
    (tmp_path / "results.json").write_text(json.dumps({"protocols": {"honest": block}}))
    t1, s = metrics_of(tmp_path)
    assert (t1.name, t1.value, t1.low, t1.estimated) == ("Unseen classes, among themselves", 0.9, 0.7, True)
    assert t1.meaning.startswith(
        "estimated by setting 2 of the classes aside: mean per-class accuracy on unseen classes"
    )
    assert (s.value, s.low, s.estimated) == (1.0, 0.87, False)
    del block["holdout"]
    (tmp_path / "results.json").write_text(json.dumps({"protocols": {"honest": block}}))
    assert [m.value for m in metrics_of(tmp_path)] == [1.0]
    assert metrics_of(tmp_path / "elsewhere") == []
