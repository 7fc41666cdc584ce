"""Tables of LaTeX."""

from __future__ import annotations

from unseen.report.latex import latex


def entry(mean, std=0.0):
    return {"mean": mean, "std": std, "low": None, "high": None}


def found(views, rows):
    made = [
        {"name": name, "error": None, **{view: {"metrics": m} for view, m in zip(views, of, strict=True)}}
        for name, *of in rows
    ]
    return {"title": "T", "views": views, "metrics": ["T1", "H"], "rows": made}  # fmt: skip


def test_one_protocol():
    rows = [
        ("a_b", {"T1": entry(0.5), "H": entry(0.251)}),
        ("b", {"T1": entry(0.4, 0.0123), "H": entry(0.2512)}),
        ("c", {"T1": entry(None, None)}),
    ]
    failed = {"name": "d", "error": "too little memory"}
    table = found(["honest"], rows)
    table["rows"].append(failed)
    assert (
        latex(table, ["T", "first\nsecond"])
        == r"""% T
% first
% second
\begin{tabular}{lrr}
\toprule
 & T1 & H \\
\midrule
a\_b & \textbf{50.0} & \textbf{25.1} \\
b & 40.0 $\pm$ 1.2 & \textbf{25.1} \\
c & -- & -- \\
\bottomrule
\end{tabular}
"""
    )


def test_two_protocols_stand_side_by_side():
    one, other = {"T1": entry(0.5), "H": entry(0.3)}, {"T1": entry(0.6), "H": entry(0.2)}
    text = latex(found(["honest", "paper"], [("x", one, other), ("y", other, one)]), [])
    assert r" & \multicolumn{2}{c}{honest} & \multicolumn{2}{c}{paper} \\" in text
    assert r"x & 50.0 & \textbf{30.0} & \textbf{60.0} & 20.0 \\" in text
    assert r"y & \textbf{60.0} & 20.0 & 50.0 & \textbf{30.0} \\" in text


def test_no_row():
    assert r"\bottomrule" in latex(found(["honest"], []), ["T"])
