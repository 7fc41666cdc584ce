"""Features, labels and attributes in memory (X, y, S): a scikit-learn classifier of unseen classes.

python features.py
"""

import numpy as np
import pandas as pd

import unseen


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """X ``(n, C)`` that shows the attributes of 12 classes, y class names, S ``(12, 10)`` attributes by class."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        (rng.random((12, 10)) > 0.5) + 0.05,
        index=[f"class {i}" for i in range(12)],
        columns=[f"attribute {k}" for k in range(10)],
    )
    y = np.repeat(table.index.to_numpy(), 20)
    X = table.loc[y].to_numpy() @ rng.normal(size=(10, 64)) + 0.5 * rng.normal(size=(240, 64))
    return X, y, table


def main() -> None:
    """Learn eight classes, name images of four others, then of one that is described later."""
    X, y, S = made_up()
    seen = np.isin(y, S.index[:8])
    model = unseen.ZeroShotClassifier("eszsl", preset="paper").fit(X[seen], y[seen], attributes=S)
    right = (model.predict(X[~seen], among="unseen") == y[~seen]).mean()
    print(f"accuracy on 4 unseen classes, among these: {right:.0%}")
    model.add_class("class 12", S.loc["class 11"].to_dict())
    print("classes:", len(model.classes_))


if __name__ == "__main__":
    main()
