"""The 14 languages of the emoji names, and the words in each that make variants of one concept.

"man climbing" and "woman climbing", "red heart" and "blue heart" are one concept each. The words
below (genders, colours, sizes, sides) are taken out of a name before names are compared, so that
variants fall on the same side of a split in every language. Erring costs little: too many words
merge a few concepts more, and names as users see them are never changed.
"""

# ruff: noqa: RUF001  (letters of other scripts that look like Latin ones)
from __future__ import annotations

import re
import unicodedata

LANGUAGES: tuple[str, ...] = (
    *("ar", "de", "en", "es", "fa", "fr", "id"),
    *("it", "ja", "ko", "pt", "ru", "tr", "zh"),
)

# Written without spaces between words: variant words are taken out wherever they stand.
UNSPACED = frozenset({"ja", "ko", "zh"})

# Regular expressions; in spaced languages they must match a whole token.
_VARIANTS: dict[str, str] = {
    "en": r"m[ae]n|wom[ae]n|persons?|people|adults?|boys?|girls?"
    r"|mans|womans|mens|womens|male|female"
    r"|red|orange|yellow|green|blue|purple|brown|black|white|gr[ea]y|pink|light|dark|hollow|heavy"
    r"|small|medium|large|left|right|up|down|upwards?|downwards?|leftwards?|rightwards?"
    r"|facing|faces?|oncoming|clockwise|counterclockwise|raised|lowered|horizontal|horizontally"
    r"|vertical|vertically|button|pointing|with|s",
    "de": r"m[aä]nn(er|lich\w*)?|frau(en)?|weiblich\w*|person(en)?|jungen?|mädchen|in"
    r"|rot\w{0,2}|orange\w*|gelb\w{0,2}|grün\w{0,2}|(hell)?blau\w{0,2}|lila|braun\w{0,2}"
    r"|schwarz\w{0,2}|weiß\w{0,2}|grau\w{0,2}|pink\w{0,2}|groß\w{0,2}|klein\w{0,2}|mittel\w*"
    r"|links|rechts|oben|unten|nach|mit|gesicht",
    "es": r"hombres?|mujer(es)?|personas?|adult[ao]s?|niñ[oa]s?"
    r"|roj[oa]s?|naranja|amarill[oa]|verde|azul|morad[oa]|marrón|negr[oa]|gris|blanc[oa]|rosa"
    r"|clar[oa]|pequeñ[oa]|median[oa]|grande|derecha|izquierda|arriba|abajo|hacia|la|con|cara",
    "fr": r"hommes?|femmes?|personnes?|adultes?|garçons?|filles?"
    r"|rouge|orange|jaune|verte?|bleue?|violet(te)?|marron|noire?|grise?|blanc(he)?|rose|clair"
    r"|petite?|moyen(ne)?|grande?|droite?|gauche|haut|bas|vers|la|le|avec|visage|tête",
    "it": r"uom[oi]n?i?|donn[ae]|person[ae]|adult[oi]|ragazz[oa]|bambin[oa]"
    r"|ross[oa]|arancione|giall[oa]|verde|blu|azzurr[oa]|viola|marrone|ner[oa]|grigi[oa]"
    r"|bianc[oa]|rosa|piccol[oa]|medio|grande|destra|sinistra|alto|basso|rivolt[oa]|a|in|con"
    r"|faccina|viso|faccia",
    "pt": r"homens?|homem|mulher(es)?|pessoas?|adult[oa]|menin[oa]s?"
    r"|vermelh[oa]|laranja|amarel[oa]|verde|azul|rox[oa]|marrom|pret[oa]|cinza|branc[oa]|rosa"
    r"|claro|pequen[oa]|médi[oa]|menor|grande|direita|esquerda|cima|baixo|para|a|o|com|rosto",
    "ru": r"мужчин\w|женщин\w|женский|мужской|человек|люди|взрослый|мальчик\w?|девочк\w"
    r"|(красн|желт|зелен|коричнев|черн|бел|сер|розов|фиолетов|оранжев|ал|голуб)(ый|ая|ое|ой|ые)"
    r"|син(ий|яя|ее)|небольш(ой|ая|ое)|больш(ой|ая|ое)|вверх|вниз|влево|вправо|направленные|с|лицом",
    "tr": r"erkek(ler)?|kadın(lar)?|kişi(ler)?|insan(lar)?|yetişkin|kız|çocuk"
    r"|kırmızı|turuncu|sarı|yeşil|mavi|mor|kahverengi|siyah|beyaz|gri|pembe|açık"
    r"|küçük|orta|büyük|sağa|sola|sağ|sol|yukarı|aşağı|dönük|bakan|yüzü",
    "id": r"pria|wanita|orang|dewasa|laki|perempuan|anak|manusia"
    r"|merah|oranye|kuning|hijau|biru|ungu|cokelat|hitam|putih|abu|muda"
    r"|kecil|medium|sedang|besar|kanan|kiri|atas|bawah|menghadap|wajah",
    "ar": r"رجل|رجال|امرأة|سيدة|سيدات|نساء|شخص|أشخاص|بالغ|ولد|فتاة"
    r"|أحمر|حمراء|برتقالي|برتقالية|أصفر|صفراء|أخضر|خضراء|أزرق|زرقاء|أرجواني|بنفسجي|بنفسجية"
    r"|بني|بنية|أسود|سوداء|أبيض|بيضاء|رمادي|وردي|فاتح|صغير|صغيرة|متوسط|كبير|كبيرة"
    r"|لأعلى|لأسفل|لليمين|اليمين|لليسار|اليسار|متجه|باتجاه|وجه",
    "fa": r"مرد|مردان|زن|زنان|شخص|فرد|فردی|آدم|افراد|پسر|دختر"
    r"|قرمز|سرخ|نارنجی|زرد|سبز|آبی|بنفش|قهوه|ای|سیاه|مشکی|سفید|خاکستری|صورتی|کم|رنگ"
    r"|کوچک|متوسط|بزرگ|نسبتا|نسبتاً|راست|چپ|بالا|پایین|سمت|به|صورت",
    "ja": r"男性|女性|男の子|女の子|男|女|の?人たち|する人|大人|赤い|オレンジの?"
    r"|黄色[いの]|緑の|青[いの]|薄い|紫の|茶色[いの]|黒い|白い|灰色の|ピンクの|小さい|大きい|特大|右|左|上|下|向き|の顔|顔",
    "ko": r"남자|여자|남성|여성|사람들?|소년|소녀|빨간색?|주황색|오렌지색|노란색|초록색|녹색|파란색"
    r"|보라색|갈색|검은색|흰색|회색|분홍색|밝은|작은|중간|큰|오른쪽|왼쪽|위쪽|아래쪽|얼굴",
    "zh": r"男人|女人|男生|女生|男性|女性|男子|女子|男孩|女孩|男|女|成人|的人|红色|橙色|黄色"
    r"|绿色|蓝色|紫色|棕色|黑色|白色|灰色|粉红色|浅|小|中|大|向?[上下左右]边?|面向|的|脸",
}

_CLOCK = {
    "en": r"^(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve) "
    r"(o clock|oclock|thirty)$",
    "ja": r"^\d+時半?$",
    "zh": r"^[一二两三四五六七八九十]+点半?$",
    "de": r"^\d+ (00|30) uhr$",
}

_PATTERNS = {
    language: re.compile(words if language in UNSPACED else rf"^(?:{words})$")
    for language, words in _VARIANTS.items()
}
_CLOCKS = {language: re.compile(pattern) for language, pattern in _CLOCK.items()}


def tokens(name: str) -> tuple[str, ...]:
    """Splits a name into lower-case words without punctuation; digits stay."""
    plain = unicodedata.normalize("NFC", name.casefold().replace("_", " "))
    # Vowel marks that stay apart under NFC (Arabic, Persian) are optional and would split words.
    return tuple(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


def normal_form(name: str, language: str) -> str:
    """Returns what is left of a name without variant words; "" if nothing is.

    Word order does not count in languages that put spaces between words.

    >>> normal_form("Woman climbing", "en"), normal_form("climbing (person)", "en")
    ('climbing', 'climbing')
    >>> normal_form("rotes Herz", "de"), normal_form("赤いハート", "ja")
    ('herz', 'ハート')
    """
    words = tokens(name)
    clock = _CLOCKS.get(language)
    if clock is not None and clock.match(" ".join(words)):
        return "clock"
    pattern = _PATTERNS[language]
    if language in UNSPACED:
        joined = "".join(words)
        left = pattern.sub("", joined)
        # A single character that is left over says too little: many names share it.
        return left if len(left) > 1 or left == joined else ""
    return " ".join(sorted(word for word in words if not pattern.match(word)))
