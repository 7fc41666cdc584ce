"""Frozen networks: timm models, image and text towers, and the reduction of what they give."""
