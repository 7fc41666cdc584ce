"""What everything stands on: files, tensors, devices, processes, progress, images."""
