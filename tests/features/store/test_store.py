from __future__ import annotations

import json
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_stores import RECORD, boxes_of, write

from coattn.features.store.reader import FeatureStore, StoreWriter, asset_path, require_same_extractor, same_extractor

TOLERANCE = {"float32": 0.0, "float16": 2.0**-11, "int8": 1 / 253}  # of the row's largest magnitude
ragged = st.lists(st.integers(0, 5), min_size=0, max_size=6)


@given(
    lengths=ragged,
    dim=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "float32", "int8"]),
    exponent=st.integers(-6, 4),
    seed=st.integers(0, 2**32 - 1),
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=6, max_size=6, unique=True
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_goes_in_comes_out(tmp_path, lengths, dim, dtype, exponent, seed, names):
    rng = np.random.default_rng(seed)
    rows = [(rng.normal(size=(n, dim)) * 10.0**exponent).astype(np.float32) for n in lengths]
    path = tmp_path / "round.h5"
    with StoreWriter(path, dim=dim, dtype=dtype, record=RECORD) as writer:
        for name, features in zip(names, rows, strict=False):
            corners = np.sort(rng.random((len(features), 2, 2)), axis=1).reshape(-1, 4)
            writer.add(name, features, corners, (3, 4))
    store = FeatureStore(path)
    assert store.image_ids == names[: len(rows)]
    assert (store.dim, store.dtype, store.record) == (dim, dtype, RECORD)
    assert store.lengths.tolist() == lengths
    order = rng.integers(0, len(rows), 7) if rows else np.empty(0, int)
    gathered = store.read_flat(order)
    assert gathered.lengths.tolist() == [lengths[i] for i in order]
    split = np.split(gathered.features, np.cumsum(gathered.lengths)[:-1])
    for i, got in zip(order, split, strict=False):
        smallest = (
            2.0**-25 if dtype == "float16" else 2.0**-24 if dtype == "int8" else 0
        )  # where float16 runs out of bits
        bound = TOLERANCE[dtype] * np.abs(rows[i]).max(axis=1, keepdims=True, initial=0) + smallest
        assert (np.abs(got.astype(np.float32) - rows[i]) <= bound).all()
        one = store.read(i)
        np.testing.assert_array_equal(one.features, got.astype(np.float32))
        assert one.features.dtype == one.boxes.dtype == np.float32


def test_gather_keeps_order_and_repeats(path, arrays):
    store = FeatureStore(path)
    got = store.read_flat(np.array([3, 0, 3, 1]))
    np.testing.assert_array_equal(got.features, np.concatenate([arrays[f"img{i}"] for i in (3, 0, 3, 1)]))
    assert got.lengths.tolist() == [7, 3, 7, 0]
    assert got.sizes.tolist() == [[640, 403], [640, 400], [640, 403], [640, 401]]
    np.testing.assert_array_equal(got.boxes, boxes_of(17))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_gather_into_a_given_buffer(tmp_path, arrays, dtype):
    store = FeatureStore(write(tmp_path / "a.h5", arrays, dtype=dtype))
    fresh = store.read_flat(np.array([4, 0])).features
    buffer = np.full((9, 5), 77, fresh.dtype)
    got = store.read_flat(np.array([4, 0]), out=buffer).features
    assert np.shares_memory(got, buffer)
    np.testing.assert_array_equal(got, fresh)
    assert (buffer[5:] == 77).all()


def test_labels_and_scores(tmp_path):
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
        writer.add(7, np.ones((2, 2)), boxes_of(2), (8, 9), labels=np.array([5, 6]), scores=np.array([0.5, 0.25]))
        with pytest.raises(
            ValueError, match="'8': boxes, labels, scores and attributes must be given for every image or for none"
        ):
            writer.add(8, np.ones((1, 2)), boxes_of(1), (8, 9), labels=np.array([1]))
    rows = FeatureStore(tmp_path / "a.h5").read(0)
    assert rows.labels.tolist() == [5, 6]
    assert rows.scores.tolist() == [0.5, 0.25]
    assert rows.size.tolist() == [8, 9]


def test_the_layout_is_the_documented_one(path, arrays):
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"coattn-features"
        assert bool(file.attrs["complete"])
        assert json.loads(file.attrs["extractor"]) == RECORD
        assert file["offsets"][()].tolist() == [0, 3, 3, 4, 11, 13]
        assert file["image_ids"].asstr()[0] == "img0"
        assert file["features"].chunks is None
        offset = file["features"].id.get_offset()
    rows = np.fromfile(path, "<f4", count=13 * 5, offset=offset).reshape(13, 5)
    np.testing.assert_array_equal(rows, np.concatenate(list(arrays.values())))


def test_strings_as_h5py_writes_them_by_itself_are_read_too(path):
    with h5py.File(path, "a") as file:
        record = json.loads(file.attrs["extractor"])
        file.attrs["format"] = "coattn-features"
        file.attrs["extractor"] = json.dumps({**record, "name": "othér"})
        del file["image_ids"]
        file["image_ids"] = ["a", "é", "c", "d", "e"]
    store = FeatureStore(path)
    assert store.record["name"] == "othér"
    assert store.image_ids[1] == "é"


def test_the_same_content_is_the_same_bytes(tmp_path, arrays):
    one, two = write(tmp_path / "1.h5", arrays), write(tmp_path / "2.h5", arrays)
    assert one.read_bytes() == two.read_bytes()


def test_spooled_rows_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("coattn.features.store.writer._SPOOL_BYTES", 64)
    monkeypatch.setattr("coattn.features.store.writer._BLOCK_BYTES", 50)
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    with StoreWriter(tmp_path / "a.h5", dim=3, record=RECORD) as writer:
        for i in range(20):
            writer.add(i, rows[i : i + 1])
    np.testing.assert_array_equal(FeatureStore(tmp_path / "a.h5").read_flat(np.arange(20)).features, rows)


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write_half() -> None:
        with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
            writer.add("x", np.ones((1, 2)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


# --- ids ---


def test_integer_ids_are_found_as_text(tmp_path):
    store = FeatureStore(write(tmp_path / "a.h5", {"42": np.ones((1, 2))}))
    assert 42 in store
    assert store.index(42) == store.index("42") == 0
    assert 43 not in store


def test_an_unknown_id_names_the_nearest(path):
    with pytest.raises(ValueError, match=r"a\.h5: no features of image 'imgg3' among 5 images; did you mean 'img3'"):
        FeatureStore(path).index("imgg3")


@pytest.mark.parametrize("name", ["42", "COCO_val2014_000000000042", "val2014/COCO_val2014_000000000042.jpg"])
def test_an_image_of_coco_is_found_by_number_and_file_name(tmp_path, name):
    store = FeatureStore(write(tmp_path / "a.h5", {"7": np.ones((1, 2)), name: np.ones((1, 2))}))
    file = "COCO_val2014_000000000042"
    assert [store.index(asked) for asked in (42, file, f"{file}.jpg", f"val2014/{file}")] == [1, 1, 1, 1]
    assert "142" not in store
    assert "4" not in store


@pytest.mark.parametrize("name", ["Z\u00fcrich", "Zu\u0308rich"])
def test_an_accent_may_be_a_part_of_its_letter_or_separate(tmp_path, name):
    store = FeatureStore(write(tmp_path / "a.h5", {"7": np.ones((1, 2)), name: np.ones((1, 2))}))
    assert store.positions(["Z\u00fcrich", "Zu\u0308rich", "Zurich"]).tolist() == [1, 1, -1]


# --- statistics ---


def test_statistics_are_numpys(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        str(i): (rng.normal(size=(n, 4)) * [1, 10, 0.1, 0] + 1000).astype(np.float32)
        for i, n in enumerate(rng.integers(0, 9, 200))
    }
    store = FeatureStore(write(tmp_path / "a.h5", arrays, dtype="float32"))
    chosen = np.array([5, 150, 3])
    for indices, names in ((None, arrays), (chosen, [str(i) for i in chosen])):
        rows = np.concatenate([arrays[name] for name in names]).astype(np.float64)
        mean, std = store.statistics(indices)
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-7)
        np.testing.assert_allclose(std, rows.std(axis=0), rtol=1e-6, atol=1e-9)


def test_statistics_of_nothing_are_refused(path):
    with pytest.raises(ValueError, match="no feature rows in 1 images"):
        FeatureStore(path).statistics(np.array([1]))


# --- processes ---


def _first_row(store: FeatureStore) -> list[float]:
    return store.read_flat(np.array([0])).features[0].tolist()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_another_process_reads_a_store_already_in_use(path, arrays, method):
    store = FeatureStore(path)
    expected = _first_row(store)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_first_row, (store,)) == expected == arrays["img0"][0].tolist()


def test_a_pickle_holds_no_rows_and_survives_a_change_of_directory(path, arrays, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(path.parent)
    store = FeatureStore(path.name)
    store.read_flat(np.arange(5))
    data = pickle.dumps(store)
    assert arrays["img3"].tobytes()[:20] not in data
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    np.testing.assert_array_equal(pickle.loads(data).read(3).features, arrays["img3"])


def test_reading_opens_no_file(path, monkeypatch):
    store = FeatureStore(path)
    expected = _first_row(store)
    path.unlink()
    assert _first_row(store) == expected


# --- bad input ---


@pytest.mark.parametrize(
    ("features", "boxes", "message"),
    [
        (np.ones((2, 3)), None, r"features of shape \(2, 3\), the store holds \(n, 2\)"),
        (np.ones(2), None, r"features of shape \(2,\)"),
        (np.ones((2, 2)), np.zeros((1, 4)), r"boxes of shape \(1, 4\), its features ask for \(2, 4\)"),
        (np.ones((1, 2)), np.array([[0, 0, 640, 480]]), r"boxes from 0 to 640, not .* divide pixels"),
        (np.ones((1, 2)), np.array([[0.5, 0, 0.4, 1]]), "x1 <= x2"),
        (np.array([[1, np.nan]]), None, "NaN or infinite"),
        (np.array([[1, 1e5]]), None, "has a feature of 100000, beyond float16; store them as float32"),
    ],
)
def test_what_a_store_cannot_hold_is_refused_by_name(tmp_path, features, boxes, message):
    with StoreWriter(tmp_path / "a.h5", dim=2, record=RECORD) as writer:
        with pytest.raises(ValueError, match=message) as error:
            writer.add("x", features, boxes)
        assert "'x'" in str(error.value)
        writer.add("x", np.ones((1, 2)))
        with pytest.raises(ValueError, match="'x' comes twice"):
            writer.add("x", np.ones((1, 2)))
    assert FeatureStore(tmp_path / "a.h5").image_ids == ["x"]


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1e9, r"1e\+09, beyond int8")]
)
def test_int8_refuses_what_has_no_scale(tmp_path, value, reason):
    with (
        StoreWriter(tmp_path / "a.h5", dim=2, dtype="int8", record=RECORD) as writer,
        pytest.raises(ValueError, match=reason),
    ):
        writer.add("x", np.array([[1.0, value]]))


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype 'float64'"):
        StoreWriter(tmp_path / "a.h5", dim=2, dtype="float64", record=RECORD)


# --- provenance and assets ---


def test_library_versions_do_not_make_another_extractor():
    weighted = {**RECORD, "weights": {"id": "a", "sha256": "1"}}
    assert same_extractor(RECORD, {**RECORD, "versions": {}, "settings": {"grid": (2, 2)}})
    assert same_extractor(weighted, {**weighted, "weights": {"id": "b", "sha256": "1"}})
    for other in ({**RECORD, "name": "x"}, {**RECORD, "settings": {"grid": [4, 4]}}, weighted):
        assert not same_extractor(RECORD, other)


def test_another_extractor_is_refused_field_by_field():
    other = {"name": "test", "settings": {"grid": [7, 7]}, "weights": {"id": "a", "sha256": "ff"}, "versions": {}}
    with pytest.raises(ValueError, match="another extractor") as error:
        require_same_extractor(RECORD, other, wanted_by="runs/m", found_in="x.h5")
    for part in ("runs/m", "x.h5", "settings.grid [2, 2] there, [7, 7] here", 'weights.sha256 null there, "ff" here'):
        assert part in str(error.value)
    require_same_extractor(RECORD, RECORD, wanted_by="a", found_in="b")


def test_assets_lie_beside_a_file(path):
    assert FeatureStore(path).asset("w.safetensors") is None
    target = asset_path(path, "w.safetensors")
    assert target == path.parent / "a.assets" / "w.safetensors"
    target.parent.mkdir()
    target.write_bytes(b"1")
    assert FeatureStore(path).asset("w.safetensors") == target
