"""A plan for people, and for scripts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ape_jax.config import Config
from ape_jax.config.outside import is_torch
from ape_jax.planner import shares
from ape_jax.planner.estimate import Cost
from ape_jax.planner.shapes import Captions
from ape_jax.planner.target import Target
from ape_jax.terminal.tables import markdown

MIB = 2**20


def record(
    config: Config,
    where: Target,
    captions: Captions,
    step: Cost,
    encoding: Mapping[str, Cost],
    pairs: int,
) -> dict[str, Any]:
    """Everything that was found, as JSON."""
    reached = shares.of(where.kind)
    hours = step.seconds * config.train.steps / 3600
    made: dict[str, Any] = {
        "topology": where.name,
        "chips": where.chips,
        "device_hbm": where.device_hbm,
        "batch": config.train.batch,
        "steps": config.train.steps,
        "step": dataclasses.asdict(step),
        "pairs_per_second": step.rows / step.seconds if step.seconds else 0.0,
        "hours": hours,
        "not_planned": [x.tower for x in (config.image, config.text) if is_torch(x.tower)],
        "encoding": {name: dataclasses.asdict(cost) for name, cost in encoding.items()},
        "assumed": {
            **dataclasses.asdict(captions),
            "share of the peak rate of products": reached.matrix,
            "of memory": reached.memory,
            "of the links": reached.link,
        },
        "trust": {
            "programs": reached.programs,
            "error": reached.error,
            "line": reached.line(where.kind),
        },
    }
    if pairs:
        counts = {"images": pairs * max(config.cache.views, 1), "captions": pairs}
        made["encoding_hours"] = sum(
            math.ceil(counts[name] / cost.rows) * cost.seconds / 3600
            for name, cost in encoding.items()
        )
    return made


def text(made: Mapping[str, Any]) -> str:
    """The same in a page."""
    step = made["step"]
    verdict = "fits" if step["fits"] else "does not fit"
    lines = [
        f"{made['topology']} ({made['chips']} chips of {made['device_hbm'] / 2**30:.0f} GiB): "
        f"a step of {made['batch']:,} pairs {verdict}",
        "",
        markdown(["a device", "MiB"], _memory(step)),
        "",
        markdown(["a step", ""], _work(made)),
    ]
    if step["largest"]:
        rows = [[_short(name), f"{size / MIB:,.1f}"] for name, size in step["largest"]]
        lines += ["", markdown(["largest arrays, a device", "MiB"], rows)]
    for name, cost in made["encoding"].items():
        rate = cost["rows"] / cost["seconds"] if cost["seconds"] else 0
        lines.append(
            f"\nencoding {name}: {cost['rows']:,} at a time, peak {cost['peak'] / MIB:,.0f} MiB a "
            f"device, {rate:,.0f} a second"
        )
    if "encoding_hours" in made:
        lines.append(f"encoding all pairs: {made['encoding_hours']:.2f} hours")
    if made["not_planned"]:
        lines.append(f"\nnot planned: encoding by {', '.join(made['not_planned'])}, outside of JAX")
    assumed = "; ".join(f"{key} {value:g}" for key, value in made["assumed"].items())
    lines.append(f"\nassumed: captions and peak rates as given ({assumed})")
    lines.append(made["trust"]["line"])
    return "\n".join(lines)


def _memory(step: Mapping[str, Any]) -> list[list[str]]:
    known = [[kind, f"{size / MIB:,.1f}"] for kind, size in step["arguments"].items()]
    if not step["peak"]:
        return known
    rest = step["peak"] - sum(step["arguments"].values())
    return [
        *known,
        ["activations, gradients, what is in flight", f"{max(rest, 0) / MIB:,.1f}"],
        ["peak", f"{step['peak'] / MIB:,.1f}"],
    ]


def _work(made: Mapping[str, Any]) -> list[list[str]]:
    step = made["step"]
    rows = [["TFLOP of products, all chips", f"{step['flops'] / 1e12:,.2f}"]]
    if step["passes"] > step["flops"]:
        rows.append(["the same in passes of bf16", f"{step['passes'] / 1e12:,.2f}"])
    if step["fits"]:
        sent = sum(step["traffic"].values())
        rows += [
            ["MiB sent by a device", f"{sent / MIB:,.1f}"],
            *([f"of these {kind}", f"{x / MIB:,.1f}"] for kind, x in step["traffic"].items()),
            ["milliseconds, estimated", f"{step['seconds'] * 1e3:,.1f}"],
            ["pairs a second, estimated", f"{made['pairs_per_second']:,.0f}"],
            [f"hours for {made['steps']:,} steps, estimated", f"{made['hours']:.2f}"],
        ]
    return rows


def _short(name: str) -> str:
    plain = name.replace("jit(run)/", "").replace("while/body/", "").replace("closed_call/", "")
    return plain if len(plain) <= 70 else f"...{plain[-67:]}"
