"""Methods side by side, for `python -m ape_jax.study --config study[:BENCH]`.

* no argument: frozen towers on about a thousand emoji, tested on concepts that training never saw,
  in the same drawing style and in another;
* `tuned`: the same with towers that are trained, for which images are 42 pixels wide;
* `tuned,fewer`: frozen and trained towers as the pairs get fewer (in the work directory of `tuned`
  its runs on all pairs are found);
* `ape`: what APE's own head makes of depth, width and augmentation, over longer training;
* `language=ja`, with `tuned` or without: names in that language, read by a multilingual tower;
* `fresh`: on three splits that no choice has looked at, trained on one drawing style and on two,
  tested on three (`demo:noto` is never trained on); `few_pairs` against each method, with
  intervals; `fresh,language=ja+ar+zh`: names in these languages on the same splits;
* `fresh,together=en+ja+ar`: names in these languages as one training set on the same splits, whose
  means are taken off; tested on all fourteen, of which those not named are left out of training;
* `icons`: heads and closed forms on 1,024 to 61 thousand icons, tested on unseen names in the
  makers' sets of the training and in unseen sets; `icons,fresh` on two splits that no choice has
  looked at, `icons,ape` with depths and widths of APE's head on 16,384 and all.

`validation` beside them (`study:icons,validation`) is for choosing: the rates below come from
`tests/benchmarks/search.py`, which says how. `--plots` draws the result.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes
from ape_jax.errors import UserError


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    args = config_lib.parse_arg(
        arg,
        icons=False,
        tuned=False,
        fewer=False,
        ape=False,
        fresh=False,
        language="en",
        together="",
        validation=False,
        runlocal=False,
    )
    config = config_lib.default()
    config.study.seeds = 3
    # A transformer of one layer, as wide as the others are deep.
    config.study.set = (("transformer", "text.head.depth", 1),)
    if args.icons:
        _icons(config, args.validation)
        if args.ape:
            config.study.methods, config.study.sizes = _DEPTHS, (16384, 0)
            config.study.steps = ((16384, 300),)
            config.study.set = ()
        elif args.fresh:
            config.study.methods = ("chance", "cca", "ape", "few_pairs", "few_pairs+lookup")
    else:
        _emoji(config, args.validation)
        if args.tuned:
            _tuned(config, args.language)
        if args.fewer:
            config.study.sizes = (128, 512, 0)
            config.study.methods = ("cca", "cca_start+token_mlp", "ape", "lit", "clip")
        if args.ape:
            _ape(config)
        if args.language != "en":
            _in_language(config, args.language)

    if args.together:
        if not args.fresh or args.icons or args.language != "en":
            raise UserError(
                "--config: study takes together=LANGUAGE+LANGUAGE with fresh alone, as in "
                f"study:fresh,together=en+ja; found {arg!r}"
            )
        _together(config, args.together)
    elif args.fresh:
        _fresh(config, args.icons, args.language.split("+"))
    elif "+" in args.language:
        raise UserError(
            f"--config: study takes one language, or several with fresh; found {args.language!r}"
        )

    if args.runlocal:  # Seconds instead of minutes, for tests.
        config.image.size = 56
        config.data.pairs = "demo:twemoji:train[:96]"
        config.data.eval = {"same-style": "demo:twemoji:validation"}
        config.cache.views = 2 if config.augment.flip else 1
        config.train.batch, config.train.steps, config.optim.warmup = 32, 4, 1
        config.study.methods = ("chance", "cca", "lit" if args.tuned else "ape")
        config.study.sizes, config.study.steps, config.study.seeds = (), (), 1
        config.study.domains, config.study.reference = (), ""
    return config


def _emoji(config: ml_collections.ConfigDict, validation: bool) -> None:
    recipes.emoji(config, validation=validation, views=10)
    config.train.log_every = 30
    config.train.checkpoint_every = 90
    config.optim.lr = 1e-3
    # Out of 3e-4, 1e-3 and 3e-3; few_pairs keeps its recipe's rate and steps.
    config.study.lrs = (("lookup", 3e-3), ("linear", 3e-3), ("cca_start", 3e-4))
    config.study.methods = (
        *("chance", "ridge", "cca", "procrustes", "asif"),
        *("lookup", "transformer", "pooled_mlp", "linear", "ape", "ape+linear_image"),
        *("cca_start", "cca_start+token_mlp", "few_pairs"),
    )


def _tuned(config: ml_collections.ConfigDict, language: str) -> None:
    config.image.size = 42  # Nine patches: a step of both towers takes a second or two.
    config.image.dtype = config.text.dtype = "float32"  # Few processors have bf16 to train in.
    config.train.batch, config.train.steps, config.optim.warmup = 64, 60, 6
    config.train.log_every, config.train.checkpoint_every = 20, 60
    # Out of 1e-4, the methods' own, and 3e-4, at which CLIP falls apart.
    config.study.lrs = tuple(
        (method, 3e-4)
        for method in (
            *("lit", "lilt_layernorm", "lilt_bitfit"),
            *("lilt_adapter", "lilt_adapter+layernorm", "lilt_lora"),
        )
    )
    lilt = ("layernorm", "bitfit", "append", "adapter", "adapter+layernorm", "lora")
    if language == "en":
        config.text.max_length = 12  # No name is longer, and padding counts like any token.
    else:  # A tower twice as deep; English says what the others are worth.
        lilt = ("layernorm", "adapter")
    config.study.methods = (
        *("chance", "cca", "ape", "cca_start+token_mlp", "lit", "clip"),
        *(f"lilt_{mode}" for mode in lilt),
    )


def _ape(config: ml_collections.ConfigDict) -> None:
    config.train.steps, config.train.checkpoint_every, config.optim.warmup = 300, 300, 30
    config.augment.crop, config.augment.randaugment = (0.25, 1.0), (2, 9)
    config.study.methods = (*_DEPTHS, "ape_one_view", "ape_words")


_DEPTHS = ("linear", "ape_2x384", "ape_4x384", "ape_6x384", "ape_2x1024", "ape_4x1024")


def _in_language(config: ml_collections.ConfigDict, language: str) -> None:
    config.text.tower = "demo:me5_small"
    config.data.pairs = config.data.pairs.replace("twemoji", f"twemoji/{language}")
    config.data.eval = {
        name: pairs.replace("moji:", f"moji/{language}:")
        for name, pairs in config.data.eval.to_dict().items()
    }


def _fresh(config: ml_collections.ConfigDict, icons: bool, languages: list[str]) -> None:
    """The numbered partitions of the demo; the first of them is `data.pairs` and `data.eval`."""
    if icons:
        config.study.domains = tuple(
            (
                f"split{k}",
                f"demo:icons:train@{k}",
                (
                    ("unseen-names", f"demo:icons:test@{k}"),
                    ("unseen-sets", f"demo:icons:test_sets@{k}"),
                ),
            )
            for k in (1, 2)
        )
    elif languages != ["en"]:
        config.study.domains = tuple(
            (f"{language}{k}", f"demo:twemoji/{language}:train@{k}", _two_styles(k, language))
            for language in languages
            for k in (1, 2, 3)
        )
        config.study.methods = ("chance", "ridge", "cca", "ape", "cca_start", "few_pairs")
    else:
        config.study.domains = tuple(
            (f"{name}{k}", pairs.replace("@", f"@{k}"), _three_styles(k, name))
            for name, pairs in _TRAINED_ON
            for k in (1, 2, 3)
        )
        config.study.methods = ("chance", "ridge", "cca", "ape", "cca_start", "few_pairs")
    _, pairs, sets = config.study.domains[0]
    config.data.pairs, config.data.eval = pairs, dict(sets)
    if "few_pairs" in config.study.methods:
        config.study.reference = "few_pairs"


def _together(config: ml_collections.ConfigDict, languages: str) -> None:
    """Names in several languages as one training set; evaluations have all, by language."""
    config.text.tower, config.data.language = "demo:me5_small", "language"
    config.study.domains = tuple(
        (
            f"together{k}",
            f"demo:twemoji/{languages}:train@{k}",
            (
                ("same-style", f"demo:twemoji/all:test@{k}"),
                ("style-shift", f"demo:openmoji/all:test@{k}"),
            ),
        )
        for k in (1, 2, 3)
    )
    config.study.methods = ("chance", "ridge", "cca", "ape", "cca_start", "few_pairs")
    _, pairs, sets = config.study.domains[0]
    config.data.pairs, config.data.eval = pairs, dict(sets)
    config.study.reference = "few_pairs"


_TRAINED_ON = (
    ("one-style", "demo:twemoji:train@"),
    ("two-styles", "demo:twemoji:train@::demo:openmoji:train@"),
)


def _three_styles(k: int, trained_on: str) -> tuple[tuple[str, str], ...]:
    """The sets of a split; those that were trained on different styles are not one table."""
    return tuple(
        (f"{style}-from-{trained_on}", f"demo:{style}:test@{k}")
        for style in ("twemoji", "openmoji", "noto")
    )


def _two_styles(k: int, language: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{language}-{name}", f"demo:{style}/{language}:test@{k}")
        for name, style in (("same-style", "twemoji"), ("style-shift", "openmoji"))
    )


def _icons(config: ml_collections.ConfigDict, validation: bool) -> None:
    recipes.icons(config, validation=validation)
    config.train.steps = 600
    config.train.log_every = config.train.checkpoint_every = 600
    config.optim.warmup = 30
    config.study.sizes = (1024, 4096, 16384, 0)
    config.study.steps = ((1024, 60), (4096, 120), (16384, 300))
    # Out of 1e-3 and 3e-3, and a temperature that learns as fast or 5 times faster, on 16,384
    # pairs: 3e-3 everywhere, and the faster temperature but for two.
    config.optim.lr = 3e-3
    config.study.lrs = (("cca_start+token_mlp", 3e-3), ("cca_start+token_mlp+lookup", 3e-3))
    alike = ((".*log_scale", 1.0),)
    config.study.set += tuple(
        (name, "optim.lr_mults", alike) for name in ("lookup", "ape+linear_image")
    )
    config.study.methods = (
        *("chance", "ridge", "ridge_text", "cca", "procrustes"),
        *("linear", "pooled_mlp", "ape", "transformer", "lookup", "ape+linear_image"),
        *("cca_start+token_mlp", "cca_start+token_mlp+lookup"),
    )
