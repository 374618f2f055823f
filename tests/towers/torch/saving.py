"""Small random models of other libraries, saved as their users save them."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("a", "the", "of", "red", "blue", "cat", "dog", "bar", "photo", "query", ":")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
TEXTS = ["a red cat", "the photo of the blue dog", "cat", "a photo of a bar of the dog", "blue dog"]
PLAIN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": len(WORDS) + len(SPECIAL),
}


def randomised(model, seed=0):
    """The model with every parameter and running statistic random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                small = 0.5 * noise.abs() + 0.5 if "running_var" in name else 0.05 * noise
                tensor.copy_(small if "running_var" in name else tensor + small)
    return model.eval()


def save_tokenizer(directory, **settings):
    """A tokenizer of a few words with [CLS] and [SEP], as its files."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    named = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), SPECIAL))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 24, **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps({**named, **settings}))


def save_images(directory, processor="ViTImageProcessor", **settings):
    """Settings of an image processor of transformers."""
    square = {"size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6]}
    settings = {"image_processor_type": processor, **square, **settings}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
