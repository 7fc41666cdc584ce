"""Foundations of all other packages: files, tensors, devices, processes, progress, images."""
