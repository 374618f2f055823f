"""Damaged files of every kind: one sentence, or what is sound of them; soon, and in little memory.

`damage` makes them, a thousand and more.
"""

import itertools
import resource
import time

import pytest

from ape_jax.data import open_labelled, open_pairs
from ape_jax.data.formats.features import open_vectors
from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from tests.data import damage
from tests.data.damage import ARCHIVES, SAMPLES

SKIP = Reading(look=False, on_error="skip", max_skipped=1.0)
MOST_SECONDS, MOST_KILOBYTES = 5, 100_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))


def read(kind: str, spec: str) -> list:
    """What a source holds, its rows that cannot be used left out."""
    if kind == "vectors":
        return [len(open_vectors(spec))]
    if kind == "labels":
        return [(x.image.name, x.label) for x in open_labelled(spec, list("abcd"), reading=SKIP)]
    return [caption for pair in open_pairs(spec, reading=SKIP) for caption in pair.captions]


def tried(kind: str, spec: str) -> tuple[list | None, str]:
    """What is read, or the sentence; and what is wrong with how that came, "" for nothing."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = None
    try:
        found = read(kind, spec)
        wrong = ""
    except UserError as error:
        said = str(error)
        wrong = f"no sentence: {said}" if "\n" in said or not said or said[-1] == "." else ""
    except Exception as error:  # All of them are gathered and shown together.
        wrong = f"{type(error).__name__}: {error}"
    if (seconds := time.monotonic() - start) > MOST_SECONDS:
        wrong = f"{wrong} took {seconds:.0f} s"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return found, f"{wrong} took {grown} KB" if grown > MOST_KILOBYTES else wrong


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SAMPLES)
def test_the_sound_file_is_read(name, tmp_path):
    sample = SAMPLES[name]
    found = read(sample.kind, sample.put(tmp_path, sample.content))
    assert len(found) == {"vectors": 1}.get(sample.kind, 2 if "sidecar" in name else 4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_is_one_sentence_or_what_is_sound_of_it(name, tmp_path):
    sample = SAMPLES[name]
    wrong = []
    for number, (what, content) in enumerate(damage.damages(name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        found, problem = tried(sample.kind, sample.put(folder, content))
        if problem:
            wrong.append(f"{what}: {problem}")
        elif what.startswith(damage.OF_THE_SECOND) and sample.kind == "pairs":
            rest = {f"caption of {i}.png" for i in (0, 2, 3)}
            if found is None or not rest <= set(found):
                wrong.append(f"{what}: others are lost, {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["parquet of bytes", "arrow", "vectors parquet"])
def test_flipped_bits_never_end_the_process(name, tmp_path):
    """As pyarrow does for statistics that do not fit, where it is asked for them."""
    sample = SAMPLES[name]
    some = itertools.islice(damage.flips(name, 200), 150, None)  # Number 168 did.
    tries = (tried(sample.kind, sample.put(tmp_path, content)) for content in some)
    assert not [wrong for _, wrong in tries if wrong]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", damage.NO_FILES)
@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_no_file_is_one_sentence_and_nothing_waits(name, kind, tmp_path):
    sample = SAMPLES[name]
    spec = damage.in_its_place(sample, kind, tmp_path)
    found, wrong = tried(sample.kind, spec)
    # A text beside an image is one row of several, and a folder without its state one of files.
    rest = {"sidecar text": [1], "sidecar json": [1], "saved": range(4)}.get(name, ())
    assert not wrong and (found is None or found == [f"caption of {i}.png" for i in rest])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("path", ["n" * 300, "a\0b", "a\udc00b", "x/" * 3000])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_name_that_no_file_can_have_is_one_sentence(name, path, tmp_path):
    sample = SAMPLES[name]
    ending = sample.name[sample.name.index(".") :]
    spec = sample.spec.replace("{}", f"{tmp_path}/{path}{ending}")
    spec = spec.replace("{folder}", f"{tmp_path}/{path}")
    found, wrong = tried(sample.kind, spec)
    assert found is None and not wrong


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_features_that_is_none_is_one_sentence(name, tmp_path):
    (tmp_path / "x.npz").write_bytes(ARCHIVES[name])
    found, wrong = tried("vectors", f"features:{tmp_path}/x.npz")
    # Where they lie, and what their own headers say, is right.
    assert not wrong and found == ([4] if name in ("sizes that are lies", "both sizes") else None)


@pytest.mark.parametrize("name", ["csv.xz", "tar.xz"])
def test_a_dictionary_that_fills_the_memory_is_refused(name, tmp_path):
    sample = SAMPLES[name.removesuffix(".xz")]
    (tmp_path / f"p.{name}").write_bytes(damage.xz_with_a_huge_dictionary(sample.content))
    with pytest.raises(UserError, match=r"[Mm]emory"):
        read("pairs", str(tmp_path / f"p.{name}"))


def test_there_are_enough_of_them():
    assert sum(1 for name in SAMPLES for _ in damage.damages(name)) > 1000
