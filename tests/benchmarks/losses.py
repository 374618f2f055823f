"""The loss and its gradients: time, memory and FLOPs beside the usual forms and open_clip's.

    python tests/benchmarks/losses.py --name softmax --batch 16384 --devices 1

prints one JSON line. Contestants run in turn, round after round, and medians are compared:

* `ring`, `dense`: `losses.softmax` or `losses.sigmoid`, by `loss.impl`;
* `gathered`: each device gathers both sides and makes its rows of both matrices, the usual "local
  loss" of multi-host trainers;
* `open_clip`: ClipLoss or SigLipLoss in torch, eager, on all cores (on one device only);
  `open_clip_medium` with f32 products of torch's "medium" precision, which are twice as fast on
  some processors and no less exact: `error` is how far its gradients are from the plain ones, max
  abs over max abs.

`mib` is the compiler's figure for temporary memory a device, of torch the growth of the process's
peak memory over one call in a process of its own (`--memory`). Fake devices share this machine's
cores: time on eight says what the form costs in all, not how it scales.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SCALARS = {"softmax": (20.0,), "sigmoid": (20.0, -10.0)}


def main() -> None:
    """Measures what the flags ask for."""
    args = parse()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.devices}"
    if args.memory:
        print(torch_memory(args))
        return
    runs: dict[str, Callable[[], Any]] = {}
    report: dict[str, Any] = {"benchmark": "losses", **vars(args)}
    found: dict[str, dict[str, float]] = {}
    for form in args.forms.split(","):
        if form == "open_clip":
            if args.devices == 1:
                exact, medium = (open_clip(args, p) for p in ("highest", "medium"))
                found[form] = {"mib": memory_of_torch()}
                found[f"{form}_medium"] = {**found[form], "error": distance(medium(), exact())}
                runs |= {form: exact, f"{form}_medium": medium}
            continue
        executable, arrays = compiled(args, form)
        temporary = executable.memory_analysis().temp_size_in_bytes
        found[form] = {"mib": round(temporary / 2**20, 1)}
        runs[form] = lambda run=executable, a=arrays: [x.block_until_ready() for x in run(*a)]
    times: dict[str, list[float]] = {form: [] for form in runs}
    for i in range(args.rounds + 1):
        print(f"round {i}/{args.rounds}", file=sys.stderr)
        for form, run in runs.items():
            start = time.perf_counter()
            run()
            if i:  # The first warms up.
                times[form].append(time.perf_counter() - start)
    for form, seconds in times.items():
        found[form]["seconds"] = round(statistics.median(seconds), 3)
    ring = found["ring"]["seconds"]
    ratios = {form: round(row["seconds"] / ring, 2) for form, row in found.items()}
    print(json.dumps({**report, "found": found, "times_ring": ratios}))


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", choices=tuple(SCALARS), default="softmax")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--forms", default="ring,dense,gathered,open_clip")
    parser.add_argument("--memory", action="store_true", help="only torch's peak memory")
    return parser.parse_args()


def embeddings(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Pairs a little nearer to each other than to the rest."""
    rng = np.random.default_rng(0)
    z = [rng.normal(size=(args.batch, args.width)).astype(np.float32) for _ in range(2)]
    z[1] += z[0]
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in z)


def compiled(args: argparse.Namespace, form: str) -> tuple[Any, tuple[Any, ...]]:
    """A program for value and gradients, and its arguments on the mesh."""
    import jax

    from ape_jax.align import losses
    from ape_jax.parallel import mesh as mesh_lib

    mesh = mesh_lib.make_mesh()
    assert mesh.size == args.devices

    def loss(*z: Any) -> Any:
        if form == "gathered":
            return gathered(args.name, mesh, *z)
        return getattr(losses, args.name)(*z, mesh=mesh, impl=form)

    def step(*z: Any) -> list[Any]:
        return jax.tree.leaves(jax.value_and_grad(loss, argnums=tuple(range(len(z))))(*z))

    scalars = [np.float32(s) for s in SCALARS[args.name]]
    arrays = *jax.device_put(embeddings(args), mesh_lib.over_batch(mesh)), *scalars
    return jax.jit(step).lower(*arrays).compile(), arrays


def gathered(name: str, mesh: Any, zimg: Any, ztxt: Any, *scalars: Any) -> Any:
    """The usual form: all of both sides on every device, and this device's rows of two matrices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    from ape_jax.parallel.mesh import DATA

    def local(zimg: Any, ztxt: Any, scale: Any, *bias: Any) -> Any:
        b = len(zimg)
        all_images, all_texts = (jax.lax.all_gather(z, DATA, tiled=True) for z in (zimg, ztxt))
        own = jnp.arange(b) + b * jax.lax.axis_index(DATA)
        exact = {"precision": jax.lax.Precision.HIGHEST}
        by_image = scale * jnp.matmul(zimg, all_texts.T, **exact)
        if bias:
            alike = own[:, None] == jnp.arange(b * mesh.size)[None, :]
            logits = jnp.where(alike, 1, -1) * (by_image + bias[0])
            total = -jax.nn.log_sigmoid(logits).sum()
        else:
            by_text = scale * jnp.matmul(ztxt, all_images.T, **exact)
            picked = [jax.nn.log_softmax(x)[jnp.arange(b), own] for x in (by_image, by_text)]
            total = -(picked[0] + picked[1]).sum() / 2
        return jax.lax.psum(total, DATA) / (b * mesh.size)

    specs = (P(DATA), P(DATA), *(P() for _ in scalars))
    run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
    return run(zimg, ztxt, *scalars)


def distance(found: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """The largest of max abs over max abs."""
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(found, exact, strict=True))


def open_clip(args: argparse.Namespace, precision: str) -> Callable[[], list[np.ndarray]]:
    """open_clip's loss on one process: importing the whole package would ask for torchvision."""
    import torch

    (directory,) = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(directory) / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss = (module.ClipLoss if args.name == "softmax" else module.SigLipLoss)()
    tensors = [torch.tensor(a) for a in (*embeddings(args), *np.float32(SCALARS[args.name]))]

    def run() -> list[np.ndarray]:
        torch.set_float32_matmul_precision(precision)
        for x in tensors:
            x.grad = None
            x.requires_grad_()
        loss(*tensors).backward()
        return [x.grad.numpy() for x in tensors]

    return run


def torch_memory(args: argparse.Namespace) -> float:
    """MiB by which one call of open_clip's loss raises the peak memory of this process."""
    import torch

    run = open_clip(args, "highest")
    torch.ones(512, 512) @ torch.ones(512, 512)  # Its threads and buffers.
    before = peak_memory()
    run()
    return round(peak_memory() - before, 1)


def peak_memory() -> float:
    """MiB of this process since its start; `ru_maxrss` would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory_of_torch() -> float:
    """`torch_memory` in a process of its own, with this one's flags."""
    command = [sys.executable, *sys.argv, "--memory"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
