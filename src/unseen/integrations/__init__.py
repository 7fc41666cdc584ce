"""unseen in other libraries: scikit-learn estimators."""
