"""Names: cleaning, ids, flags."""

import pytest

from ape_jax.demo.emoji import names


@pytest.mark.parametrize(
    "raw, expected",
    [
        ([":red_heart:", ":heart:"], ("red heart", "heart")),
        ([":T-Rex:", ":t-rex:", ":t_rex:"], ("T-Rex",)),
        ([":AB_button_(blood_type):", ":ab:"], ("AB button (blood type)", "ab")),
        ([":five-thirty:", ":clock530:"], ("five-thirty",)),
        ([":thumbs_up:", ":+1:", ":thumbsup:"], ("thumbs up", "thumbsup")),
        ([":man\u2019s_shoe:"], ("man's shoe",)),
        ([":flag:_Malta:"], ("Malta",)),
        ([":keycap_5:"], ("keycap 5",)),  # digits are refused in aliases only
        ([":犬:"], ("犬",)),  # so are single characters
        ([":pin\u0303ata:"], ("piñata",)),  # NFC
        ([], ()),
    ],
)
def test_clean(raw, expected):
    assert names.clean(raw) == expected


def test_ids_have_no_variation_selectors():
    assert names.id_of_stem("2764-FE0F") == names.id_of_stem("2764") == "2764"
    assert names.id_of_stem("1F468-200D-1F692") == "1f468-200d-1f692"


def test_country_flags():
    def flag(text):
        return names.is_country_flag(names.emoji_id([ord(character) for character in text]))

    assert flag("🇲🇹") and flag("🏴󠁧󠁢󠁥󠁮󠁧󠁿")
    assert not any(map(flag, ("🏁", "🏳️‍🌈", "🏴‍☠️", "🏴", "🎌", "❤️")))
