"""Frozen networks: timm models, image and text towers, and the reduction of their features."""
