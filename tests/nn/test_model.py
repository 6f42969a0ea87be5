"""Whole models: every preset, and the heads."""

import pytest
import torch
from torch import Tensor, nn

from coattn import models
from coattn.nn import SelfGuidedAttention, VQAModel
from coattn.nn.heads import FUSIONS

SMALL = {"dim": 16, "num_heads": 2, "dropout": 0.0}
MMNASNET = {"relation_heads": 2, "relation_dim": 16, "pixels": False, "pooling_dim": 8, "joint_dim": 24}
CLASSIC = {"dim": 8, "classifier_dim": 16, "dropout": 0.0, "classifier_dropout": 0.0}
FACTORS = {"dim": 8, "hidden_dim": 12, "joint_dim": 6, "num_factors": 3, "dropout": 0.0}
ARGUMENTS: dict[str, dict[str, object]] = {
    "parallel": SMALL,
    "alternating": SMALL,
    "dense": SMALL,
    "modular": SMALL | {"boxes": True},
    "stack": SMALL | {"layers": ["parallel", "alternating", "dense", "modular"], "direct_question": True},
    "hiecoatt_parallel": {"dim": 16, "joint_dim": 24, "dropout": 0.0},
    "hiecoatt_alternating": {"dim": 16, "joint_dim": 24, "dropout": 0.0},
    "dcn": SMALL | {"image_dim": 24, "num_layers": 2, "recurrent_dim": 8, "recurrent_dropout": 0.0},
    "mcan_small": SMALL | {"num_layers": 2, "ffn_dim": 32, "pooling_dim": 8, "joint_dim": 24},
    "mcan_large": SMALL | {"num_layers": 1, "ffn_dim": 32, "pooling_dim": 8, "joint_dim": 24},
    "mmnasnet_small": SMALL | MMNASNET,
    "mmnasnet_large": SMALL | MMNASNET | {"relation_heads": 4},
    "butd": CLASSIC,
    "butd_hengyuan": CLASSIC,
    "ban": CLASSIC | {"num_glimpses": 2},
    "mfb": FACTORS,
    "mfh": FACTORS,
    "question_only": SMALL,
}
# The maps of poolings that a preset has, where these are not those of the classifier head.
POOLINGS = {
    "question_only": {"pooling.question"},
    "butd": {"pooling.regions"},
    "butd_hengyuan": {"pooling.regions"},
}


def build(name: str, **more: object) -> VQAModel:
    torch.manual_seed(0)
    sizes = {"num_words": 20} if "question_dim" not in more else {}
    return models.PRESETS[name](region_dim=6, num_answers=5, **sizes, **ARGUMENTS[name], **more)


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    question_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    region_mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    return {
        "question": torch.randint(1, 20, (3, 4), generator=generator) * question_mask,
        "regions": torch.randn(3, 5, 6, generator=generator) * region_mask[..., None],
        "question_mask": question_mask,
        "region_mask": region_mask,
        "boxes": torch.rand(3, 5, 4, generator=generator) * region_mask[..., None],
    }


def test_every_preset_is_tested() -> None:
    assert set(ARGUMENTS) == set(models.PRESETS)


@pytest.mark.parametrize("name", models.PRESETS)
def test_padding_and_maps_leave_the_logits_alone(name: str) -> None:
    model, batch = build(name).eval(), inputs()
    logits = model(**batch).logits
    assert logits.shape == (3, 5)
    mapped = model(**batch, need_weights=True)
    torch.testing.assert_close(mapped.logits, logits, atol=1e-6, rtol=0)
    poolings = {f"pooling.{key.rpartition('.')[2]}" for key in mapped.maps if "pooling." in key}
    assert poolings == POOLINGS.get(name, {"pooling.question", "pooling.regions"})
    padded = {
        "question": nn.functional.pad(batch["question"], (0, 6)),
        "regions": nn.functional.pad(batch["regions"], (0, 0, 0, 95)),
        "question_mask": nn.functional.pad(batch["question_mask"], (0, 6)),
        "region_mask": nn.functional.pad(batch["region_mask"], (0, 95)),
        "boxes": nn.functional.pad(batch["boxes"], (0, 0, 0, 95)),
    }
    torch.testing.assert_close(model(**padded).logits, logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", models.PRESETS)
def test_one_answer_by_one_equals_the_batch(name: str) -> None:
    model, batch = build(name).eval(), inputs()
    logits = model(**batch).logits
    for i in range(3):
        single = {key: value[i : i + 1] for key, value in batch.items()}
        tokens, regions = single["question_mask"].sum(), single["region_mask"].sum()
        trimmed = {key: value[:, : tokens if "question" in key else regions] for key, value in single.items()}
        torch.testing.assert_close(model(**trimmed).logits[0], logits[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, {"order": "stacking"}, {"faithful": True}])
def test_mcan_shares_the_images_of_questions(options: dict[str, object]) -> None:
    assert_sharing_images_changes_nothing(build("mcan_small", **options))


@pytest.mark.parametrize("name", models.PRESETS)
def test_questions_that_share_an_image_are_answered_as_if_each_had_its_own(name: str) -> None:
    assert_sharing_images_changes_nothing(build(name))


def assert_sharing_images_changes_nothing(model: VQAModel) -> None:
    batch, images = inputs(), torch.tensor([1, 0, 1])
    sides = ("regions", "region_mask", "boxes")
    own = {key: value[images] if key in sides else value for key, value in batch.items()}
    shared = {key: value[:2] if key in sides else value for key, value in batch.items()}
    expected = model.eval()(**own, need_weights=True)
    for need_weights in (False, True):
        found = model(**shared, images=images, need_weights=need_weights)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=0)
    assert found.maps.keys() == expected.maps.keys()
    for key, weights in found.maps.items():
        torch.testing.assert_close(weights, expected.maps[key], atol=1e-6, rtol=0)


def test_an_image_is_encoded_once_for_all_its_questions() -> None:
    model, batch, rows = build("mcan_small").eval(), inputs(), []
    first, second = [layer for layer in model.coattention.layers if isinstance(layer, SelfGuidedAttention)][:2]
    for part in (model.region_encoder, first.self_attn, first.ffn, second.self_attn):
        part.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[0]))
    image = {key: batch[key][1:2] for key in ("regions", "region_mask", "boxes")}
    assert len(model(**batch | image, images=torch.zeros(3, dtype=torch.int64)).logits) == 3
    num_regions = int(batch["region_mask"][1].sum())
    # Packed regions of the image, until the first layer that reads the question, and of three questions after it.
    assert rows == [1, num_regions, 3 * num_regions, 3 * num_regions]


@pytest.mark.parametrize("name", models.PRESETS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model, batch = build(name).double(), inputs()
    model(**{k: v.double() if v.is_floating_point() else v for k, v in batch.items()}).logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        # What softmax does not see: the bias of a key, and the last bias of a pooling's score or of a map's logits.
        if not parameter_name.endswith(("k_proj.bias", "score.output.bias", "score.bias", "logits.bias")):
            assert parameter.grad.abs().max() > 1e-12, parameter_name


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("name", models.PRESETS)
def test_every_layer_is_called_in_evaluation(name: str, need_weights: bool) -> None:
    """An adapter takes the place of a layer, and has no effect where the layer's weights are read without calling it.

    torch 2.13 does so with LoRA on its own encoder: findings/peft_lora_skipped_in_evaluation.sh.
    """
    model = build(name).eval()
    layers = {key: layer for key, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Embedding)}
    called: set[str] = set()
    for key, layer in layers.items():
        layer.register_forward_hook(lambda *_, key=key: called.add(key))
    with torch.no_grad():
        model(**inputs(), need_weights=need_weights)
    assert called == set(layers)


@pytest.mark.parametrize("name", ["modular", "mcan_small", "butd", "ban", "mfh"])
def test_an_image_without_regions_and_a_question_without_words_give_finite_answers(name: str) -> None:
    model, batch = build(name), inputs()
    batch["region_mask"][0] = False
    batch["question_mask"][1] = False
    logits = model(**batch).logits
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_question_alone_decides_without_the_image() -> None:
    model, batch = build("question_only").eval(), inputs()
    before = model(**batch).logits
    batch["regions"] = torch.randn(3, 5, 6)
    torch.testing.assert_close(model(**batch).logits, before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["lstm", "gru", "none"])
def test_given_token_embeddings_work_with_every_encoder(kind: str) -> None:
    model = build("parallel", question_dim=7, question_encoder=kind).eval()
    batch = inputs() | {"question": torch.randn(3, 4, 7)}
    assert model(**batch).logits.shape == (3, 5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_hears_both_sides(fusion: str) -> None:
    model, batch = build("modular", fusion=fusion).eval(), inputs()
    before = model(**batch).logits
    assert not torch.allclose(model(**batch | {"regions": batch["regions"].flip(0)}).logits, before)
    assert not torch.allclose(model(**batch | {"question": batch["question"] * 2 % 19}).logits, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_mask": torch.ones(3, 5, dtype=torch.bool)}, r"question_mask must be bool of shape \(3, 4\)"),
        ({"region_mask": torch.ones(3, 5)}, r"region_mask must be bool"),
        ({"question": torch.randn(3, 4, 7)}, r"token ids"),
        ({"regions": torch.randn(3, 5, 7)}, r"width 6"),
        ({"boxes": None}, r"boxes"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("modular")(**inputs() | change)


def test_sharing_weights_makes_a_stack_small() -> None:
    deep = build("modular", num_layers=3)
    shared = build("modular", num_layers=3, share_weights=True)
    single = build("modular", num_layers=1)
    assert deep(**inputs()).logits.shape == shared(**inputs()).logits.shape
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(shared) == count(single) < count(deep)


def test_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = models.mcan_small(num_words=20_000, region_dim=2048, num_answers=3129)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 57.6


@pytest.mark.parametrize("bad", [{"layers": ["paralel"]}, {"question_encoder": "rnn"}, {"fusion": "add"}])
def test_unknown_names_list_the_known_ones(bad: dict[str, object]) -> None:
    arguments = {"layers": ["parallel"], "region_dim": 4, "num_answers": 3, "num_words": 9} | bad
    with pytest.raises(ValueError, match=r"parallel, alternating|lstm, gru, none|sum, product, gated"):
        models.stack(**arguments)  # type: ignore[arg-type]
