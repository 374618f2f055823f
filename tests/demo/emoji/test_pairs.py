"""The emoji pairs: all styles alike, 14 languages, and nothing leaks from one split to another."""

import io
import shutil
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ape_jax.demo.emoji import languages, names
from ape_jax.demo.emoji import pairs as emoji
from ape_jax.demo.emoji.concepts import SPLITS
from ape_jax.errors import UserError

# The third style comes by npm.
STYLES = emoji.STYLES if shutil.which("npm") else ("twemoji", "openmoji")
SIZES = {"train": 1190, "validation": 93, "test": 186}


@pytest.fixture(scope="module")
def pairs():
    return {
        (style, split): emoji.read_pairs(style, "en", split) for style in STYLES for split in SPLITS
    }


@pytest.fixture(scope="module")
def captions():
    """language -> split -> id -> captions, as the builder's records have them."""
    found = {language: {split: {} for split in SPLITS} for language in languages.LANGUAGES}
    builder = emoji.open_builder("openmoji")
    for split in SPLITS:
        for record in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}):
            for language, texts in record["captions"].items():
                one = record["id"].decode()
                found[language][split][one] = tuple(text.decode() for text in texts)
    return found


def test_sizes(pairs):
    for (_, split), rows in pairs.items():
        assert len(rows) == SIZES[split]


def test_all_styles_hold_the_same_ids_captions_and_concepts(pairs):
    for split in SPLITS:
        one = pairs["twemoji", split]
        for other in STYLES[1:]:
            assert [pair[1:] for pair in one] == [pair[1:] for pair in pairs[other, split]]
        assert [pair[2] for pair in one] == sorted({pair[2] for pair in one})


def test_no_concept_is_in_two_splits(pairs):
    concepts = [{pair[3] for pair in pairs["twemoji", split]} for split in SPLITS]
    assert sum(map(len, concepts)) == len(set.union(*concepts))


def test_validation_and_test_hold_one_emoji_a_concept(pairs):
    for split in ("validation", "test"):
        assert max(Counter(pair[3] for pair in pairs["twemoji", split]).values()) == 1
    assert max(Counter(pair[3] for pair in pairs["twemoji", "train"]).values()) > 10


def test_images_are_rgba_with_transparent_corners(pairs):
    for (style, _), rows in pairs.items():
        side = {"twemoji": 72, "openmoji": 112, "noto": 112}[style]
        for data, *_ in rows[::25]:
            with Image.open(io.BytesIO(data)) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (side, side))
                assert np.asarray(image)[..., 3].max() > 200
    alpha = np.asarray(Image.open(io.BytesIO(pairs["openmoji", "test"][0][0])))[..., 3]
    assert alpha.min() == 0


def test_every_emoji_has_a_caption_in_each_of_14_languages(captions, pairs):
    assert len(captions) == 14
    for split in SPLITS:
        for language in languages.LANGUAGES:
            assert captions[language][split].keys() == {p[2] for p in pairs["twemoji", split]}
            for texts in captions[language][split].values():
                assert texts and len(set(texts)) == len(texts)
                assert all(text == text.strip() and ":" not in text[:1] for text in texts)
                assert not any("_" in text for text in texts)


def test_all_is_every_language_without_duplicates(captions):
    for _, texts, one, _ in emoji.read_pairs("twemoji", "all", "validation"):
        every = [
            t for language in languages.LANGUAGES for t in captions[language]["validation"][one]
        ]
        assert texts == tuple(dict.fromkeys(every))


def test_no_skin_tones_and_no_country_flags(pairs):
    for rows in pairs.values():
        for _, _, one, _ in rows:
            assert not names.is_country_flag(one)
            assert not any(0x1F3FB <= int(point, 16) <= 0x1F3FF for point in one.split("-"))


def crossing(captions, sign):
    """Lists (language, sign, captions) that two splits share."""
    found = []
    for language, splits in captions.items():
        owners = defaultdict(set)
        for split, rows in splits.items():
            for texts in rows.values():
                for text in texts:
                    if key := sign(text, language):
                        owners[key].add(split)
        found += [(language, key, owner) for key, owner in owners.items() if len(owner) > 1]
    return found


def test_no_name_crosses_a_split_in_any_language(captions):
    assert crossing(captions, lambda text, _: frozenset(languages.tokens(text))) == []


def test_no_name_crosses_a_split_without_genders_colours_and_clocks(captions):
    assert crossing(captions, languages.normal_form) == []


def test_known_variants_are_on_one_side(pairs):
    """By English words alone, independent of the rules that made the groups."""
    families = {
        "heart": "red blue green yellow purple orange black white brown pink grey",
        "circle": "red blue green yellow purple orange black white brown",
        "square": "red blue green yellow purple orange brown",
        "book": "blue green orange",
    }
    side = {pair[1][0]: split for (_, split), rows in pairs.items() for pair in rows}
    for noun, colours in families.items():
        assert len({side[n] for c in colours.split() if (n := f"{c} {noun}") in side}) == 1
    for words in ("o'clock", "-thirty", "keycap", "holding hands", "family"):
        assert len({split for name, split in side.items() if words in name}) == 1
    for name, split in side.items():
        for gender in ("man", "woman", "person"):
            for other in ("man", "woman", "person"):
                if name.startswith(gender + " "):
                    assert side.get(other + name.removeprefix(gender), split) == split


def one_edit(text):
    """Patterns of which two texts at most one edit apart share one: "?" is any one character."""
    yield text
    for at in range(len(text) + 1):
        yield text[:at] + "?" + text[at:]  # as if a character were missing here
        if at < len(text):
            yield text[:at] + "?" + text[at + 1 :]


def test_no_long_name_is_one_edit_from_a_name_in_another_split(captions):
    for language, splits in captions.items():
        owners = defaultdict(set)
        for split, rows in splits.items():
            for text in {text for texts in rows.values() for text in texts}:
                plain = "".join(languages.tokens(text))
                if len(plain) >= 6:
                    for pattern in one_edit(plain):
                        owners[pattern].add((split, plain))
        for meeting in owners.values():
            for split, plain in meeting:
                for other_split, other in meeting:
                    close = split != other_split and abs(len(plain) - len(other)) <= 1
                    assert not close, (language, plain, other)


def test_no_drawing_of_validation_or_test_is_nearly_one_of_train(pairs):
    def features(rows):
        out = []
        for data, *_ in rows:
            image = Image.open(io.BytesIO(data)).resize((24, 24))
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            vector = np.asarray(white.convert("RGB"), np.float32).ravel()
            out.append((vector - vector.mean()) / np.linalg.norm(vector - vector.mean()))
        return np.stack(out)

    for style in STYLES:
        train = features(pairs[style, "train"])
        for split in ("validation", "test"):
            # Faces with one mouth or another stay: they are different words.
            assert (features(pairs[style, split]) @ train.T).max() < 0.99


def test_builder_reads_arrays_and_counts_what_was_dropped():
    builder = emoji.open_builder("openmoji")
    record = builder.as_data_source("validation")[0]
    assert record["image"].shape == (112, 112, 4) and record["image"].dtype == np.uint8
    assert set(record["captions"]) == set(languages.LANGUAGES)
    dropped = builder.info.metadata["dropped"]
    assert dropped == {
        "country flags": 262,
        "not drawn in every style": 9,
        "variants in validation and test": 183,
    }
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == SIZES


@pytest.mark.parametrize(
    "style, language, split, message",
    [
        ("apple", "en", "train", "style 'apple'; write one of twemoji, openmoji, noto"),
        ("twemoji", "xx", "train", "language 'xx'; write one of ar, de, en, .*, all"),
        ("twemoji", "en", "dev", "split 'dev'; write one of train, .*test, or of a partition"),
        ("twemoji", "en", "dev@1", "split 'dev@1'; write one of train"),
        ("twemoji", "en", "train@0", "split 'train@0'; write one of train"),
    ],
)
def test_unknown_names_are_user_errors(style, language, split, message):
    with pytest.raises(UserError, match=message):
        emoji.read_pairs(style, language, split)


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, ape_jax.demo.__main__, ape_jax.demo.emoji.pairs, ape_jax.demo.towers.assets;"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'torch', 'transformers', 'jax', 'PIL'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_needs_no_tensorflow():
    code = (
        "import sys; from ape_jax.demo.emoji import pairs as emoji;"
        "assert len(emoji.read_pairs('twemoji', 'de', 'validation')) > 50;"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
