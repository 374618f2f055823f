"""Softmax and sigmoid losses by one pass round the ring, with derivatives written by hand.

Softmax keeps one log-sum-exp per row and column of the [B, B] matrix, and its backward pass
recomputes each tile: four products of tiles, one forward and three backward. Sigmoid needs no such
sums: its gradient is computed together with the value, with three products.

The reference implementations are `losses.softmax_reference` and `losses.sigmoid_reference`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PyTree

from ape_jax.align.losses.contrastive import Ids
from ape_jax.align.losses.ring import Ring, Side, Tile

# Initial maximum: acts as -inf, but its difference from itself is zero and not NaN.
_LOWEST = -1e30


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def softmax(
    ring: Ring,
    smoothing: float,
    zimg: Float[Array, "B e"],
    ztxt: Float[Array, "B e"],
    scale: Float[Array, ""],
    ids: tuple[Ids, Ids] | None,
    zhard: Float[Array, "B H e"] | None = None,
    hard_ids: tuple[Integer[Array, "B H"], Integer[Array, "B P"]] | None = None,
) -> Float[Array, ""]:
    """Computes `losses.softmax` round the ring.

    Args:
      ring: sharding of the batch and negatives of its pairs.
      smoothing: label smoothing.
      zimg: image embeddings of unit length, f32 or bf16.
      ztxt: text embeddings of unit length, f32 or bf16.
      scale: factor of the cosines.
      ids: ids of the images and of the texts, i32 [B, c] each; None if all are different.
      zhard: embeddings of negative captions; None for none.
      hard_ids: their ids, and those of the images' captions (`losses.hard.Hard`).
    """
    return _softmax_forward(ring, smoothing, zimg, ztxt, scale, ids, zhard, hard_ids)[0]


def _softmax_forward(ring, smoothing, zimg, ztxt, scale, ids, zhard, hard_ids):
    def on_device(sharded: PyTree, scale: Array) -> tuple[Array, PyTree]:
        *pairs, hard = sharded
        home, guest = _sides(ring, *pairs)
        fresh = _no_negatives(len(home["z"]))

        def visit(tile: Tile, rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
            of_rows, of_columns = _leads(tile)
            return (
                _add_exponentials(rows, scale, of_rows, tile.negative, axis=1),
                _add_exponentials(columns, scale, of_columns, tile.negative, axis=0),
            )

        def visit_hard(tile: Tile, rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
            lead = tile.cosines - tile.home["positive"][:, None]
            return _add_exponentials(rows, scale, lead, tile.negative, axis=1), columns

        sums = ring.sweep(visit, _merge_exponentials, home, guest, (fresh, fresh))
        for side, beside in _hard_sides(home, guest, hard):
            rows, _ = _hard(ring).sweep(visit_hard, _first, side, beside, (sums[0], ()))
            sums = rows, sums[1]
        # softplus(log-sum-exp of the negatives' lead over the pair) is the cross entropy.
        entropies = [jax.nn.softplus(jnp.log(s["total"]) + s["top"]) for s in sums]
        terms = entropies[0] + entropies[1]
        if smoothing:
            for s in sums:
                terms -= smoothing * scale * s["lead"] / (s["count"] + 1)
        counts = [s["count"] for s in sums]
        loss = ring.total(terms.sum()) / (2 * len(zimg))
        return loss, (entropies, counts)

    kept = [True, True]
    sharded = zimg, ztxt, ids, (zhard, hard_ids)
    loss, found = ring.on_devices(on_device, sharded, scale, (False, (kept, kept)))
    return loss, (zimg, ztxt, scale, ids, zhard, hard_ids, found)


def _hard(ring: Ring) -> Ring:
    """The ring on which images meet negative captions."""
    return dataclasses.replace(ring, hard=True)


def _hard_sides(home: Side, guest: Side, hard: PyTree) -> Iterator[tuple[Side, Side]]:
    """The device's images and the h-th negative captions of its images, for each h."""
    z, ids = hard
    if z is None:
        return
    of_texts, of_images = ids
    for h in range(z.shape[1]):
        beside = {"z": z[:, h], "ids": of_texts[:, h, None], "index": guest["index"]}
        yield {**home, "ids": of_images}, beside


def _first(a: PyTree, b: PyTree) -> PyTree:
    """In the place of a merge, where nothing is summed over images."""
    return a


def _leads(tile: Tile) -> tuple[Float[Array, "m n"], Float[Array, "m n"]]:
    """Cosines minus those of the image's own pair, and minus those of the text's own pair."""
    own = tile.home["positive"][:, None], tile.guest["positive"][None, :]
    return tile.cosines - own[0], tile.cosines - own[1]


def _no_negatives(b: int) -> PyTree:
    zeros = jnp.zeros(b, jnp.float32)
    return {"top": zeros + _LOWEST, "total": zeros, "lead": zeros, "count": zeros}


def _add_exponentials(sums: PyTree, scale: Array, lead: Array, negative: Array, axis: int):
    """Updates the running log-sum-exp of scale * lead, the sum of lead and the count."""
    x = scale * lead
    top = jnp.maximum(sums["top"], jnp.max(x, axis=axis, where=negative, initial=_LOWEST))
    terms = jnp.where(negative, jnp.exp(x - jnp.expand_dims(top, axis)), 0)
    return {
        "top": top,
        "total": sums["total"] * jnp.exp(sums["top"] - top) + terms.sum(axis=axis),
        "lead": sums["lead"] + jnp.where(negative, lead, 0).sum(axis=axis),
        "count": sums["count"] + negative.astype(jnp.float32).sum(axis=axis),
    }


def _merge_exponentials(a: PyTree, b: PyTree) -> PyTree:
    top = jnp.maximum(a["top"], b["top"])
    total = sum(s["total"] * jnp.exp(s["top"] - top) for s in (a, b))
    return {"top": top, "total": total, **{k: a[k] + b[k] for k in ("lead", "count")}}


def _softmax_backward(ring, smoothing, saved, cotangent):
    zimg, ztxt, scale, ids, zhard, hard_ids, found = saved

    def on_device(sharded: PyTree, replicated: PyTree) -> tuple[Array, Array, Array, Array | None]:
        (zimg, ztxt, ids, hard, (entropies, counts)), (scale, cotangent) = sharded, replicated
        home, guest = _sides(ring, zimg, ztxt, ids)
        for side, entropy, count in zip((home, guest), entropies, counts):
            side |= {"entropy": entropy, "share": smoothing / (count + 1)}

        def visit(tile: Tile, rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
            (of_rows, of_columns), home, guest = _leads(tile), tile.home, tile.guest
            # sigmoid(lse) exp(x - lse) = exp(x - softplus(lse)): a softmax over pair and negatives.
            weights = jnp.exp(scale * of_rows - home["entropy"][:, None])
            weights += jnp.exp(scale * of_columns - guest["entropy"][None, :])
            if smoothing:
                weights -= home["share"][:, None] + guest["share"][None, :]
            weights = jnp.where(tile.negative, weights, 0)
            return _add_gradients(tile, weights, rows, columns, {"with": weights * tile.cosines})

        def visit_hard(tile: Tile, rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
            lead = tile.cosines - tile.home["positive"][:, None]
            weights = jnp.exp(scale * lead - tile.home["entropy"][:, None])
            if smoothing:
                weights -= tile.home["share"][:, None]
            weights = jnp.where(tile.negative, weights, 0)
            return _add_gradients(tile, weights, rows, columns, {"with": weights * tile.cosines})

        none = _no_gradients(zimg, ("with",))
        sums, dhard = ring.sweep(visit, _add, home, guest, none), []
        for side, beside in _hard_sides(home, guest, hard):
            rows, columns = _hard(ring).sweep(visit_hard, _add, side, beside, (sums[0], none[1]))
            sums = rows, sums[1]
            dhard.append(columns["z"])
        by_positive = jnp.expm1(-home["entropy"]) + jnp.expm1(-guest["entropy"])
        if smoothing:
            by_positive += sum(s["share"] * n for s, n in zip((home, guest), counts))
        factor = cotangent / (2 * ring.devices * len(zimg))
        dimg, dtxt = _embedding_gradients(home, guest, sums, by_positive, scale * factor)
        # Row by row: the two terms nearly cancel.
        dscale = factor * (sums[0]["with"] + by_positive * home["positive"]).sum()
        own = (scale * factor * jnp.stack(dhard, axis=1)).astype(hard[0].dtype) if dhard else None
        return dimg, dtxt, ring.total(dscale), own

    out = (True, True, False, None if zhard is None else True)
    sharded = zimg, ztxt, ids, (zhard, hard_ids), found
    *gradients, dhard = ring.on_devices(on_device, sharded, (scale, cotangent), out)
    return (*gradients, None, dhard, None)


softmax.defvjp(_softmax_forward, _softmax_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sigmoid(
    ring: Ring,
    divisor: float,
    zimg: Float[Array, "B e"],
    ztxt: Float[Array, "B e"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    ids: tuple[Ids, Ids] | None,
) -> Float[Array, ""]:
    """Computes `losses.sigmoid` round the ring.

    Args:
      ring: sharding of the batch and negatives of its pairs.
      divisor: divisor of the sum over all image-text combinations.
      zimg: image embeddings of unit length, f32 or bf16.
      ztxt: text embeddings of unit length, f32 or bf16.
      scale: factor of the cosines.
      bias: added to the scaled cosines.
      ids: ids of the images and of the texts, i32 [B, c] each; None if all are different.
    """

    def on_device(sharded: PyTree, replicated: tuple[Array, Array]) -> Array:
        scale, bias = replicated
        home, guest = _sides(ring, *sharded)

        def visit(tile: Tile, rows: Array, columns: PyTree) -> tuple[Array, PyTree]:
            negative = jnp.where(tile.negative, jax.nn.softplus(scale * tile.cosines + bias), 0)
            return rows + negative.sum(axis=1), columns

        zero = jnp.zeros(len(home["z"]), jnp.float32)
        negative, _ = ring.sweep(visit, lambda a, b: a, home, guest, (zero, ()))
        positive = jax.nn.softplus(-(scale * home["positive"] + bias))
        return ring.total((negative + positive).sum()) / divisor

    return ring.on_devices(on_device, (zimg, ztxt, ids), (scale, bias), False)


def _sigmoid_forward(ring, divisor, zimg, ztxt, scale, bias, ids):
    """Value and gradients in one pass: negative softmax's, no term waits for the others' sum."""

    def on_device(sharded: PyTree, replicated: PyTree) -> tuple[Array, tuple[Array, ...]]:
        scale, bias = replicated
        home, guest = _sides(ring, *sharded)

        def visit(tile: Tile, rows: PyTree, columns: PyTree) -> tuple[PyTree, PyTree]:
            logits = scale * tile.cosines + bias
            weights = jnp.where(tile.negative, jax.nn.sigmoid(logits), 0)
            negative = jnp.where(tile.negative, jax.nn.softplus(logits), 0)
            sums = {"with": weights * tile.cosines, "weight": weights, "loss": negative}
            return _add_gradients(tile, weights, rows, columns, sums)

        zero = _no_gradients(home["z"], ("with", "weight", "loss"))
        sums = ring.sweep(visit, _add, home, guest, zero)
        logits = scale * home["positive"] + bias
        by_positive = -jax.nn.sigmoid(-logits)
        dimg, dtxt = _embedding_gradients(home, guest, sums, by_positive, scale / divisor)
        dscale = (sums[0]["with"] + by_positive * home["positive"]).sum() / divisor
        dbias = (sums[0]["weight"] + by_positive).sum() / divisor
        loss = (sums[0]["loss"] + jax.nn.softplus(-logits)).sum() / divisor
        return ring.total(loss), (dimg, dtxt, ring.total(dscale), ring.total(dbias))

    out = (False, (True, True, False, False))
    return ring.on_devices(on_device, (zimg, ztxt, ids), (scale, bias), out)


def _sigmoid_backward(ring, divisor, gradients, cotangent):
    return (*((cotangent * g).astype(g.dtype) for g in gradients), None)


sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)


def _sides(
    ring: Ring, zimg: Array, ztxt: Array, ids: tuple[Array, Array] | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Arrays of the device's images and texts that the tiles read."""
    own = (zimg.astype(jnp.float32) * ztxt.astype(jnp.float32)).sum(axis=1)
    index = ring.indices(len(zimg))
    both = {"positive": own, "index": index}
    image_ids, text_ids = (index[:, None],) * 2 if ids is None else ids
    return {"z": zimg, "ids": image_ids, **both}, {"z": ztxt, "ids": text_ids, **both}


def _no_gradients(z: Array, scalars: tuple[str, ...]) -> tuple[PyTree, PyTree]:
    """Initial sums of a backward pass, of the images and of the texts."""
    zeros = jnp.zeros(z.shape, jnp.float32)
    return {"z": zeros, **{name: jnp.zeros(len(z), jnp.float32) for name in scalars}}, {"z": zeros}


def _add_gradients(
    tile: Tile, weights: Array, rows: PyTree, columns: PyTree, summed: PyTree
) -> tuple[PyTree, PyTree]:
    """Adds the gradients of a tile, and the sums over its columns."""
    by_image, by_text = tile.gradients(weights)
    rows = {"z": rows["z"] + by_image, **{k: rows[k] + x.sum(axis=1) for k, x in summed.items()}}
    return rows, {"z": columns["z"] + by_text}


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)


def _embedding_gradients(
    home: Side, guest: Side, sums: tuple[PyTree, PyTree], by_positive: Array, factor: Array
) -> tuple[Array, Array]:
    """Gradients of pairs and negatives together, in the types of the embeddings."""

    def finished(side: Side, other: Side, total: Array) -> Array:
        own = by_positive[:, None] * other["z"].astype(jnp.float32)
        return (factor * (total + own)).astype(side["z"].dtype)

    return finished(home, guest, sums[0]["z"]), finished(guest, home, sums[1]["z"])
