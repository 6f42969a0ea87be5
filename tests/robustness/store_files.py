"""Photos, stores and feature files to be damaged: small examples, and the functions that read them."""

from __future__ import annotations

import json
import pickle
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from feature_files import DIM, SIZE, made_images, mmf_info, write_dcn, write_npz, write_tsv
from format import Format, command
from model_files import inspected, make_text_encoder, photo
from stores import write as write_store

from coattn.features.convert.run import convert
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.images import find_images, load_image
from coattn.features.extract.run import extract
from coattn.features.store.reader import FeatureStore


def make_photos(folder: Path) -> None:
    for number, suffix in enumerate(("png", "jpg", "gif", "bmp", "tiff", "webp")):
        photo(number).save(folder / f"{number}.{suffix}")
    photo(7).convert("I;16").save(folder / "16bit.png")


def read_photos(folder: Path) -> Any:
    return [np.asarray(load_image(path)).sum() for path in sorted(folder.iterdir())]


def make_shards(folder: Path) -> None:
    for number in range(4):
        photo(number).save(folder / f"{number}.png")
    extract(find_images([folder]), folder / "store", Descriptor(), images_per_unit=2, progress=False)
    for number in range(4):
        (folder / f"{number}.png").unlink()


def rows_of(path: Path) -> Any:
    store = FeatureStore(path)
    flat = store.read_flat(np.arange(len(store)))
    return store.image_ids, flat.features.tolist(), flat.boxes.tolist(), [store.read(i) for i in range(len(store))]


def make_merged(folder: Path) -> None:
    make_shards(folder)
    (folder / "store").rename(folder / "a")
    write_store(folder / "b.h5", dim=56, record=FeatureStore(folder / "a").record, prefix="b", dtype="float16")


def merge(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        command("convert", "merge", folder / "a", folder / "b.h5", Path(out, "c.h5"))
        return rows_of(Path(out, "c.h5"))


def make_embeddings(folder: Path) -> None:
    make_text_encoder(folder / "encoder")
    (folder / "q.txt").write_text("what is it ?\nis it red ?\n")
    command("embed", folder / "q.txt", folder / "store", "--encoder", folder / "encoder")


def embed(folder: Path) -> Any:
    """Finish the store, which has to be complete."""
    command("embed", folder / "q.txt", folder / "store", "--encoder", folder / "encoder")
    return rows_of(folder / "store")


def make_vision_model(folder: Path) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    usual = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**usual, "resample": 3}))


def extract_by_vision_model(folder: Path) -> Any:
    from coattn.features.extract.extractors.transformers_grid import TransformersGrid, read_vision_model

    return [regions.features.tolist() for regions in TransformersGrid(**read_vision_model(folder))([photo()])]


def make_extractor_weights(folder: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), folder / "weights.pth")


def extract_by_weights(folder: Path) -> Any:
    from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid

    grid = TorchvisionGrid("squeezenet1_1", weights=folder / "weights.pth", size=(64, 64), grid=(2, 2))
    return grid([photo()])[0].features.tolist()


def make_hengyuan(folder: Path) -> None:
    boxes = np.random.default_rng(0).random((3, 4, 4), np.float32)
    with h5py.File(folder / "train36.hdf5", "w") as file:
        file["image_features"] = np.ones((3, 4, DIM), np.float32)
        file["image_bb"] = np.sort(boxes, axis=2)[..., [0, 1, 2, 3]] * 100
        shares = np.sort(boxes, axis=2)
        file["spatial_features"] = np.concatenate([shares, shares[..., 2:] - shares[..., :2]], axis=2)
    (folder / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({9: 0, 5: 1, 7: 2}, protocol=2))


def make_lmdb(folder: Path) -> None:
    import lmdb

    keys = [name.encode() for name in made_images()]
    with lmdb.open(str(folder / "a.lmdb"), map_size=2**18) as environment, environment.begin(write=True) as writing:
        for key, one in zip(keys, made_images().values(), strict=True):
            writing.put(key, pickle.dumps({"features": one.features, **mmf_info(one)}))
        writing.put(b"keys", pickle.dumps(keys))
    (folder / "a.lmdb" / "lock.mdb").unlink()


def make_mmf_npy(folder: Path) -> None:
    for name, one in made_images().items():
        np.save(folder / f"{name}.npy", one.features)
        np.save(folder / f"{name}_info.npy", mmf_info(one))  # type: ignore[arg-type]


def make_gqa(folder: Path) -> None:
    features = np.random.default_rng(0).random((2, 6, DIM), np.float32)
    boxes = np.tile(np.float32([1, 2, 30, 40]), (2, 6, 1))
    with h5py.File(folder / "gqa_objects_0.h5", "w") as file:
        file["features"], file["bboxes"] = features, boxes
    entry = {"file": 0, "objectsNum": 6, "width": SIZE[0], "height": SIZE[1]}
    (folder / "gqa_objects_info.json").write_text(json.dumps({str(n): {**entry, "idx": n} for n in range(2)}))


def make_vlt5(folder: Path) -> None:
    with h5py.File(folder / "val.h5", "w") as file:
        for name, one in made_images().items():
            group = file.create_group(f"COCO_val2014_{int(name):012d}")
            group["features"], group["boxes"] = one.features, one.boxes
            group["img_w"], group["img_h"] = SIZE
            group["obj_id"], group["obj_conf"] = one.labels, one.scores


def make_clevr_iep(folder: Path) -> None:
    with h5py.File(folder / "val.h5", "w") as file:
        file["features"] = np.random.default_rng(0).random((2, 6, 14, 14), np.float32)


def make_vinvl(folder: Path) -> None:
    from feature_files import text64

    lines, sizes = [], []
    for name, one in made_images().items():
        each = zip(one.features, one.boxes, one.scores, strict=True)
        objects = [
            {"class": "cat", "rect": box.tolist(), "conf": float(score), "feature": text64(row)}
            for row, box, score in each
        ]
        lines.append(f"{name}\t{json.dumps({'objects': objects})}\n")
        sizes.append(f"{name}\t{json.dumps([{'height': SIZE[1], 'width': SIZE[0]}])}\n")
    (folder / "predictions.tsv").write_text("".join(lines))
    (folder / "val.hw.tsv").write_text("".join(sizes))


def make_grids(folder: Path) -> None:
    for number in range(3):
        torch.save(torch.full((1, 8, 2, 3), float(number)), folder / f"{number}.pth")


def converted(kind: str, name: str, folder: Path) -> Any:
    """The features of a file or folder `name`; "" is the folder itself."""
    with tempfile.TemporaryDirectory() as out:
        convert(kind, [folder / name], Path(out, "out"), dtype="float32", progress=False)
        return rows_of(Path(out, "out"))


def make_image_list(folder: Path) -> None:
    photo().save(folder / "0.png")
    (folder / "images.json").write_text(json.dumps({"a": "0.png", "b": "0.png"}))


def extract_list(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as out:
        extract(find_images([folder / "images.json"]), Path(out, "store"), Descriptor(), progress=False)
        return rows_of(Path(out, "store"))


FORMATS: dict[str, Format] = {
    "vision model": Format(make_vision_model, extract_by_vision_model, (), 2),
    "extractor weights": Format(make_extractor_weights, extract_by_weights, (), 0.5),
    "store of one file": Format(lambda folder: write_store(folder / "a.h5"), lambda f: rows_of(f / "a.h5"), (), 3),
    "store of int8": Format(lambda folder: write_store(folder / "a.h5", dtype="int8"), lambda f: rows_of(f / "a.h5")),
    "store of shards": Format(make_shards, lambda folder: rows_of(folder / "store"), (), 3),
    "inspected store": Format(make_shards, lambda folder: inspected(folder / "store"), (), 2),
    "merged stores": Format(make_merged, merge, (), 1),
    "question embeddings": Format(make_embeddings, embed, (), 2, ("encoder/*",)),
    "photos": Format(make_photos, read_photos, (), 3),
    "list of images": Format(make_image_list, extract_list),
    "bottom-up TSV": Format(
        lambda folder: write_tsv(folder / "a.tsv", list(made_images().items())),
        partial(converted, "bottom-up-tsv", "a.tsv"),
    ),
    "VinVL": Format(make_vinvl, partial(converted, "vinvl-tsv", "predictions.tsv")),
    "npz": Format(
        lambda folder: write_npz(folder / "npz", made_images(), "vqa"), partial(converted, "openvqa-npz", "npz")
    ),
    "npz with info": Format(
        lambda folder: write_npz(folder / "npz", made_images(), "info"), partial(converted, "py-bottom-up-npz", "npz")
    ),
    "hengyuan HDF5": Format(make_hengyuan, partial(converted, "hengyuan-hdf5", "train36.hdf5")),
    "DCN HDF5": Format(
        lambda folder: write_dcn(folder / "a.h5", made_images()), partial(converted, "dcn-hdf5", "a.h5")
    ),
    "VL-T5": Format(make_vlt5, partial(converted, "vlt5-hdf5", "val.h5")),
    "GQA features": Format(make_gqa, partial(converted, "gqa-hdf5", "")),
    "clevr-iep": Format(make_clevr_iep, partial(converted, "clevr-iep-hdf5", "val.h5")),
    "LMDB": Format(make_lmdb, partial(converted, "mmf-lmdb", "a.lmdb"), (), 2),
    "MMF npy": Format(make_mmf_npy, partial(converted, "mmf-npy", "")),
    "grid-feats": Format(make_grids, partial(converted, "grid-feats-pth", "")),
}
