"""Vision transformers in the files of timm, https://github.com/huggingface/pytorch-image-models."""
