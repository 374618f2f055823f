"""Taking a trained run elsewhere: one target a file, and each checks what it has written.

`towers` and `heads` say a run in transformers' terms (configs, tensors under their names in files),
`processors` what comes before the towers; `modeling_ape.py` and `processing_ape.py` are templates
that are copied as they are, and are never imported here. `images/essential.py` is copied with them.
"""
