"""NegCLIP's loss by torch in float64, of a small batch: value and gradients."""

from __future__ import annotations

import functools

import numpy as np
import torch

B, E, H, SCALE = 16, 8, 3, np.float32(5.0)
IDS = np.arange(B, dtype=np.int32) % 11
CAPTIONS = np.arange(B, dtype=np.int32)[:, None]


def embeddings() -> list[np.ndarray]:
    """Of images, of their captions and of their negative captions [B, H, E], all of unit length."""
    rng = np.random.default_rng(0)
    zimg, ztxt, hard = (rng.normal(size=shape) for shape in ((B, E), (B, E), (B, H, E)))
    ztxt, hard = ztxt + zimg, hard + zimg[:, None]
    return [
        (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)
        for z in (zimg, ztxt, hard)
    ]


def hard_ids() -> np.ndarray:
    """Images with fewer negatives, and a negative that is the caption of another image."""
    ids = 100 + np.arange(B * H, dtype=np.int32).reshape(B, H)
    ids[::4, 2], ids[3], ids[1, 0] = -1, -1, 5
    return ids


def expected(groups: int, smoothing: float) -> tuple[float, list[np.ndarray]]:
    """NegCLIP (2210.01936): the batch's negative captions beside its texts, for images only."""
    zimg, ztxt, hard = (
        torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in embeddings()
    )
    ids, group, own = torch.tensor(IDS), torch.arange(B) // (B // groups), torch.eye(B).bool()
    seen = ((ids[:, None] != ids) & (group[:, None] == group)) | own
    of_hard = torch.tensor(hard_ids()).reshape(-1)
    beside = (of_hard >= 0) & (torch.tensor(CAPTIONS) != of_hard)
    beside &= group[:, None] == group.repeat_interleave(H)
    texts, scale = torch.cat([ztxt, hard.reshape(-1, E)]), float(SCALE)
    total = 0.0
    cross_entropy = functools.partial(torch.nn.functional.cross_entropy, label_smoothing=smoothing)
    for i in range(B):
        row = scale * zimg[i] @ texts.T
        kept = torch.cat([seen[i], beside[i]])
        total = total + cross_entropy(row[kept][None], seen[i, :i].sum()[None])
        column = scale * zimg @ ztxt[i]
        total = total + cross_entropy(column[seen[:, i]][None], seen[:i, i].sum()[None])
    (total / (2 * B)).backward()
    return (total / (2 * B)).item(), [z.grad.numpy() for z in (zimg, ztxt, hard)]
