"""`data.language`: means of languages, from pairs on disk to a model that is loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.runs.restore import restore
from ape_jax.towers.files import reading
from ape_jax.training import loop, run, solve
from ape_jax.training.input import opened
from ape_jax.training.input.device_feed import DeviceFeed
from ape_jax.training.input.host_feed import HostFeed

KNOWN = {"en": "a {} {}", "en2": "the picture of a {} {}", "de": "of {} the {} picture"}
CYRILLIC = "щщщщщщщщщщщщщщщщ {1} {0}"


def spoken_rows(tiny):
    """Each image has two English captions, a German one, and most have a Russian one."""
    rows = []
    for line in map(json.loads, (tiny / "pairs.jsonl").read_text().splitlines()):
        colour, shape = line["id"].split("-")
        image = {"image": str(tiny / line["image"]), "id": line["id"]}
        for name, form in KNOWN.items():
            text = form.format(colour, shape)
            rows.append({**image, "caption": text, "tongue": name.rstrip("2")})
        if colour != "red":
            text = CYRILLIC.format(colour, shape)
            rows.append({**image, "caption": text, "tongue": "ru"})
    return rows


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    """`few_pairs` on the tiny world in three languages; one more is in the evaluation alone."""
    rows = spoken_rows(tiny)
    tiny_config.data.pairs = write(tmp_path / "pairs.jsonl", rows)
    more = [{**row, "tongue": "xx"} for row in rows if row["tongue"] == "de"]
    tiny_config.data.eval = {"test": write(tmp_path / "test.jsonl", rows + more)}
    tiny_config.data.language = "tongue"
    tiny_config.cache.dtype = "float32"
    tiny_config.start.method = "cca"
    tiny_config.closed.l2, tiny_config.closed.power = 1.0, 1.0
    tiny_config.image.head.name, tiny_config.text.head.name = "linear", "linear+token_mlp"
    tiny_config.train.steps = 4
    return tiny_config


def prepared(config):
    config = config_lib.resolve(config)
    config, sources = opened.settled(config)
    return run.prepare(config, sources, build.load_towers(config), FeatureStore())


def host_feed(made):
    model = made.aligned.model
    towers = model.image.tower, model.text.tower
    return HostFeed(made.dataset, *towers, made.aligned.config, made.aligned.mesh)


def reference_means(made, pooling="mean"):
    """By name, of captions that count as an image draws a language and one of its captions."""
    captions, pooled = made.dataset.captions, made.dataset.tokens.pool(pooling).astype(np.float64)
    names, sums, total = captions.spoken.names, {}, {}
    for i in range(len(captions.counts)):
        places = range(captions.offsets[i], captions.offsets[i + 1])
        of = [names[captions.spoken.index[k]] for k in places]
        for k, name in zip(places, of, strict=True):
            weight = 1 / (len(set(of)) * of.count(name))
            sums[name] = sums.get(name, 0) + weight * pooled[captions.text_index[k]]
            total[name] = total.get(name, 0) + weight
    return {name: sums[name] / total[name] for name in sums}


def test_means_are_those_of_the_captions_and_of_languages_in_one_script(config):
    made = prepared(config)
    languages, means = made.aligned.model.languages, made.aligned.frozen["statistics"]["languages"]
    wanted = reference_means(made)
    assert dict(languages.names) == {"de": 1, "en": 2, "ru": 3}
    assert dict(languages.scripts) == {"Latin": 4, "Cyrillic": 3} and languages.count == 5
    rows = [np.mean(list(wanted.values()), axis=0), *(wanted[x] for x in ("de", "en", "ru"))]
    rows.append((wanted["de"] + wanted["en"]) / 2)
    np.testing.assert_allclose(means, np.stack(rows), atol=1e-5)
    assert languages.rows(["a cat", "щука", "7"]).tolist() == [4, 3, 0]
    assert languages.rows(["a cat"] * 2, ["de", "fr"]).tolist() == [1, 0]


@pytest.mark.parametrize("pooling", ["mean", "cls", "mean_sqrt_len", "mean+max"])
def test_what_is_pooled_of_each_language_is_centred_on_both_paths(config, pooling):
    config.text.pooling = pooling
    made = prepared(config)
    dataset, model, frozen = made.dataset, made.aligned.model, made.aligned.frozen
    uses = np.arange(16)
    texts, language = dataset.captions.text_index[uses], dataset.language_rows[uses]
    packed = {k: jnp.asarray(x) for k, x in dataset.tokens.batch(texts, 4, 64).items()}
    packed["language"] = jnp.asarray(language.reshape(4, 4))
    found = model.text_features(frozen, packed).packed.pool(pooling)
    padded = {k: jnp.asarray(x) for k, x in dataset.tokens.padded_batch(texts, 8).items()}
    padded["language"] = jnp.asarray(language)
    features = model.text_features(frozen, padded)
    rows = solve._paired(pooling, dataset, frozen["statistics"])
    ours = rows.text[rows.text_index[uses]]
    np.testing.assert_allclose(ours, found, atol=1e-5)
    tokens, mask = np.asarray(features.tokens), np.asarray(features.mask)
    assert not tokens[~mask].any()
    if pooling == "mean":
        np.testing.assert_allclose(tokens.sum(1) / mask.sum(1)[:, None], ours, atol=1e-5)
        means = reference_means(made)
        pooled = dataset.tokens.pool(pooling)[texts]
        names = [dataset.captions.spoken.names[i] for i in dataset.captions.spoken.index[uses]]
        np.testing.assert_allclose(ours, pooled - [means[x] for x in names], atol=1e-5)
    if "+" not in pooling:  # Of joined modes the first is centred.
        weights = rows.weights
        for row in (1, 2, 3):
            here = dataset.language_rows == row
            mean = weights[here] @ rows.text[rows.text_index[here]]
            np.testing.assert_allclose(mean, 0, atol=1e-4)


def test_batches_hold_the_languages_of_an_image_alike_whatever_feeds_them(config):
    config.loss.positives = 2
    made = prepared(config)
    host = host_feed(made)
    device = DeviceFeed(made.dataset, host.sampler, host.block_steps, made.aligned.mesh)
    (_, ours), (_, theirs) = (next(feed.blocks(0, 4)) for feed in (host, device))
    assert ours["language"].shape == ours["lengths"].shape
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    positions = np.arange(4000)
    index = positions % len(made.dataset.pairs)
    text, language = host.sampler.texts(index, positions)
    red = np.array(["red" in pair.id for pair in made.dataset.pairs])[index]
    assert (language[:, 0] != language[:, 1]).all()
    shares = np.bincount(language[~red].ravel(), minlength=5) / (2 * (~red).sum())
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)
    again = host_feed(made).sampler.texts(index[100:], positions[100:])
    np.testing.assert_array_equal(again[0], text[100:])
    texts = list(made.dataset.captions.texts)
    english = [texts[i] for i in text[language == 2]]
    assert abs(np.mean([x.startswith("a ") for x in english]) - 0.5) < 0.03
    pairs = list(made.dataset.pairs)
    for i, some, rows in zip(index[:50], text, language):
        of = dict(zip(pairs[i].captions, pairs[i].languages, strict=True))
        names = [("", "de", "en", "ru")[row] for row in rows]
        assert [of[texts[k]] for k in some] == names


def test_a_run_is_resumed_loaded_and_taken_along_with_its_means(config, tmp_path):
    resolved = config_lib.resolve(config)
    summary = loop.train_and_evaluate(resolved, tmp_path / "run")
    assert summary["languages"] == {"trained": {"de": 24, "en": 48, "ru": 20}, "unseen": ["xx"]}
    for name in ("test", "test:de", "test:en", "test:ru", "test:xx"):
        assert {f"eval/{name}/i2t_r1", f"chance/{name}/t2i_r10"} <= set(summary)
    assert summary["chance/test:ru/t2i_r1"] == pytest.approx(1 / 20)
    made = prepared(config)
    found = restore(tmp_path / "run")
    assert found.model.languages == made.aligned.model.languages
    np.testing.assert_array_equal(
        found.frozen["statistics"]["languages"], made.aligned.frozen["statistics"]["languages"]
    )
    longer = config_lib.resolve(
        {**config_lib.flatten(resolved), "start.run": str(tmp_path / "run")}
    )
    loop.train_and_evaluate(longer, tmp_path / "more")
    again = restore(tmp_path / "more").frozen["statistics"]["languages"]
    np.testing.assert_array_equal(again, found.frozen["statistics"]["languages"])
    auto = {**config_lib.flatten(longer), "data.language": "auto"}
    with pytest.raises(UserError, match=r"write --config\.data\.language='tongue'"):
        loop.train_and_evaluate(config_lib.resolve(auto), tmp_path / "other")


def test_scripts_are_languages_without_a_column(config, tiny, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "tongue"} for row in spoken_rows(tiny)]
    config.data.pairs, config.data.language = write(tmp_path / "plain.jsonl", rows), "auto"
    config.data.eval = {}
    languages = prepared(config).aligned.model.languages
    assert dict(languages.names) == dict(languages.scripts) == {"Cyrillic": 1, "Latin": 2}


def test_a_language_of_few_captions_is_taken_for_none(config, tiny, tmp_path, capsys):
    rows = spoken_rows(tiny)
    russian = [row for row in rows if row["tongue"] == "ru"]
    rest = [row for row in rows if row["tongue"] != "ru"]
    config.data.pairs = write(tmp_path / "few.jsonl", rest + russian[:10])
    made = prepared(config)
    assert dict(made.aligned.model.languages.names) == {"de": 1, "en": 2}
    assert set(made.dataset.language_rows) == {0, 1, 2}
    assert "fewer than 16 captions are in 'ru'" in capsys.readouterr().err
    config.data.pairs = write(tmp_path / "one.jsonl", [r for r in rest if r["tongue"] == "en"])
    with pytest.raises(UserError, match=r"captions of .* are, by 'tongue', 48 in 'en'; means need"):
        prepared(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text.tune": "full"}, r"config\.data\.language: .*needs text\.tune='frozen'"),
        ({"cache.text": False, "start.method": "none"}, r"cache\.text=True, found 'frozen'"),
        ({"text.tower": "features:8", "data.pairs": "features:x.npz"}, r"are vectors"),
        ({"data.pairs": "features:x.npz"}, r"has no column 'tongue'; write 'auto'"),
        ({"loss.hard": 1}, r"config\.data\.language: negative captions have no language"),
        ({"data.texts": "texts.txt", "unpaired.klot": 1.0, "data.images": "x"}, r"unpaired texts"),
    ],
)
def test_what_means_do_not_go_with_is_refused(config, settings, said):
    flat = config_lib.flatten(config_lib.resolve(config))
    if settings.get("start.method") or "text.tune" in settings:
        flat |= {"closed.l2": 0.0, "closed.power": -1.0, "start.method": "none"}
    if "features" in str(settings):
        flat |= {"image.tower": "features:8", "data.eval": {}}
    with pytest.raises(UserError, match=said):
        config_lib.resolve({**flat, **settings})


def test_a_run_of_one_step_is_the_same_on_any_number_of_devices(config):
    """The loss of a batch with languages, by the mesh's devices and by one."""
    from ape_jax.align.losses import objective
    from ape_jax.training.step import contrastive_loss

    made = prepared(config)
    aligned, batch = made.aligned, next(host_feed(made).batches(0))
    loss = objective.from_config(aligned.config.loss)
    values = [
        jax.jit(lambda t, f, b, m=mesh: contrastive_loss(aligned.model, loss, m, t, f, b)[0])(
            *jax.device_get((aligned.trainable, aligned.frozen, batch))
        )
        for mesh in (None, aligned.mesh)
    ]
    np.testing.assert_allclose(*map(float, values), rtol=1e-5)


def test_the_loaded_model_embeds_as_the_evaluation_does(config, tmp_path):
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    model = ape_jax.load(tmp_path / "run", dtype="float32")
    task = prepared(config).tasks[0]
    trees = model._aligned.trainable, model._aligned.frozen
    _, ztxt, _ = task.embed(model._embedder(8), *trees)
    captions = task.dataset.captions
    texts = [captions.texts[i] for i in captions.text_index]
    spoken = [captions.spoken.names[i] for i in captions.spoken.index]
    np.testing.assert_allclose(model.encode_text(texts, language=spoken), ztxt, atol=1e-5)


def test_texts_are_told_by_script_and_further_languages_are_added(config, tmp_path, capsys):
    config.data.eval = {}
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    model = ape_jax.load(tmp_path / "run", dtype="float32")
    assert model.languages == ("de", "en", "ru")
    russian = [CYRILLIC.format(*x.split()) for x in ("red bar", "blue circle")]
    plain, named = (model.encode_text(russian, language=x) for x in (None, "ru"))
    np.testing.assert_array_equal(plain, named)
    texts = ["a red bar", "of blue the circle picture"]
    assert not np.allclose(model.encode_text(texts), model.encode_text(texts, language="en"))
    reading._said.clear()
    unknown = model.encode_text(texts, language="lv")
    assert "texts in 'lv': the model does not know the language" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"language: found 3 for 2 texts"):
        model.encode_text(texts, language=["en", "de", "ru"])
    same = [row["caption"] for row in spoken_of(config) if row["tongue"] == "ru"]
    before = model.encode_text(texts, language="ru")
    model.add_language("lv", same)  # Images with Russian captions count alike: the same mean.
    np.testing.assert_allclose(model.encode_text(texts, language="lv"), before, atol=1e-4)
    assert not np.allclose(before, unknown, atol=1e-3)
    with pytest.raises(UserError, match=r"does not hold the languages that were added \(lv\)"):
        model.save(tmp_path / "kept")
    out = ape_jax.load(model.export(tmp_path / "out", format="jax"), dtype="float32")
    assert out.languages == ("de", "en", "ru", "lv")
    np.testing.assert_allclose(
        out.encode_text(texts, language="lv"), model.encode_text(texts, language="lv"), atol=1e-6
    )


def spoken_of(config):
    with open(config.data.pairs) as file:
        return [json.loads(line) for line in file]


def test_a_format_without_a_place_for_means_says_so(config, tmp_path):
    config.data.eval, config.train.steps = {}, 1
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    with pytest.raises(UserError, match=r"'dual_encoder' has no place .* write torch or onnx or"):
        ape_jax.load(tmp_path / "run").export(tmp_path / "out", format="dual_encoder")


def test_the_command_has_the_figures_of_the_run(config, tmp_path):
    from ape_jax.commands import evaluate

    summary = loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    metrics, table = evaluate.retrieval(str(tmp_path / "run"), "")
    for name in ("test", "test:de", "test:ru", "test:xx"):
        for key in ("i2t_r1", "t2i_r1"):
            key = f"{name}/{key}"
            assert metrics[f"eval/{key}"] == pytest.approx(summary[f"eval/{key}"], abs=0.05)
            assert metrics[f"chance/{key}"] == summary[f"chance/{key}"]
    assert "test:xx (not trained on)" in table and "test:de (not" not in table
