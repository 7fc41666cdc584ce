"""The trained model: what ranks classes, explains and is calibrated."""
