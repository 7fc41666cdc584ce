"""Visual-semantic decoder: every attribute attends to the tokens of a level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.methods.base import Branch


class Decoder(nn.Module):
    """Single-head cross attention from attribute vectors to tokens, and one classifier per attribute.

    With t_r a token and a_k an attribute vector, q, k, v, o the projections, U_k a classifier::

        A_kr = softmax over r of <q(a_k), k(t_r)>,   psi_k = <o(sum_r A_kr v(t_r)), U_k>

    Everything but the softmax is linear and A sums to one, so psi_k = sum_r A_kr s_kr with s_kr affine in t_r. The
    projections are therefore folded into 2K rows that multiply the tokens once, instead of ``2 width`` rows and more
    per token, with the same result. It is MSDN's A2V with W1 and W2 of low rank. (The key's bias cancels in the
    softmax; it is kept so that it has a zero gradient.)

    Args:
        dim: D of the attribute vectors.
        attributes: K.
        channels: C of the tokens.
        width: channels of queries, keys and values.
    """

    def __init__(self, dim: int, attributes: int, channels: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, width)
        self.key = nn.Linear(channels, width)
        self.value = nn.Linear(channels, width)
        self.output = nn.Linear(width, channels)
        self.classifiers = nn.Parameter(torch.zeros(attributes, channels))

    def _maps(self, vectors: Tensor, tokens: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Attention A and score map s, each ``(B, K, R)`` with R the positions of all token maps."""
        queries = self.query(vectors)
        outputs = self.classifiers @ self.output.weight
        weight = torch.cat([queries @ self.key.weight, outputs @ self.value.weight])
        bias = torch.cat([queries @ self.key.bias, outputs @ self.value.bias + self.classifiers @ self.output.bias])
        maps = [F.conv2d(t, weight[:, :, None, None], bias).flatten(2) for t in tokens]
        logits, scores = torch.cat(maps, dim=2).chunk(2, dim=1)
        return logits.softmax(dim=2), scores

    def forward(self, vectors: Tensor, tokens: list[Tensor]) -> Tensor:
        """Attribute scores ``(B, K)``.

        Args:
            vectors: ``(K, D)``.
            tokens: maps ``(B, C, h, w)``; every position is a token.
        """
        attention, scores = self._maps(vectors, tokens)
        return (attention * scores).sum(dim=2)

    def maps(self, vectors: Tensor, tokens: list[Tensor]) -> Branch:
        """Like :meth:`forward`, with attention and contributions of every position of all token maps."""
        attention, scores = self._maps(vectors, tokens)
        contributions = attention * scores

        def by_position(values: Tensor) -> Tensor:
            result: Tensor = values.unflatten(2, (len(tokens), -1)).sum(dim=2)
            return result

        return Branch(contributions.sum(dim=2), by_position(attention), by_position(contributions))
