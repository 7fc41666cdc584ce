"""The share of a seen class's own training images in its score: what a class with images need not take from a table.

A class score is made of what the attributes say; of a seen class, part of it is replaced by what its own images say::

    w_c <- (1 - b s_c) w_c + b s_c e_c        s_c: 1 for a class with training images, else 0

w_c are weights of what was solved for the training classes (class means, one-vs-rest answers), e_c its own one. b is
chosen on validation classes. Unseen classes, and classes that are added later, are scored as without it. Ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unseen.methods.class_space import ClassSpace
from unseen.methods.preparation import FittedBuffers


class OwnImages(FittedBuffers):
    """Empty until it is fitted: no share.

    Buffers: ``share`` b ``()``; ``rows`` ``(N seen, C)`` b times what is multiplied with a prepared feature for each
    class trained on, in the order of the training; ``typical`` ``(C,)`` the mean prepared feature of training images.
    """

    share: Tensor
    rows: Tensor
    typical: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("rows", torch.zeros(0, 0))
        self.register_buffer("typical", torch.zeros(0))

    def fit(self, share: float, rows: Tensor, features: Tensor, like: Tensor) -> None:
        """Set the share; 0 for none.

        Args:
            share: b.
            rows: ``(N seen, C)``.
            features: ``(n, C)`` prepared features of the training images.
            like: of the dtype and device of the buffers.
        """
        self.share = like.new_tensor(share)
        self.rows = (share * rows).to(like).contiguous() if share else like.new_zeros(0, 0)
        self.typical = features.mean(dim=0).to(like) if share else like.new_zeros(0)

    def __len__(self) -> int:
        """C, or 0 without a share."""
        return len(self.typical)

    def left(self, classes: ClassSpace) -> Tensor:
        """``(N, 1)``: 1 - b s_c, what is left to the attributes."""
        return 1 - self.share * self._present(classes)

    def of(self, classes: ClassSpace) -> Tensor:
        """``(N, C)``: each class's own row, 0 for a class without images."""
        chosen: Tensor = self.rows[classes.trained.clamp(0, len(self.rows) - 1)]
        return chosen * self._present(classes)

    def _present(self, classes: ClassSpace) -> Tensor:
        known = (classes.trained >= 0) & (classes.trained < len(self.rows))
        return known.to(self.rows.dtype)[:, None]


def present_rows(rows: Tensor, present: Tensor, seen: Tensor) -> Tensor:
    """Rows of the classes that have training images, in the order of all seen ones; 0 for a seen class without.

    Args:
        rows: ``(n, C)``.
        present: ``(n,)`` their positions among all classes.
        seen: bool ``(N,)``.
    """
    every = rows.new_zeros(len(seen), rows.shape[1])
    every[present] = rows
    return every[seen]
