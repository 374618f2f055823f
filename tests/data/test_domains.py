"""The domain of each image: a column that `data.domain` names."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.recipes import few_pairs
from ape_jax.training.input import opened

BY_STYLE = Reading(columns={"domain": ("style",)})


def write(path, *rows):
    """Rows of (image, caption, style) as JSON lines, images being one-pixel files."""
    from PIL import Image

    for name in {row[0] for row in rows}:
        shade = sum(name.encode()) % 256
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(path.parent / name)
    keys = ("image", "caption", "style")
    path.write_text("".join(json.dumps(dict(zip(keys, row))) + "\n" for row in rows))
    return str(path)


def domains(pairs):
    return [x for block in pairs.table.column("domain", pairs.rows) for x in block.to_pylist()]


def test_a_column_gives_the_domain_of_each_image(tmp_path):
    rows = (("a.png", "one", "flat"), ("b.png", "two", 7), ("a.png", "uno", "flat"))
    spec = write(tmp_path / "p.jsonl", *rows)
    pairs = open_pairs(spec, reading=BY_STYLE)
    assert domains(pairs) == ["flat", "7"] and pairs[0].captions == ("one", "uno")
    plain = open_pairs(spec)
    assert domains(plain) == [None, None] and plain.digest == pairs.digest


def test_spaces_around_a_domain_make_no_other(tmp_path):
    spec = write(tmp_path / "p.jsonl", ("a.png", "one", "flat"), ("b.png", "two", " flat "))
    assert domains(open_pairs(spec, reading=BY_STYLE)) == ["flat", "flat"]


@pytest.mark.parametrize("style", [None, "", "nan", " "])
def test_an_image_without_a_domain_cannot_be_used(tmp_path, style):
    spec = write(tmp_path / "p.jsonl", ("a.png", "one", "flat"), ("b.png", "two", style))
    with pytest.raises(UserError, match="'style' is null or empty; write the image's domain"):
        open_pairs(spec, reading=BY_STYLE)


def test_an_image_of_two_domains_is_an_error_that_names_both_rows(tmp_path):
    rows = (("a.png", "one", "flat"), ("b.png", "two", "flat"), ("a.png", "uno", "round"))
    spec = write(tmp_path / "p.jsonl", *rows)
    with pytest.raises(UserError, match=r"'flat' in .*p\.jsonl:1 and 'round' in .*p\.jsonl:3"):
        open_pairs(spec, reading=BY_STYLE)


def test_training_pairs_need_the_column_and_those_to_evaluate_on_do_not(tmp_path):
    spec = write(tmp_path / "p.jsonl", ("a.png", "one", "flat"), ("b.png", "two", "round"))
    lines = (tmp_path / "p.jsonl").read_text().replace("style", "maker")
    (tmp_path / "q.jsonl").write_text(lines)
    other = str(tmp_path / "q.jsonl")
    config = few_pairs.get_config(f"image=x,text=y,pairs={spec},steps=1,batch=2")
    config.data.domain, config.train.folds = "style", 2
    config.data.eval = {"test": other}
    found = opened.sources(config_lib.resolve(config))
    assert domains(found.train) == ["flat", "round"] and len(found.evals["test"]) == 2
    config.data.pairs, config.data.eval = other, {}
    with pytest.raises(UserError, match=r"no column 'style', which data\.domain names; found"):
        opened.sources(config_lib.resolve(config))
