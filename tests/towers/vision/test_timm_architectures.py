"""What names of timm's architectures stand for, against the functions that timm registers."""

import ast
import re

import pytest

from ape_jax.towers.vision.timm.architectures import named

FILES = ("vision_transformer", "deit", "eva")
# Arguments, and kinds of norms, with which blocks are of another kind.
OTHERS = ("block_fn", "attn_layer", "embed_norm_layer", "use_post_norm")
OTHER_VALUES = ("RmsNorm", "rmsnorm", "'mixed'")
# Read by nobody, or with a position table that is cropped.
LEFT_OUT = r"test_vit\d?|.*_radio_v\d"


def registered(folder):
    """(name, arguments as they are written) of every model that is registered in the files."""
    for file in FILES:
        module = ast.parse((folder / "timm" / "models" / f"{file}.py").read_text())
        for function in module.body:
            if not isinstance(function, ast.FunctionDef) or not function.decorator_list:
                continue
            for line in function.body:
                call = getattr(line, "value", None)
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "dict":
                    args = {k.arg: ast.unparse(k.value) for k in call.keywords}
                    yield function.name, file == "eva", args


def rotation(args):
    """What the arguments say of it, in the order of `Axial`'s."""
    if "use_rot_pos_emb" not in args:
        return None
    reference = re.match(r"\((\d+),", args.get("ref_feat_shape", ""))
    return (
        float(args.get("rope_temperature", 1e4)),
        args.get("rope_type") == "'dinov3'",
        float(args.get("rope_grid_offset", 0)),
        int(reference[1]) if reference else None,
        args.get("rope_grid_indexing") == "'xy'",
        args.get("rope_rotate_half") != "True",
    )


@pytest.fixture(scope="module")
def models(timm_folder):
    return list(registered(timm_folder))


def test_every_model_of_these_files_is_read_or_of_another_kind(models):
    assert len(models) > 200
    for name, _, args in models:
        other = any(key in args for key in OTHERS) or any(
            word in value for value in args.values() for word in OTHER_VALUES
        )
        assert (named(name) is None) == (other or bool(re.fullmatch(LEFT_OUT, name))), name


def test_names_stand_for_what_timm_makes_of_them(models):
    activations = {"nn.SiLU": "silu", "'gelu_tanh'": "gelu_tanh", "'quick_gelu'": "quick_gelu"}
    for name, eva, args in models:
        found = named(name)
        if found is None:
            continue
        pool = re.findall(r"'(\w+)'", args.get("global_pool", "'avg'" if eva else "'token'"))[-1]
        turned = found.rotation
        assert found.size == (int(args["embed_dim"]), int(args["num_heads"])), name
        assert found.activation == activations.get(args.get("act_layer"), "gelu"), name
        assert found.eps == (1e-5 if "1e-05" in args.get("norm_layer", "") else 1e-6), name
        assert found.pool == pool, name
        assert (found.map_heads or 0) == int(args.get("attn_pool_num_heads", 0)), name
        assert (turned and tuple(vars(turned).values())) == rotation(args), name


@pytest.mark.parametrize(
    "name", ["vit_relpos_base_patch16_224", "vit_base_r50_s16_224", "vit_base_mci_224", "resnet50"]
)
def test_names_of_other_files_are_not_read(name):
    assert named(name) is None
