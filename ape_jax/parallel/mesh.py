"""The device mesh and where arrays lie on it."""

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
    """A mesh over all devices (or the first `devices`), with Auto axis types.

    Batches are split over all of its devices. With `fsdp` it has a second axis of that length, over
    which what is trained is split; neighbours in it are neighbours among the devices.

    Raises:
      UserError: where JAX finds no device of the platform that it was told to use, or `fsdp` does
        not divide their number.

    Auto, since under the Explicit default `a @ b.T` on batch-sharded arrays raises.
    """
    try:
        chosen = jax.devices()[:devices]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"JAX_PLATFORMS: there is no such device here ({reason})") from error
    shape, names = axes(len(chosen), fsdp)
    return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names), devices=chosen)


def axes(devices: int, fsdp: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shape of a mesh and the names of its axes.

    Raises:
      UserError: where `fsdp` does not divide the number of devices.
    """
    if devices % fsdp:
        raise UserError(
            f"config.mesh.fsdp: {fsdp} does not divide the {devices} devices; write a divisor"
        )
    return ((devices,), (DATA,)) if fsdp == 1 else ((devices // fsdp, fsdp), (DATA, FSDP))


def make_local_mesh() -> Mesh:
    """A one-dimensional mesh over the devices of this process, for work without the others."""
    chosen = jax.local_devices()
    return jax.make_mesh((len(chosen),), (DATA,), axis_types=(AxisType.Auto,), devices=chosen)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading dimension is split over every axis of the mesh."""
    return NamedSharding(mesh, P(mesh.axis_names))


def over_steps(mesh: Mesh) -> NamedSharding:
    """As `over_batch` for batches that are stacked: dimension 0 counts steps and stays whole."""
    return NamedSharding(mesh, P(None, mesh.axis_names))


def by_size(
    mesh: Mesh, shape: tuple[int, ...], min_size: int, over: tuple[str, ...] | None = None
) -> NamedSharding:
    """Splits an array of at least `min_size` elements along its longest divisible dimension.

    It is split over the mesh's axes named in `over`, by default over all of them.

    Stacked layers keep their leading dimension whole, since a scan reads one layer at a time:
    a later dimension wins a tie.
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
    """Where a trained parameter lies, and what the optimizer keeps of it: split over `FSDP`."""
    return by_size(mesh, shape, min_size, (FSDP,) if FSDP in mesh.axis_names else ())


def frozen_shardings(tree: Any, mesh: Mesh, min_size: int, rules: Rules = ()) -> Any:
    """Where frozen parameters lie: by name where a rule matches, else by size over all devices."""
    return _shardings(tree, mesh, rules, lambda shape: by_size(mesh, shape, min_size))


def trained_shardings(
    tree: Any, mesh: Mesh, min_size: int, rules: Rules = (), roots: Collection[str] = ()
) -> Any:
    """Where trained parameters lie: by name where a rule matches, else as `of_trained` has it.

    Args:
      tree: the parameters, or all that is kept beside them.
      mesh: the devices.
      min_size: of `by_size`.
      rules: see `ape_jax.config.placement`.
      roots: the topmost names of the parameters, where the tree has more above them: an optimizer's
        state has `text_tower/...` somewhere under `opt_state/1/mu`.
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
    """Puts a tree on the mesh by `frozen_shardings`; each process gives the whole tree."""
    return jax.tree.map(_place, tree, frozen_shardings(tree, mesh, min_size, rules))


def place_trained(tree: Any, mesh: Mesh, min_size: int, rules: Rules = ()) -> Any:
    """Puts a tree on the mesh by `trained_shardings`; each process gives the whole tree."""
    return jax.tree.map(_place, tree, trained_shardings(tree, mesh, min_size, rules))


def check_rules(rules: Rules, mesh: Mesh, *trees: Any) -> None:
    """Raises UserError for rules that do not go with the mesh or the parameters in these trees."""
    leaves = (leaf for tree in trees for leaf in jax.tree_util.tree_leaves_with_path(tree))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(x))
        for path, x in leaves
    }
    placement.check(rules, shapes, mesh.shape)


def place_replicated(tree: Any, mesh: Mesh) -> Any:
    """Puts a whole tree on every device."""
    return jax.tree.map(lambda x: _place(x, replicated(mesh)), tree)


def place_batch(tree: Any, mesh: Mesh) -> Any:
    """Global batch arrays from this process's share, [B / processes, ...] -> [B, ...].

    The mesh decides which rows of the global array a share becomes; all arrays agree on it. Where
    the devices of one process are not neighbours in the mesh, that is not the order of the shares.
    """
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def place_steps(tree: Any, mesh: Mesh) -> Any:
    """As `place_batch` for stacked batches: [K, B / processes, ...] -> [K, B, ...]."""
    sharding = over_steps(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def round_up(rows: int, mesh: Mesh) -> int:
    """`rows` rounded up to a multiple of the number of devices."""
    count = mesh.devices.size
    return -(-rows // count) * count


def check_batch(train: TrainConfig, mesh: Mesh) -> None:
    """Raises UserError for a `train.batch` or `micro_batch` that does not divide over the mesh."""
    if train.batch % mesh.size:
        raise UserError(
            f"config.train.batch: {train.batch} does not divide over the {mesh.size} devices; "
            f"write {round_up(train.batch, mesh)}"
        )
    if train.micro_batch % mesh.size:
        raise UserError(
            f"config.train.micro_batch: {train.micro_batch} does not divide over the {mesh.size} "
            f"devices; write a multiple of {mesh.size}"
        )


def place_whole_batch(tree: Any, mesh: Mesh, rows: int) -> Any:
    """Places a batch of up to `rows` rows that every process has whole, filled up to `rows`.

    It is filled with copies of its last row: one compiled shape, and no row of nothing but padding.
    Row i of the host array is row i of the placed one on any mesh. `place_batch` does not promise
    that: on a TPU torus the devices of one process need not be neighbours in the mesh.
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
