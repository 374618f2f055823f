"""Terms of the loss as their papers define them, in float64 by NumPy and torch.

For the tests of the terms, and for the checks on accelerators (tests/accelerator).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
import torch

KLOT_IMAGES, KLOT_TEXTS = 16, 24


def similarities(seed: int = 0, n: int = KLOT_IMAGES, m: int = KLOT_TEXTS) -> np.ndarray:
    """Cosines of images with texts, f32 [n, m]."""
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(n, 8)), rng.normal(size=(m, 8))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return (unit[0] @ unit[1].T).astype("f")


def plan(similarity: np.ndarray, eps: float, iterations: int) -> np.ndarray:
    """The logarithm of the plan as the paper's own code iterates, in float64."""
    logits = similarity.astype(np.float64) / eps
    n, m = logits.shape
    u, v = np.zeros(n), np.zeros(m)
    for _ in range(iterations):
        u = -np.log(n) - scipy.special.logsumexp(logits + v, axis=1)
        v = -np.log(m) - scipy.special.logsumexp(logits + u[:, None], axis=0)
    more_u = -np.log(n) - scipy.special.logsumexp(logits + v, axis=1)
    more_v = -np.log(m) - scipy.special.logsumexp(logits + u[:, None], axis=0)
    return logits + ((u + more_u) / 2)[:, None] + (v + more_v) / 2


def klot(
    student: np.ndarray,
    teacher: np.ndarray,
    eps: float = 0.05,
    teacher_eps: float = 0.005,
    iterations: int = 100,
) -> tuple[float, np.ndarray]:
    """KLOT and its gradient by the student's similarities, by NumPy in float64."""
    ours, target = plan(student, eps, iterations), plan(teacher, teacher_eps, iterations)
    value = (np.exp(target) * (target - ours)).sum()
    return value, (np.exp(ours) - np.exp(target)) / eps


STRUCTURE = 48, 24, 16  # Rows, and widths before and after.


def features() -> tuple[np.ndarray, np.ndarray]:
    """Features of three clusters far from the origin, and a noisy linear map of them."""
    rows, before_width, after_width = STRUCTURE
    rng = np.random.default_rng(0)
    before = (
        rng.normal(size=(rows, before_width))
        + 3 * rng.normal(size=(3, before_width))[np.arange(rows) % 3]
        + 2
    )
    after = before @ rng.normal(size=(before_width, after_width)) / 5 + rng.normal(
        size=(rows, after_width)
    )
    return before.astype("f"), after.astype("f")


def neighbours(x: np.ndarray, temperature: float) -> np.ndarray:
    """Row softmaxes of the products of unit vectors, centred, in float64."""
    x = np.asarray(x, np.float64)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    z = z - z.mean(axis=0)
    logits = z @ z.T / temperature
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropies of the rows."""
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)


def structure(
    before: np.ndarray, after: np.ndarray, temperature: float = 0.05, levels: int = 1
) -> float:
    """Jensen-Shannon as an entropy of the mean minus the mean entropy, in float64."""
    p, q = (neighbours(x, temperature) for x in (before, after))
    total = 0.0
    for level in range(1, levels + 1):
        one, other = (np.linalg.matrix_power(x, level) for x in (p, q))
        divergence = entropy((one + other) / 2) - (entropy(one) + entropy(other)) / 2
        total += divergence.mean() / level
    return total / levels


def differences(
    fn: Callable[[np.ndarray], float],
    x: np.ndarray,
    places: Sequence[tuple[int, int]],
    step: float = 1e-5,
) -> np.ndarray:
    """Central differences of a float64 function at some of its elements."""
    found = []
    for place in places:
        up, down = np.array(x, np.float64), np.array(x, np.float64)
        up[place] += step
        down[place] -= step
        found.append((fn(up) - fn(down)) / (2 * step))
    return np.array(found)


SUBWORDS = 48, 37  # Captions and words.


def subword_rows() -> tuple[np.ndarray, np.ndarray]:
    """Logits, and bags of which the last is empty."""
    rng = np.random.default_rng(0)
    targets = rng.uniform(0.1, 5, SUBWORDS) * (rng.random(SUBWORDS) < 0.2)
    targets[:, 3], targets[-1] = 0.7, 0
    return rng.normal(0, 3, SUBWORDS).astype("f"), targets.astype("f")


def subwords_by_torch(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss and its gradient by torch in float64."""
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    shares = torch.nn.functional.normalize(torch.tensor(targets, dtype=torch.float64), p=1, dim=1)
    loss = -(torch.log_softmax(x, dim=1) * shares).sum(dim=1).mean()
    loss.backward()
    return float(loss.detach()), x.grad.numpy()
