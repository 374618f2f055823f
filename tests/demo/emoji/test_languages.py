# ruff: noqa: RUF001
"""Normal forms: variants of one concept come out equal in their language."""

import pytest

from ape_jax.demo.emoji import languages


@pytest.mark.parametrize(
    "language, variants",
    [
        ("en", ("red heart", "blue heart", "light blue heart", "Heart")),
        ("en", ("man's shoe", "woman's shoe")),
        ("en", ("five-thirty", "five o'clock", "twelve o'clock")),
        ("de", ("rotes Herz", "hellblaues Herz")),
        ("de", ("bergsteiger(in)", "bergsteiger")),
        ("es", ("hombre escalando", "mujer escalando", "persona escalando")),
        ("fr", ("carré rouge", "carré blanc", "grand carré noir")),
        ("it", ("cuore rosso", "cuore azzurro")),
        ("pt", ("homem escalando", "mulher escalando")),
        ("ru", ("красный квадрат", "синий квадрат", "большой белый квадрат")),
        ("tr", ("kırmızı kalp", "açık mavi kalp")),
        ("id", ("pria memanjat", "orang memanjat")),
        ("ar", ("قلب أحمر", "قلب أزرق فاتح")),
        ("fa", ("قلب قرمز", "قلب سبز")),
        ("ja", ("赤いハート", "ピンクのハート")),
        ("ko", ("남자 우주비행사", "우주비행사")),
        ("zh", ("女宇航员", "宇航员")),
    ],
)
def test_variants_share_a_normal_form(language, variants):
    forms = {languages.normal_form(name, language) for name in variants}
    assert len(forms) == 1 and forms != {""}


def test_every_language_has_variant_words():
    assert set(languages._VARIANTS) == set(languages.LANGUAGES)
    assert len(languages.LANGUAGES) == 14
