"""What open_clip's models hold beside their towers: projections, the scale and the bias."""

from __future__ import annotations

from pathlib import Path

from ape_jax.towers.finished import Aligned, Reader, Top
from ape_jax.towers.open_clip import description, image, text
from ape_jax.towers.open_clip.description import Description


def read(path: Path) -> Aligned:
    """Reads the projections and the scale of a model.

    Args:
      path: its directory.

    Raises:
      UserError: it is of a kind that is not read, or a tensor is missing or unexpected.
    """
    described = description.read(path)
    tensors = described.tensors()
    reader, own = Reader(tensors), text.prefix(tensors.shapes)
    names = {"logit_scale", "logit_bias"}
    if not own:
        names |= {"positional_embedding", "text_projection", "attn_mask"}
    inside = ("transformer.", "token_embedding.", "ln_final.", "text_projection.")
    reader.only(("visual.", *((own,) if own else inside)), names)
    return Aligned(
        image=_image(described, reader),
        text=_text(described, reader, own),
        log_scale=reader.scalar("logit_scale"),
        bias=reader.scalar("logit_bias") if "logit_bias" in tensors.shapes else None,
        unread={},
    )


def _image(described: Description, reader: Reader) -> Top:
    fields = described.vision
    if fields.values.get("timm_model_name") is None:
        return Top(pooling="own", projection=(reader("visual.proj"), None))
    # Absent is "linear", and null or "" is the classifier of timm's model.
    kind = fields.values.get("timm_proj", "linear")
    kind = "classifier" if kind in (None, "") else kind
    head, biased = "visual.head", "visual.head.proj.bias" in reader.tensors.shapes
    if kind == "none":
        return Top(pooling="own")
    if kind == "classifier":
        return Top(pooling="own", projection=reader.linear(f"{image.TRUNK}head", bias=True))
    if kind == "linear":
        return Top(pooling="own", projection=reader.linear(f"{head}.proj", bias=biased))
    if kind != "mlp":
        raise fields.error(f"'timm_proj' is {kind!r}; write linear, mlp or none")
    biased = f"{head}.mlp.fc2.bias" in reader.tensors.shapes
    return Top(
        pooling="own",
        pooler=reader.linear(f"{head}.mlp.fc1", bias=True),
        activation="gelu",
        projection=reader.linear(f"{head}.mlp.fc2", bias=biased),
    )


def _text(described: Description, reader: Reader, own: str) -> Top:
    fields = described.text
    if fields.values.get("hf_model_name") is not None:
        return _text_of_transformers(described, reader)
    name = f"{own}text_projection"
    if f"{name}.weight" in reader.tensors.shapes:
        biased = f"{name}.bias" in reader.tensors.shapes
        return Top(pooling="last", projection=reader.linear(name, bias=biased))
    if fields.values.get("proj_type") == "none":
        return Top(pooling="last")
    return Top(pooling="last", projection=(reader(name), None))


def _text_of_transformers(described: Description, reader: Reader) -> Top:
    fields = described.text
    pooling = text.pooling_of_transformers(fields)
    kind = fields.values.get("hf_proj_type", "mlp")
    kind = "none" if kind in (None, "") else kind
    dense = f"{text.HF}pooler.dense"
    pooler = None
    if fields.values.get("hf_pooler_type") == "cls_pooler" and f"{dense}.weight" in (
        reader.tensors.shapes
    ):
        pooler = reader.linear(dense, bias=True)
    if kind == "linear":
        projection = reader.linear("text.proj", bias=False)
        return Top(pooling=pooling, pooler=pooler, projection=projection)
    if pooler is not None:
        raise fields.error(
            f"'hf_proj_type' is {kind!r} behind the pooler of 'cls_pooler', which is not read as a "
            "head; name the tower alone in text.tower"
        )
    if kind == "none":
        return Top(pooling=pooling)
    if kind != "mlp":
        raise fields.error(f"'hf_proj_type' is {kind!r}; write linear, mlp or none")
    return Top(
        pooling=pooling,
        pooler=reader.linear("text.proj.0", bias=False),
        activation="gelu",
        projection=reader.linear("text.proj.2", bias=False),
    )
