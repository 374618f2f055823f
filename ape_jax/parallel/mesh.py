"""The device mesh and the shardings of arrays on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.config import placement
from ape_jax.config.placement import Rules
from ape_jax.config.sections import TrainConfig
from ape_jax.errors import UserError

DATA, FSDP = placement.AXES


def make_mesh(devices: int | None = None, fsdp: int = 1) -> Mesh:
    """Makes a mesh over all devices, with an optional second axis for trained parameters.

    Batches are sharded over all axes of the mesh. Axis types are Auto: with the default, Explicit,
    `a @ b.T` raises on batch-sharded arrays.

    Example:
      >>> mesh = make_mesh(devices=1)
      >>> mesh.axis_names, mesh.size
      (('data',), 1)

    Args:
      devices: number of devices, the first ones; None for all.
      fsdp: length of the second axis, over which trained parameters are sharded; its neighbours are
        adjacent devices. 1 for no second axis.

    Returns:
      A mesh of axis `data`, or of axes `data` and `fsdp`.

    Raises:
      UserError: if JAX finds no device of the requested platform, or `fsdp` does not divide the
        number of devices.
    """
    try:
        chosen = jax.devices()[:devices]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"JAX_PLATFORMS: there is no such device here ({reason})") from error
    shape, names = axes(len(chosen), fsdp)
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names), devices=chosen)


def axes(devices: int, fsdp: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns the shape of a mesh and the names of its axes.

    Args:
      devices: number of devices.
      fsdp: length of the second axis, 1 for none.

    Raises:
      UserError: if `fsdp` does not divide the number of devices.
    """
    if devices % fsdp:
        raise UserError(
            f"config.mesh.fsdp: {fsdp} does not divide the {devices} devices; write a divisor"
        )
    return ((devices,), (DATA,)) if fsdp == 1 else ((devices // fsdp, fsdp), (DATA, FSDP))


def make_local_mesh() -> Mesh:
    """Makes a one-dimensional mesh over the devices of this process only."""
    chosen = jax.local_devices()
    return jax.make_mesh((len(chosen),), (DATA,), axis_types=(AxisType.Auto,), devices=chosen)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding that replicates an array on every device."""
    return NamedSharding(mesh, P())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis over all axes of the mesh."""
    return NamedSharding(mesh, P(mesh.axis_names))


def over_steps(mesh: Mesh) -> NamedSharding:
    """Sharding of batches stacked over steps: axis 1 over all axes of the mesh."""
    return NamedSharding(mesh, P(None, mesh.axis_names))


def by_size(
    mesh: Mesh, shape: tuple[int, ...], min_size: int, over: tuple[str, ...] | None = None
) -> NamedSharding:
    """Sharding of an array of at least `min_size` elements along its longest divisible axis.

    A later axis wins a tie: a scan reads one of the stacked layers at a time, so the leading axis
    should not be sharded.

    Args:
      mesh: the mesh.
      shape: shape of the array.
      min_size: number of elements below which the array is replicated.
      over: names of the mesh axes to shard over; None for all.
    """
    names = mesh.axis_names if over is None else over
    count = math.prod(mesh.shape[name] for name in names)
    if np.prod(shape, dtype=np.int64) < min_size or count == 1:
        return replicated(mesh)
    candidates = [(size, axis) for axis, size in enumerate(shape) if size % count == 0]
    if not candidates:
        return replicated(mesh)
    _, axis = max(candidates)
    return NamedSharding(mesh, P(*(names if i == axis else None for i in range(len(shape)))))


def of_trained(mesh: Mesh, shape: tuple[int, ...], min_size: int) -> NamedSharding:
    """Sharding of a trained parameter and its optimizer state: by size, over `FSDP`."""
    return by_size(mesh, shape, min_size, (FSDP,) if FSDP in mesh.axis_names else ())


def frozen_shardings(tree: Any, mesh: Mesh, min_size: int, rules: Rules = ()) -> Any:
    """Shardings of frozen parameters: by the first matching rule, else by size over all devices."""
    return _shardings(tree, mesh, rules, lambda shape: by_size(mesh, shape, min_size))


def trained_shardings(
    tree: Any, mesh: Mesh, min_size: int, rules: Rules = (), roots: Collection[str] = ()
) -> Any:
    """Shardings of trained parameters: by the first matching rule, else as `of_trained`.

    Args:
      tree: parameters, or a training state with parameters below it.
      mesh: the mesh.
      min_size: number of elements below which an array is replicated.
      rules: patterns of parameter names and their shardings, see `ape_jax.config.placement`.
      roots: top-level names of the parameters, if the tree has levels above them: an optimizer
        state has `text_tower/...` under `opt_state/1/mu`.
    """
    return _shardings(tree, mesh, rules, lambda shape: of_trained(mesh, shape, min_size), roots)


def _shardings(
    tree: Any,
    mesh: Mesh,
    rules: Rules,
    usual: Callable[[tuple[int, ...]], NamedSharding],
    roots: Collection[str] = (),
) -> Any:
    def of(path: Any, x: Any) -> NamedSharding:
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        start = next((i for i, part in enumerate(parts) if part in roots), 0)
        where = placement.find(rules, "/".join(parts[start:]))
        if where is None:
            return usual(np.shape(x))
        return NamedSharding(mesh, P(*placement.split(where, np.ndim(x))))

    return jax.tree_util.tree_map_with_path(of, tree)


def place_frozen(tree: Any, mesh: Mesh, min_size: int, rules: Rules = ()) -> Any:
    """Puts a tree on the mesh by `frozen_shardings`; each process passes the whole tree."""
    return jax.tree.map(_place, tree, frozen_shardings(tree, mesh, min_size, rules))


def place_trained(tree: Any, mesh: Mesh, min_size: int, rules: Rules = ()) -> Any:
    """Puts a tree on the mesh by `trained_shardings`; each process passes the whole tree."""
    return jax.tree.map(_place, tree, trained_shardings(tree, mesh, min_size, rules))


def check_rules(rules: Rules, mesh: Mesh, *trees: Any) -> None:
    """Raises UserError for rules that do not match the mesh or the parameters in these trees."""
    leaves = (leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(x))
        for path, x in leaves
    }
    placement.check(rules, shapes, mesh.shape)


def place_replicated(tree: Any, mesh: Mesh) -> Any:
    """Replicates a tree on every device."""
    return jax.tree.map(lambda x: _place(x, replicated(mesh)), tree)


def place_batch(tree: Any, mesh: Mesh) -> Any:
    """Makes global batch arrays from this process's rows, [B / processes, ...] -> [B, ...].

    The mesh decides which rows of the global array they become, the same for all arrays. If the
    devices of a process are not adjacent in the mesh, it is not the order of the processes.
    """
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def place_steps(tree: Any, mesh: Mesh) -> Any:
    """Makes global arrays of stacked batches, [K, B / processes, ...] -> [K, B, ...]."""
    sharding = over_steps(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def round_up(rows: int, mesh: Mesh) -> int:
    """Rounds `rows` up to a multiple of the number of devices."""
    count = mesh.devices.size
    return -(-rows // count) * count


def check_batch(train: TrainConfig, mesh: Mesh) -> None:
    """Raises UserError for a `train.batch` or `micro_batch` that does not divide over the mesh."""
    check_divides("train.batch", train.batch, mesh)
    if train.micro_batch % mesh.size:
        raise UserError(
            f"config.train.micro_batch: {train.micro_batch} does not divide over the {mesh.size} "
            f"devices; write a multiple of {mesh.size}"
        )


def check_divides(key: str, batch: int, mesh: Mesh) -> None:
    """Raises UserError naming the config key of a batch that does not divide over the mesh."""
    if batch % mesh.size:
        raise UserError(
            f"config.{key}: {batch} does not divide over the {mesh.size} devices; write "
            f"{round_up(batch, mesh)}"
        )


def place_whole_batch(tree: Any, mesh: Mesh, rows: int) -> Any:
    """Shards a batch that every process has in full, padded to `rows` rows.

    It is padded with copies of its last row: one compiled shape, and no row of padding only. Row i
    of the host array is row i of the result on any mesh, which `place_batch` does not guarantee: on
    a TPU torus the devices of a process need not be adjacent in the mesh.
    """
    sharding = over_batch(mesh)

    def place(x: np.ndarray) -> jax.Array:
        full = np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])
        return jax.make_array_from_callback(full.shape, sharding, full.__getitem__)

    return jax.tree.map(place, tree)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
