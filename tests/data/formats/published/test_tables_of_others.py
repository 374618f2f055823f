"""TextCaps, DreamLIP, ROCO, MedICaT, and tables of addresses."""

import json

import pytest

from ape_jax.data.formats.published.addresses import ADDRESSES
from ape_jax.data.formats.published.dreamlip import DREAMLIP
from ape_jax.data.formats.published.medicat import MEDICAT
from ape_jax.data.formats.published.roco import ROCO, ROCO_TABLE
from ape_jax.data.formats.published.textcaps import TEXTCAPS
from ape_jax.errors import UserError


def textcaps(**fields) -> dict:
    return {"image_id": "7f", "flickr_original_url": "http://x/7f.jpg", "set_name": "val", **fields}


def test_textcaps_has_a_row_a_caption(read, write):
    both = ["a stop sign", "red sign"]
    rows = [textcaps(caption_str=c, caption_id=i, reference_strs=both) for i, c in enumerate(both)]
    got = read(TEXTCAPS, write("TextCaps_0.1_val.json", {"dataset_type": "val", "data": rows}))
    assert got.pairs == [("7f.jpg", "a stop sign"), ("7f.jpg", "red sign")]


def test_textcaps_bad_rows_are_named_and_the_test_set_has_none(read, write):
    rows = [textcaps(caption_str="x"), textcaps(), {"caption_str": "y"}, 5]
    got = read(TEXTCAPS, write("a.json", {"data": rows}))
    assert [b.kind for b in got.broken] == ["empty caption", "no image", "no image"]
    with pytest.raises(UserError, match="there is no 'caption_str'"):
        read(TEXTCAPS, write("a.json", {"data": [textcaps()]}))


DREAMLIP_HEADER = "Image Path,raw_caption,shortIB_captions,longSV_captions\n"


def test_dreamlip_takes_the_raw_caption_and_names_the_others(read, write):
    path = write("cc3m.csv", DREAMLIP_HEADER + 'a.jpg,raw,short,"long, one"\n')
    got = read(DREAMLIP, path)
    assert got.pairs == [("a.jpg", "raw")]
    assert "not read: 'shortIB_captions', 'longSV_captions'" in got.said[0]
    asked = {"captions": ("raw_caption", "longSV_captions")}
    assert read(DREAMLIP, path, columns=asked).pairs == [("a.jpg", ["raw", "long, one"])]
    with pytest.raises(UserError, match=r"no column 'longXX'.*found 'Image Path'"):
        read(DREAMLIP, path, columns={"captions": ("longXX",)})


def test_dreamlip_s_addresses_are_downloaded_first(read, write):
    path = write("cc3m.csv", DREAMLIP_HEADER + "https://x.org/a.jpg,raw,short,long\n")
    words = r"--url_col='Image Path' --caption_col=raw_caption --save_additional_columns='\[\"short"
    with pytest.raises(UserError, match=words):
        read(DREAMLIP, path)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("a very typical bus station\thttp://lh6.x.com/a\n", r"caption\\turl"),
        ("https://x.org/a.jpg\tMetal Design\n", r"url\\tcaption"),
    ],
)
def test_conceptual_captions_say_how_to_download_them(read, write, text, header):
    path = write("Train_GCC-training.tsv", text)
    with pytest.raises(UserError, match=f"sed -i .1s/\\^/{header}.*img2dataset --url_list=.*tar"):
        read(ADDRESSES, path)


def test_wit_says_how_to_download_it(read, write):
    head = "language\tpage_url\timage_url\tpage_title\tcaption_reference_description\n"
    words = "--url_col=image_url --caption_col=caption_reference_description"
    with pytest.raises(UserError, match=words) as error:
        read(ADDRESSES, write("wit_v1.train.tsv", head))
    assert "sed" not in str(error.value)


@pytest.mark.parametrize("text", ["a.jpg\ta cat\n", "image\tcaption\n", "http://a\thttp://b\n", ""])
def test_other_tables_are_not_taken_for_addresses(write, text):
    assert not ADDRESSES.matches(str(write("a.tsv", text)))


def test_roco_s_lines(read, write):
    text = "ROCO_00002\t Axial view, sinus\nROCO_00003 \tChest\nno id\n"
    got = read(ROCO, write("captions.txt", text))
    assert got.pairs == [("ROCO_00002.jpg", " Axial view, sinus"), ("ROCO_00003.jpg", "Chest")]
    assert [(b.at, b.kind) for b in got.broken] == [("3", "damaged row")]
    assert any(folder.endswith("/images") for folder in got.file.base)


TABLE = 'id,name,caption\nROCO_00002,PMC4.jpg,"Axial, sinus"\n'


def test_roco_s_table_names_images_by_what_is_there(read, write, draw):
    path = write("traindata.csv", TABLE)
    by_id = read(ROCO_TABLE, path)
    assert by_id.pairs == [("ROCO_00002.jpg", "Axial, sinus")] and "called by id" in by_id.said[0]
    draw("images/PMC4.jpg")
    by_name = read(ROCO_TABLE, path)
    assert by_name.pairs == [("PMC4.jpg", "Axial, sinus")] and "by name" in by_name.said[0]


def test_rocov2_s_table(read, write):
    got = read(ROCO_TABLE, write("train_captions.csv", "ID,Caption\nROCOv2_2023_train_000001,CT\n"))
    assert got.pairs == [("ROCOv2_2023_train_000001.jpg", "CT")]


def test_a_table_of_ids_and_captions_of_others_is_not_roco(write):
    assert not ROCO_TABLE.matches(str(write("a.csv", "id,caption\n1,a cat\n")))


def test_medicat_joins_the_paper_and_the_figure(read, write):
    rows = [
        {"pdf_hash": "57c9", "fig_uri": "2-Figure1-1.png", "s2_caption": "A", "s2orc_caption": "B"},
        {"pdf_hash": "57c9", "fig_uri": "3-Figure2-1.png", "s2_caption": "", "s2orc_caption": "C"},
        {"pdf_hash": "57c9", "s2_caption": "D"},
    ]
    got = read(MEDICAT, write("s2_full.jsonl", "\n".join(map(json.dumps, rows))))
    assert got.pairs == [("57c9_2-Figure1-1.png", "A"), ("57c9_3-Figure2-1.png", "C")]
    assert [b.kind for b in got.broken] == ["no image"] and "s2orc_caption" in got.said[0]
