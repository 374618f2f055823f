"""Small random models of transformers, a directory each."""

import numpy as np
import pytest
import transformers
from PIL import Image

from tests.towers.torch.saving import PLAIN, randomised, save_images, save_tokenizer


@pytest.fixture(scope="session")
def swin(tmp_path_factory):
    """A Swin, which has no CLS."""
    directory = tmp_path_factory.mktemp("swin")
    sizes = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    config = transformers.SwinConfig(image_size=32, patch_size=4, **sizes)
    randomised(transformers.SwinModel(config)).save_pretrained(directory)
    save_images(directory)
    return directory


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A ResNet, whose output is a feature map."""
    directory = tmp_path_factory.mktemp("resnet")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    randomised(transformers.ResNetModel(config)).save_pretrained(directory)
    save_images(directory, "ConvNextImageProcessor", size={"shortest_edge": 32}, crop_pct=0.875)
    return directory


@pytest.fixture(scope="session")
def funnel(tmp_path_factory):
    """A Funnel Transformer, whose inner layers are shorter than the text."""
    directory = tmp_path_factory.mktemp("funnel")
    sizes = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48}
    config = transformers.FunnelConfig(
        block_sizes=[1, 1], vocab_size=PLAIN["vocab_size"], hidden_act="gelu", **sizes
    )
    randomised(transformers.FunnelModel(config)).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def longformer(tmp_path_factory):
    """A Longformer."""
    directory = tmp_path_factory.mktemp("longformer")
    config = transformers.LongformerConfig(
        attention_window=[4, 4], max_position_embeddings=40, pad_token_id=0, **PLAIN
    )
    randomised(transformers.LongformerModel(config)).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture
def pictures():
    """Three pictures of different sizes."""
    rng = np.random.default_rng(0)
    sizes = ((40, 50), (64, 33), (32, 32))
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]
