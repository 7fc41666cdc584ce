"""The trained model: ranks classes, explains decisions, and holds the calibration."""
