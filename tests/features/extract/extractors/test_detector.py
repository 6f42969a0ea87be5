from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.weights import read_state_dict
from coattn.features.extract.run import extract
from coattn.features.store.reader import FeatureStore

detection = pytest.importorskip("torchvision").models.detection

from coattn.features.extract.extractors.detector import Boxes, Detector  # noqa: E402

NAME, LIGHT = "fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"
SMALL = {"weights": "none", "min_side": 64, "max_side": 96}


def photo(seed: int, width: int = 70, height: int = 50) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def few_proposals(detector: Detector) -> Detector:
    """The best 60 proposals of an image instead of 1000, to save time."""
    detector._network.rpn._post_nms_top_n["testing"] = 60
    return detector


@pytest.fixture(scope="module")
def small() -> Detector:
    return few_proposals(Detector(NAME, **SMALL))


@pytest.fixture(scope="module")
def network():
    """The same network as torchvision makes it, which drops no proposal or candidate."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = detection.fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            min_size=64,
            max_size=96,
            rpn_post_nms_top_n_test=60,
            box_score_thresh=-1.0,
            box_nms_thresh=1.0,
            box_detections_per_img=10**6,
        ).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-30  # next to none; some releases of torch refuse 0
    return made


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of others."""
    corner, opposite = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (opposite - corner).clip(0).prod(axis=1)
    area = (box[2:] - box[:2]).prod()
    return shared / (area + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared)


def chosen_by_hand(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, number: int, nms: float) -> list[int]:
    """The best after class-wise suppression, one after another; then the best of the suppressed."""
    kept: list[int] = []
    order = np.argsort(-scores, kind="stable").tolist()
    for i in order:
        rivals = [j for j in kept if labels[j] == labels[i]]
        if not rivals or overlap(boxes[i], boxes[rivals]).max() <= nms:
            kept.append(i)
    return [*kept, *(i for i in order if i not in kept)][:number]


def test_regions_are_those_of_torchvision(small, network):
    (regions,) = small([photo(0)])
    image = torch.tensor(small.prepare(photo(0))).permute(2, 0, 1) / 255
    assert image.shape == (3, 64, 89)  # 50 x 70, the shorter side 64
    with torch.inference_mode():
        images, _ = network.transform([image])
        maps = network.backbone(images.tensors)
        proposals, _ = network.rpn(images, maps)
        heads = network.roi_heads
        rows = heads.box_head(heads.box_roi_pool(maps, proposals, images.image_sizes))
        logits, shifts = heads.box_predictor(rows)
        scores, labels = logits.softmax(dim=1)[:, 1:].max(dim=1)
        refined = heads.box_coder.decode(shifts, proposals)[torch.arange(len(labels)), labels + 1]
        refined = refined.clamp(min=0).minimum(torch.tensor([89.0, 64, 89, 64]))
        chosen = chosen_by_hand(refined.numpy(), labels.numpy(), scores.numpy(), 36, 0.5)
        expected = heads.box_head(heads.box_roi_pool(maps, [refined[chosen]], images.image_sizes))
        found = network([image])[0]  # all candidates, as torchvision gives them out

    assert small.dim == 1024
    np.testing.assert_array_equal(regions.labels, (labels + 1)[chosen])
    np.testing.assert_allclose(regions.scores, scores[chosen], rtol=1e-4)
    np.testing.assert_allclose(regions.boxes, refined[chosen] / torch.tensor([89.0, 64, 89, 64]), atol=1e-5)
    np.testing.assert_allclose(regions.features, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    candidates = found["boxes"] / torch.tensor([89.0, 64, 89, 64])
    for box, label, score in zip(regions.boxes, regions.labels, regions.scores, strict=True):
        same = (found["labels"] == label) & ((candidates - torch.tensor(box)).abs().max(dim=1).values < 1e-4)
        assert same.any()
        assert (found["scores"][same] - score).abs().min() < 1e-4


def test_the_batch_changes_nothing(small):
    images = [
        photo(seed, width, height) for seed, (width, height) in enumerate([(70, 50), (50, 70), (70, 50), (90, 30)])
    ]
    for number, together in enumerate(small(images)):
        (alone,) = small([images[number]])
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-4)
        np.testing.assert_array_equal(together.labels, alone.labels)
        np.testing.assert_allclose(together.features, alone.features, atol=2e-4 * np.abs(alone.features).max())
    assert small([]) == []


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (1066, 800)), ((1000, 250), (1333, 333)), ((40, 90), (592, 1333))]
)
def test_sizes_are_those_of_torchvision(network, size, expected):
    detector = object.__new__(Detector)
    detector.min_side, detector.max_side = 800, 1333
    prepared = detector.prepare(Image.new("RGB", size))
    assert prepared.shape == (expected[1], expected[0], 3)
    transform = detection.transform.GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    resized, _ = transform.resize(torch.zeros(3, size[1], size[0]))
    assert resized.shape[1:] == prepared.shape[:2]


def test_an_image_that_is_a_line(small):
    (regions,) = small([Image.new("RGB", (300, 1))])
    assert np.isfinite(regions.features).all()
    assert regions.boxes.min() >= 0
    assert regions.boxes.max() <= 1


def candidates(scores: list[float], labels: list[int], left: list[float]) -> Boxes:
    """Boxes 10 wide and high, from x = left on."""
    boxes = torch.tensor([[x, 0, x + 10, 10] for x in left], dtype=torch.float32)
    return Boxes(boxes, torch.tensor(labels), torch.tensor(scores))


@pytest.mark.parametrize(
    ("confidence", "limits", "expected"),
    [
        (0.5, (1, 10), [0, 2]),  # what is confident
        (0.95, (2, 10), [0, 2]),  # never fewer than the least
        (0.1, (1, 2), [0, 2]),  # never more than the most
        (0.0, (1, 10), [0, 2, 3, 4]),
        (0.95, (5, 5), [0, 2, 3, 4, 1]),  # the suppressed one fills up
        (0.95, (9, 9), [0, 2, 3, 4, 1]),  # there are no more
    ],
)
def test_how_many_and_which(small, confidence, limits, expected):
    """The second box overlaps the first of its class; the third lies on the first, but is of another class."""
    chooser = object.__new__(Detector)
    chooser._operations = small._operations
    chooser.nms, chooser.confidence, (chooser.min_regions, chooser.max_regions) = 0.5, confidence, limits
    found = candidates([0.9, 0.8, 0.7, 0.3, 0.2], [1, 1, 2, 1, 1], [0, 2, 0, 40, 60])
    kept = chooser._choose(found, (100, 100))
    assert kept.scores.tolist() == [found.scores[i] for i in expected]
    assert kept.boxes.tolist() == found.boxes[expected].tolist()


def test_boxes_are_cut_at_the_border_and_nothing_found_is_the_whole_image(small):
    found = Boxes(torch.tensor([[-5.0, -5, 5, 5], [60, 60, 70, 70]]), torch.tensor([1, 1]), torch.tensor([0.5, 0.9]))
    kept = small._choose(found, (50, 40))
    assert kept.boxes.tolist() == [[0, 0, 5, 5]]
    kept = small._choose(found.take(torch.tensor([1])), (50, 40))
    assert (kept.boxes.tolist(), kept.labels.tolist(), kept.scores.tolist()) == ([[0, 0, 40, 50]], [0], [0])


def test_stores_keep_labels_and_scores(tmp_path):
    adaptive = few_proposals(Detector(NAME, **SMALL, min_regions=10, max_regions=100, confidence=0.2))
    paths = {}
    for seed in range(3):
        paths[str(seed)] = tmp_path / f"{seed}.png"
        photo(seed, 70 + 20 * seed).save(paths[str(seed)])
    extract(paths, tmp_path / "out", adaptive, dtype="float32", batch_size=2, images_per_unit=2, progress=False)
    store = FeatureStore(tmp_path / "out")
    assert len(set(store.lengths.tolist())) > 1
    assert store.lengths.min() >= 10
    for number in range(3):
        rows, (regions,) = store.read(number), adaptive([Image.open(paths[str(number)])])
        confident = int((rows.scores >= 0.2).sum())
        assert len(rows.features) == np.clip(confident, 10, 100)
        np.testing.assert_array_equal(rows.labels, regions.labels)
        np.testing.assert_allclose(rows.boxes, regions.boxes, atol=1e-4)
        assert (rows.boxes[:, :2] < rows.boxes[:, 2:]).all()

    again = build_extractor(store.record, weights=store.asset("extractor.safetensors"))
    assert isinstance(again, Detector)
    few_proposals(again)
    assert again.record == adaptive.record
    (first,), (second,) = again([photo(0)]), adaptive([photo(0)])
    for here, there in zip(first, second, strict=True):
        np.testing.assert_array_equal(here, there)


def test_weights_of_a_file_of_old_names_and_other_classes(tmp_path):
    """The form of torchvision's files: names from before its last renaming, and without BatchNorm's counters."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=5)
    state = {name: value for name, value in made.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "new.pth")
    old = {
        re.sub(r"^(rpn\.head\.conv)\.0\.0|^(backbone\.fpn\.\w+\.\d)\.0", r"\1\2", name): value
        for name, value in state.items()
    }
    assert "backbone.fpn.inner_blocks.1.weight" in old
    assert "rpn.head.conv.weight" in old
    torch.save(old, tmp_path / "old.pth")
    sizes = {"min_side": 64, "max_side": 96}
    new = Detector(LIGHT, weights=tmp_path / "new.pth", **sizes)
    assert Detector(LIGHT, weights=tmp_path / "old.pth", **sizes).record["weights"]["sha256"] == new._sha256
    (regions,) = new([photo(1)])
    assert set(regions.labels.tolist()) <= {1, 2, 3, 4}

    del state["rpn.head.conv.0.0.weight"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(
        ValueError,
        match=r"bad\.pth for fasterrcnn_mobilenet_v3_large_320_fpn do not fit.* 1 are missing .*1 are unknown",
    ):
        Detector(LIGHT, weights=tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("fasterrcnn_resnet50_fpn_v2", (800, 1333)),
        ("fasterrcnn_mobilenet_v3_large_fpn", (800, 1333)),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", (320, 640)),
    ],
)
def test_the_other_detectors(name, sides):
    detector = few_proposals(Detector(name, weights="none", min_regions=7, max_regions=7))
    assert json.loads(json.dumps(detector.record["settings"])) == {
        "model": name,
        "min_regions": 7,
        "max_regions": 7,
        "nms": 0.5,
        "min_side": sides[0],
        "max_side": sides[1],
    }
    detector.min_side, detector.max_side = 64, 96
    (regions,) = detector([photo(0)])
    assert regions.features.shape == (7, 1024)
    assert np.isfinite(regions.features).all()


def test_lower_precision_is_near(small):
    low = few_proposals(Detector(NAME, **SMALL, precision="bf16"))
    (regions,), (expected,) = low([photo(0)]), small([photo(0)])
    assert low.record["settings"]["precision"] == "bf16"
    best = int(expected.scores.argmax())
    distances = np.abs(regions.boxes - expected.boxes[best]).max(axis=1)
    assert distances.min() < 0.02


def test_wrong_weights_and_unknown_models(tmp_path, small):
    save_file(small.weights, tmp_path / "a.safetensors")
    tensors = read_state_dict(tmp_path / "a.safetensors")
    save_file(
        {**tensors, "rpn.head.cls_logits.bias": tensors["rpn.head.cls_logits.bias"] + 1}, tmp_path / "b.safetensors"
    )
    with pytest.raises(ValueError, match=r"b\.safetensors: other weights than the recorded ones"):
        build_extractor(small.record, weights=tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"the extractor detector needs its weights, extractor\.safetensors"):
        build_extractor(small.record)
    with pytest.raises(ValueError, match=r"no Faster R-CNN 'resnet50'; known are .*fasterrcnn_resnet50_fpn"):
        Detector("resnet50", weights="none")
    with pytest.raises(FileNotFoundError):
        Detector(NAME, weights=Path("gone.pth"))
    for wrong in ({"min_regions": 0}, {"min_regions": 40}, {"confidence": 2.0}, {"nms": 0.0}):
        with pytest.raises(ValueError, match="detector: it must be"):
            Detector(NAME, weights="none", **wrong)
