"""unseen in other libraries: scikit-learn, Ray, experiment trackers."""
