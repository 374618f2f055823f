"""Pairs that hold one row of each kind that cannot be used."""

import shutil

# Beside the rows of the tiny world: kind and line.
BROKEN = (
    ("missing image", '{"image": "gone.png", "caption": "a red bar"}'),
    ("empty image", '{"image": "empty.png", "caption": "a red bar"}'),
    ("not an image", '{"image": "text.png", "caption": "a red bar"}'),
    ("damaged image", '{"image": "cut.png", "caption": "a red bar"}'),
    ("empty caption", '{"image": "red-bar.png", "caption": " "}'),
    ("empty caption", '{"image": "red-bar.png", "caption": null}'),
    ("no image", '{"image": null, "caption": "a red bar"}'),
    ("damaged row", '{"image": "red-bar.png", '),
)


def write_broken(tiny, root):
    """Writes the tiny world's pairs with rows between them that cannot be used; gives the file."""
    root.mkdir()
    for path in tiny.glob("*.png"):
        shutil.copy(path, root)
    (root / "empty.png").touch()
    (root / "text.png").write_text("no image")
    whole = (tiny / "red-bar.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    lines = (tiny / "pairs.jsonl").read_text().splitlines()
    for place, (_, line) in enumerate(BROKEN):
        lines.insert(2 * place + 3, line)
    (root / "pairs.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return root / "pairs.jsonl"
