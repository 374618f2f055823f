"""Features on the device or in files give the batches, and the bits, of those in memory."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from ape_jax.align import heads
from ape_jax.align.latent import Latent
from ape_jax.align.model import Model, Side
from ape_jax.config import Config
from ape_jax.data.pairs import Pair
from ape_jax.features import ragged
from ape_jax.features.dataset import Captions, Dataset
from ape_jax.features.ragged import RaggedTokens
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.storage.rows.access import is_on_disk
from ape_jax.storage.rows.mapped import MappedRows, Part
from ape_jax.towers.tower import Tower, TowerConfig
from ape_jax.training.input.device_feed import DeviceFeed
from ape_jax.training.input.host_feed import HostFeed
from ape_jax.training.step import init_state, make_run, make_step

WIDTH = 16


def make_dataset(n=50, views=3, longest=9, dtype=ml_dtypes.bfloat16):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, n)
    rows = rng.integers(0, n, counts.sum())  # Some texts are those of several records.
    lengths = rng.integers(1, longest + 1, n)
    flat = rng.normal(size=(lengths.sum(), WIDTH)).astype(dtype)
    return Dataset(
        pairs=[Pair(ImageRef("", ""), (), str(i)) for i in range(n)],
        captions=Captions(
            tuple(map(str, range(n))), rows, np.concatenate([[0], np.cumsum(counts)])
        ),
        pooled=rng.normal(size=(n, views, WIDTH)).astype(dtype),
        tokens=RaggedTokens(flat, np.concatenate([[0], np.cumsum(lengths)])),
    )


def on_disk(dataset, folder, files=5):
    """The same data set, its features in so many files each."""

    def put(name, rows):
        parts = []
        for k, piece in enumerate(np.array_split(rows, files)):
            (folder / f"{name}-{k}").write_bytes(piece.tobytes())
            parts.append(Part(folder / f"{name}-{k}", len(piece)))
        return MappedRows(parts, rows.shape[1:], rows.dtype)

    tokens = dataclasses.replace(dataset.tokens, flat=put("tokens", dataset.tokens.flat))
    return dataclasses.replace(dataset, pooled=put("pooled", dataset.pooled), tokens=tokens)


def tower(kind):
    """No tower is ever run on features; its text side only names a preparation."""
    sizes = {"width": WIDTH, "depth": 1, "heads": 1, "mlp_width": WIDTH}
    config = TowerConfig(
        kind=kind, family="none", **sizes, pooling="mean", activation="gelu", norm_eps=1e-6
    )
    return Tower(
        kind=kind, module=nn.Module(), config=config, prepare=print, spec="none", digest="none"
    )


def feeds(dataset, mesh, *, batch=16, seed=3, calls=0, positives=1, micro_batches=1):
    train = {"batch": batch, "micro_batch": batch // micro_batches, "steps_per_call": calls}
    changes = {"seed": seed, "loss.positives": positives}
    config = Config().replace(changes | {f"train.{key}": value for key, value in train.items()})
    host = HostFeed(dataset, tower("image"), tower("text"), config, mesh)
    return host, DeviceFeed(dataset, host.sampler, host.block_steps, mesh)


def gathered(feed, start, stop):
    """Every step's batch as bytes; what lies outside of the spans too."""
    out = []
    for span, block in feed.blocks(start, stop):
        arrays = {name: (x.dtype, np.asarray(x).tobytes()) for name, x in block.items()}
        out.append((span, {name: x.shape for name, x in block.items()}, arrays))
    return out


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("n", "batch"), [(50, 16), (17, 16), (1000, 40)])
def test_blocks_are_those_of_the_host(devices, n, batch):
    mesh = mesh_lib.make_mesh(devices)
    streamed, resident = feeds(make_dataset(n), mesh, batch=batch, calls=24)
    # Over the end of a window, from the middle of a block, through many epochs.
    assert gathered(resident, 41, 70) == gathered(streamed, 41, 70)


@pytest.mark.parametrize("devices", [1, 8])
def test_blocks_with_several_captions_an_image_are_those_of_the_host(devices):
    mesh = mesh_lib.make_mesh(devices)
    streamed, resident = feeds(make_dataset(), mesh, calls=24, positives=3)
    made = gathered(resident, 41, 70)
    assert made == gathered(streamed, 41, 70)
    shapes = made[0][1]
    steps = streamed.block_steps
    assert shapes["text"] == (steps, 16, 3) and shapes["lengths"] == (steps, devices, 48 // devices)


@pytest.mark.parametrize("devices", [1, 8])
def test_blocks_in_micro_batches_are_those_of_the_host(devices):
    mesh = mesh_lib.make_mesh(devices)
    streamed, resident = feeds(make_dataset(), mesh, batch=48, calls=24, micro_batches=3)
    made = gathered(resident, 41, 70)
    assert made == gathered(streamed, 41, 70)
    assert made[0][1]["lengths"] == (streamed.block_steps, 3 * devices, 16 // devices)


def test_far_positions_are_sampled_alike():
    streamed, resident = feeds(make_dataset(), mesh_lib.make_mesh(8), calls=4)
    step = 2**31 // 64 * 64 + 3  # Positions of more than 32 bits.
    assert gathered(resident, step, step + 3) == gathered(streamed, step, step + 3)


def train(feed, mesh, steps):
    head = heads.TokenMLP(WIDTH, tower("text").config, depth=3, width=32, dropout=0.3)
    model = Model(
        image=Side(tower=tower("image"), head=heads.Linear(WIDTH), pooling="mean"),
        text=Side(tower=tower("text"), head=head),
    )
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    optimizer = optax.adam(1e-2)
    latent = Latent(mixup=1.0, noise=0.1, dropout=0.1)
    run = make_run(make_step(model, "softmax", optimizer, mesh, latent=latent), mesh)
    state = mesh_lib.place_replicated(init_state(trainable, optimizer), mesh)
    losses = []
    for span, block in feed.blocks(0, steps):
        bounds = np.int32(span.start), np.int32(span.stop)
        state, metrics = run(state, frozen, jax.random.key(0), block, *bounds)
        losses += list(np.asarray(metrics["loss"])[span.start : span.stop])
    return jax.tree.map(np.asarray, state.trainable), losses


@pytest.mark.parametrize("devices", [1, 8])
def test_device_resident_and_streamed_training_end_with_the_same_bits(devices):
    mesh = mesh_lib.make_mesh(devices)
    ends = [train(s, mesh, 30) for s in feeds(make_dataset(), mesh, calls=7)]
    jax.tree.map(np.testing.assert_array_equal, ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert ends[0][1][-1] < ends[0][1][0]  # It did train.


def test_the_gather_moves_nothing_between_devices():
    mesh = mesh_lib.make_mesh(8)
    _, resident = feeds(make_dataset(), mesh)
    _, samples, size = next(resident._samples(0, 2))
    placed = mesh_lib.place_steps(samples, mesh)
    program = resident._gather.lower(resident._features, placed, size=size)
    text = program.compile().as_text()
    assert "gather" in text
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


def test_one_size_serves_nearly_all_windows():
    streamed, _ = feeds(make_dataset(2000), mesh_lib.make_mesh(8), batch=256)
    sizes = [streamed.sampler.at(64 * window)[0].size for window in range(6)]
    assert len(set(sizes)) <= 2
    assert max(sizes) < 1.5 * 256 / 8 * make_dataset(2000).tokens.lengths.mean()


def test_bf16_features_are_gathered_as_stored():
    _, resident = feeds(make_dataset(), mesh_lib.make_mesh(1))
    _, block = next(resident.blocks(0, 4))
    assert block["tokens"].dtype == block["pooled"].dtype == jnp.bfloat16


@pytest.mark.parametrize(("devices", "positives"), [(1, 1), (8, 3)])
def test_blocks_from_disk_are_those_from_memory(devices, positives, tmp_path):
    mesh, memory = mesh_lib.make_mesh(devices), make_dataset()
    settings = {"calls": 24, "positives": positives, "batch": 48, "micro_batches": 3}
    streamed, _ = feeds(memory, mesh, **settings)
    files, _ = feeds(on_disk(memory, tmp_path), mesh, **settings)
    assert gathered(files, 41, 70) == gathered(streamed, 41, 70)


def test_training_from_disk_memory_and_device_ends_with_the_same_bits(tmp_path):
    mesh, memory = mesh_lib.make_mesh(8), make_dataset()
    files = on_disk(memory, tmp_path)
    streamed, resident = feeds(memory, mesh, calls=7)
    from_disk, resident_from_disk = feeds(files, mesh, calls=7)
    ends = [train(feed, mesh, 30) for feed in (streamed, resident, from_disk, resident_from_disk)]
    for end in ends[1:]:
        jax.tree.map(np.testing.assert_array_equal, ends[0][0], end[0])
        assert end[1] == ends[0][1]


def test_a_sample_of_features_on_disk_stays_there(tmp_path, monkeypatch):
    monkeypatch.setattr(ragged, "_BLOCK", 7)
    memory = make_dataset()
    ours, theirs = on_disk(memory, tmp_path).sample(20, 3), memory.sample(20, 3)
    assert is_on_disk(ours.pooled) and is_on_disk(ours.tokens.flat)
    assert ours.pooled[:].tobytes() == theirs.pooled.tobytes()
    assert ours.tokens.flat[:].tobytes() == theirs.tokens.flat.tobytes()
    assert ours.tokens.mean().tobytes() == theirs.tokens.mean().tobytes()
    mesh = mesh_lib.make_mesh(1)
    a, b = (gathered(feeds(d, mesh, calls=3)[0], 0, 7) for d in (ours, theirs))
    assert a == b
