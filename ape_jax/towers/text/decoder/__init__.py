"""Text towers of the RMS norm kind: Qwen, Llama, Mistral, EuroBERT, Gemma."""
