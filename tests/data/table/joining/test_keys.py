"""What counts as one image."""

import io
import tarfile


def test_an_image_in_two_files_is_one(folder, write, made):
    write(folder / "p.jsonl", [("a.png", "x")])
    write(folder / "q.jsonl", [("./a.png", "y"), ("a.png", "x")])
    assert made(str(folder / "{p,q}.jsonl")) == [("a.png", ("x", "y"))]


def test_a_picture_under_several_names_in_tars_is_one_image(tmp_path, made):
    """Images inside of files are told apart by their bytes, also where sizes and middles agree."""
    big = [bytes([i]) + b"x" * 20_000 + end for i, end in ((0, b"a"), (0, b"a"), (0, b"b"))]
    contents = {"0.tar": {"a": big[0], "b": b"other"}, "1.tar": {"a": big[2], "c": big[1]}}
    for name, images in contents.items():
        with tarfile.open(tmp_path / name, "w") as tar:
            for key, content in images.items():
                for ending, data in (("png", content), ("txt", f"{name} {key}".encode())):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    assert made(str(tmp_path / "{0,1}.tar")) == [
        ("0.tar/a", ("0.tar a", "1.tar c")),
        ("0.tar/b", ("0.tar b",)),
        ("1.tar/a", ("1.tar a",)),
    ]
