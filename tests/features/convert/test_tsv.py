"""Bottom-up TSV files: both orders of columns, every kind of bad line, and the real sample."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import EXPECTED, Made, check, made_images, write_tsv

from coattn._internal.files import sha256_of_file
from coattn.features.convert.formats.tsv import LXMERT, OLDER, BottomUpTsv
from coattn.features.convert.run import Conversion, convert
from coattn.features.store.merge import merge
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import FeatureStore


@pytest.fixture
def made() -> dict[str, Made]:
    return made_images()


@pytest.mark.parametrize("order", [OLDER, LXMERT], ids=["older", "lxmert"])
@pytest.mark.parametrize("header", [False, True])
def test_tsv_of_both_orders(tmp_path, made, order, header):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()), order, header)
    did = convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", images_per_unit=3, progress=False)
    assert (did.done, did.skipped, did.repeated, did.cut_boxes) == (4, [], 0, 0)
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == list(made)
    check(store, made, detections=order == LXMERT)
    assert same_extractor(store.record, EXPECTED)
    assert store.record["versions"]["sources"] == [{"file": "a.tsv", "sha256": sha256_of_file(tsv)}]
    one = merge([tmp_path / "out"], tmp_path / "one.h5")
    check(one, made, detections=order == LXMERT)
    assert one.record == store.record


def damaged(tmp_path: Path, made: dict[str, Made], *, change: dict[int, Any], **options: Any) -> Conversion:
    """Convert a TSV of which some lines were changed."""
    lines = write_tsv(tmp_path / "a.tsv", list(made.items())).read_bytes().splitlines(keepends=True)
    for number, edit in change.items():
        lines[number] = edit(lines[number])
    (tmp_path / "a.tsv").write_bytes(b"".join(lines))
    return convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", dtype="float32", progress=False, **options)


def replaced(column: str, value: Any) -> Any:
    def edit(line: bytes) -> bytes:
        fields = line.rstrip(b"\r\n").split(b"\t")
        fields[OLDER.index(column)] = value(fields[OLDER.index(column)]) if callable(value) else value
        return b"\t".join(fields) + b"\r\n"

    return edit


def changed(column: str, index: int, value: float) -> Any:
    def edit(field: bytes) -> bytes:
        array = np.frombuffer(base64.b64decode(field), np.float32).copy()
        array[index] = value
        return base64.b64encode(array.tobytes())

    return replaced(column, edit)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda line: line[:-20] + b"\n", "features is not base64, or cut off|is not a multiple|not whole numbers"),
        (lambda line: line[: line.rindex(b"\t")] + b"\n", "5 columns, not 6 .* it is cut off"),
        (replaced("features", lambda field: b"!" + field[1:]), "features is not base64"),
        (replaced("features", lambda field: field[:-8]), "not a multiple of its 5 boxes|not whole numbers"),
        (replaced("features", base64.b64encode(np.ones((5, 4), np.float32).tobytes())), "width 4, .* have 6"),
        (replaced("num_boxes", b"x"), "num_boxes is 'x'"),
        (replaced("num_boxes", b"4"), "boxes|multiple"),
        (replaced("image_w", b"0"), "image_w is '0', not a whole number from 1"),
        (changed("features", 3, np.nan), "1 of 30 values of its features are NaN or infinite"),
        (changed("boxes", 6, np.inf), r"box 1 is \("),
        (changed("boxes", 6, 700.0), r"box 1, .* outside of its image of 640 x 480 pixels by 60"),
        (changed("boxes", 0, 650.0), r"box 0 is inverted: .* \(is it x, y, width, height\?\)"),
        (replaced("image_w", b"99999999999"), "has 99999999999 x 480 pixels"),
    ],
)
def test_a_bad_record_is_named_and_the_others_kept(tmp_path, made, capfd, edit, reason):
    did = damaged(tmp_path, made, change={2: edit})
    (skipped,) = did.skipped
    assert (skipped.image_id, skipped.path) == ("17", f"{tmp_path}/a.tsv, line 3")
    assert re.search(reason, skipped.reason)
    assert f"{tmp_path}/a.tsv, line 3, image '17'" in capfd.readouterr().err
    store = FeatureStore(tmp_path / "out")
    assert [entry.image_id for entry in store.skipped] == ["17"]
    del made["17"]
    check(store, made)


@pytest.mark.parametrize("keep", [3, 6], ids=["too few columns", "as many as in the other order"])
def test_a_damaged_first_line_does_not_hide_the_order(tmp_path, made, keep):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()), LXMERT)
    first, *others = tsv.read_bytes().splitlines(keepends=True)
    tsv.write_bytes(b"\t".join(first.split(b"\t")[:keep]) + b"\n" + b"".join(others))
    did = convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", progress=False)
    assert [entry.path for entry in did.skipped] == [f"{tsv}, line 1"]
    del made["3"]
    check(FeatureStore(tmp_path / "out"), made, detections=True)


def test_a_box_a_pixel_outside_is_cut_and_counted(tmp_path, made):
    did = damaged(tmp_path, made, change={2: changed("boxes", 6, 640.5), 3: changed("boxes", 0, -1.0)})
    assert (did.skipped, did.cut_boxes) == ([], 2)
    assert FeatureStore(tmp_path / "out").record["versions"]["cut_boxes"] == 2
    rows = FeatureStore(tmp_path / "out").read(2)
    assert rows.boxes[1, 2] == 1
    did = convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", dtype="float32", progress=False)
    assert (did.found_done, did.cut_boxes) == (4, 2)


def test_a_feature_beyond_float16_is_named_with_the_fix(tmp_path, made):
    path = write_tsv(tmp_path / "a.tsv", list(made.items()))
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(changed("features", 3, 1e6)(first) + b"".join(others))
    did = convert("bottom-up-tsv", [path], tmp_path / "out", progress=False)
    assert [entry.reason for entry in did.skipped] == [
        "has a feature of 1e+06, beyond float16; store them as float32 (--dtype float32)"
    ]


def test_boxes_far_outside_are_cut_on_request(tmp_path, made):
    did = damaged(tmp_path, made, change={2: changed("boxes", 6, 700.0)}, clip_boxes=True)
    assert (did.done, did.cut_boxes) == (4, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"a\.tsv: is an empty file"),
        (gzip.compress(b"1", mtime=0), r"a\.tsv: is compressed by gzip; unpack it"),
        (b"1,2,3\n", r"line 1 has 1 columns; a bottom-up TSV has 6"),
        (b"image_id\tnum_boxes\n", "lacks the column image_w"),
        (b"\t".join(name.encode() for name in OLDER) + b"\n", "holds no images"),
        (b"1\t2\t3\t1\tAAA\tAAA\n", "line 1: .*features is not base64"),
    ],
)
def test_what_is_no_tsv_is_refused_and_nothing_written(tmp_path, content, reason):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_the_real_sample_is_exact(tmp_path, shared_data):
    """Against an independent decoding: float32 equal, float16 rounded once, int8 within the stated bound."""
    path = shared_data / "region_features" / "train2014_obj36.tsv"
    for dtype in ("float32", "float16", "int8"):
        convert("bottom-up-tsv", [path], tmp_path / dtype, dtype=dtype, progress=False)
    stores = {dtype: FeatureStore(tmp_path / dtype) for dtype in ("float32", "float16", "int8")}
    worst = 0.0
    with path.open() as file:
        for number, line in enumerate(file):
            fields = dict(zip(LXMERT, line.rstrip("\n").split("\t"), strict=True))
            features = np.frombuffer(base64.decodebytes(fields["features"].encode()), "<f4").reshape(36, 2048)
            boxes = np.frombuffer(base64.decodebytes(fields["boxes"].encode()), "<f4").reshape(36, 4)
            size = [int(fields["img_w"]), int(fields["img_h"])]
            rows = stores["float32"].read(number)
            assert stores["float32"].image_ids[number] == str(int(fields["img_id"][-12:]))
            np.testing.assert_array_equal(rows.features, features)
            np.testing.assert_allclose(rows.boxes * (size * 2), boxes, rtol=1e-6, atol=1e-4)
            assert rows.size.tolist() == size
            np.testing.assert_array_equal(
                rows.labels, np.frombuffer(base64.decodebytes(fields["objects_id"].encode()), "<i8")
            )
            np.testing.assert_array_equal(
                rows.attribute_scores, np.frombuffer(base64.decodebytes(fields["attrs_conf"].encode()), "<f4")
            )
            np.testing.assert_array_equal(stores["float16"].read(number).features, features.astype(np.float16))
            error = np.abs(stores["int8"].read(number).features - features)
            worst = max(worst, float((error / features.max(axis=1, keepdims=True)).max()))
    assert number == 9
    assert 1 / 260 < worst <= 1 / 253


def test_a_file_that_becomes_shorter_is_named(tmp_path, made):
    """Reading a mapped file behind its end would end the process."""
    source = BottomUpTsv(write_tsv(tmp_path / "a.tsv", list(made.items())))
    with (tmp_path / "a.tsv").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match=r"a\.tsv: was truncated to 100 bytes while it was read"):
        source.read(source.entries[-1])
    source.close()
