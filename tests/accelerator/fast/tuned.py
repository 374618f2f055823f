"""Training steps of two towers: LilT, LiT and CLIP of ViT-B/16 and BERT-base, beside torch's CLIP.

Images and captions lie on the device and are encoded in the step; LiT's images were encoded before,
and its text tower is trained. Torch trains all of both towers
in bf16 autocast with AdamW, as open_clip does; it has no LilT and no LiT, whose
ratios are to its CLIP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.accelerator.fast import compare, peer, shapes
from tests.accelerator.figures import Figures
from tests.accelerator.plan import here
from tests.accelerator.settings import Settings

MIB, EMBED = 2**20, 256
TOKENS = 32  # Of a caption, which is what 25 are rounded up to.
CASES = ("clip", "lilt", "lit")


def run(settings: Settings, figures: Figures) -> None:
    """Prints pairs a second and memory of each."""
    batch = settings.pick(256, 4)
    for recipe in CASES[1:2] if settings.small else CASES:
        figure = f"{recipe}, ViT-B/16 + BERT-base, {batch} pairs"
        if compare.has_time(settings, figures, figure, seconds=120):
            _step(settings, figures, figure, recipe, batch)


def _step(settings: Settings, figures: Figures, figure: str, recipe: str, batch: int) -> None:
    config = here.config(settings, recipe, **{"train.batch": batch})
    calls: dict[str, Callable[[], Any]] = {}
    beside: dict[str, Any] = {}
    made: list[here.Running] = []
    make = here.step(config)
    if compare.fits(figures, f"{figure}: ours", lambda: made.append(make())):
        calls[compare.OURS] = made[0]
        beside["MiB, ours"] = made[0].peak / MIB
    peers = _peers(settings, batch)
    calls |= compare.that_fit(settings, figures, figure, peers, beside)
    work = made[0].flops if made else 0.0
    how = {"rows": batch, "unit": "pairs/s", "flops": work, "beside": beside}
    compare.figure(settings, figures, figure, calls, **how)


def _peers(settings: Settings, batch: int) -> dict[str, Callable[[], Any]]:
    if peer.missing(settings) or not shapes.has_transformers():
        return {}
    return {form.name: _clip(settings, form, batch) for form in peer.forms(settings, "bfloat16")}


def _clip(settings: Settings, form: peer.Form, batch: int) -> Callable[[], Any]:
    """A step of CLIP in torch: what is compiled is each tower."""
    import torch

    where = peer.device(settings)
    configs = shapes.vision(settings, "ViT-B/16"), shapes.text(settings, "BERT-base")
    towers = [shapes.torch_model(config, torch.float32).to(where).train() for config in configs]
    projections = [torch.nn.Linear(c["hidden_size"], EMBED, device=where) for c in configs]
    scale = torch.tensor(2.66, device=where, requires_grad=True)
    params = [scale, *(p for m in (*towers, *projections) for p in m.parameters())]
    optimizer = torch.optim.AdamW(params, lr=1e-5, fused=True)
    encoders = [form.compile(tower) for tower in towers]
    size = configs[0]["image_size"]
    pixels = torch.randn(batch, 3, size, size, device=where)
    ids = torch.randint(9, (batch, TOKENS), device=where)
    inputs = {"pixel_values": pixels}, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.arange(batch, device=where)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with form.on(), torch.autocast(where, torch.bfloat16):
            z = [
                torch.nn.functional.normalize(project(encode(**given).last_hidden_state[:, 0]))
                for encode, project, given in zip(encoders, projections, inputs)
            ]
            logits = scale.exp() * z[0] @ z[1].T
            cross_entropy = torch.nn.functional.cross_entropy
            loss = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()

    return run
