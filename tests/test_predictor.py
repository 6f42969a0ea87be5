from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import coattn
from coattn import models
from coattn._internal.tensors import padded
from coattn.explain.answers import Answer
from coattn.explain.maps import Explanation, region_weights
from coattn.features.encoded import EncodedImage
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.store.reader import FeatureStore, StoreWriter
from coattn.nn.layers import lengths_to_mask
from coattn.predictor import Predictor
from coattn.serialization.directory import load, save_model
from coattn.text.vocabulary import AnswerVocabulary, Vocabulary

WORDS = Vocabulary(["what", "colour", "is", "the", "circle", "red"])
ANSWERS = AnswerVocabulary(["yes", "no", "red", "blue"])
RECORD = Descriptor().record


def photo(seed: int = 0, size: tuple[int, int] = (80, 60)) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (6, 8, 3), np.uint8)).resize(size)
    ImageDraw.Draw(image).ellipse((10, 10, 40, 40), "red")
    return image


def save(folder: Path, *, preset: str = "modular", num_glimpses: int = 1, **changes: Any) -> Path:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"num_words": len(WORDS), "region_dim": 56, "num_answers": len(ANSWERS), "dim": 16}
    if preset == "modular":
        sizes |= {"embedding_dim": 8, "num_glimpses": num_glimpses, "standardized": False}
    model = models.PRESETS[preset](**sizes)
    if preset == "modular":
        torch.nn.init.normal_(model.head.classify.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    settings: dict[str, Any] = {
        "answer_vocabulary": ANSWERS,
        "question_vocabulary": WORDS,
        "metric": "exact_match",
        "activation": "softmax",
        "temperature": 1.5,
        "max_tokens": 8,
        "extractor": RECORD,
    }
    save_model(folder, model, **(settings | changes))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder)


def write_store(path: Path, record: dict[str, Any] = RECORD, dim: int = 56) -> FeatureStore:
    with StoreWriter(path, dim=dim, dtype="float32", record=record) as writer:
        for image_id, seed in (("7", 0), ("train/8", 1)):
            regions = Descriptor()([photo(seed)])[0]
            writer.add(image_id, regions.features[:, :dim], regions.boxes, photo(seed).size)
    return FeatureStore(path)


def expected(folder: Path, image: Image.Image, words: Sequence[int]) -> list[Answer]:
    """The answers, computed the long way round."""
    regions = Descriptor()([image])[0]
    with torch.inference_mode():
        logits = load(folder)(
            torch.tensor([words]),
            torch.from_numpy(regions.features)[None],
            question_mask=lengths_to_mask(torch.tensor([len(words)]), len(words)),
            region_mask=torch.ones(1, 16, dtype=torch.bool),
            boxes=torch.from_numpy(regions.boxes)[None],
            image_sizes=torch.tensor([[80.0, 60.0]]),
        ).logits[0]
    shares = (logits / 1.5).softmax(0)
    return [Answer(ANSWERS.answers[i], float(shares[i])) for i in shares.argsort(descending=True)]


def same(a: Sequence[Answer], b: Sequence[Answer]) -> bool:
    return [x.text for x in a] == [x.text for x in b] and np.allclose([x[1] for x in a], [x[1] for x in b], atol=1e-6)


def test_answers_are_the_models_ranked_and_calibrated(folder: Path, predictor: Predictor) -> None:
    answers = predictor.ask(photo(), "What COLOUR is the circle?")
    assert same(answers, expected(folder, photo(), [2, 3, 4, 5, 6]))
    assert sum(answer.confidence for answer in answers) == pytest.approx(1)
    assert predictor.ask(photo(), "What colour is the circle?", top_k=2) == answers[:2]


def test_answers_are_shown_as_people_type_them(tmp_path: Path, predictor: Predictor) -> None:
    typed = {answer: answer.title() for answer in ANSWERS.answers[:2]}
    other = Predictor.load(save(tmp_path / "model", answer_vocabulary=AnswerVocabulary(ANSWERS.answers, typed=typed)))
    plain = predictor.ask(photo(), "is it red")
    assert [answer.text for answer in other.ask(photo(), "is it red")] == [typed.get(x.text, x.text) for x in plain]


def test_sigmoid_models_judge_each_answer_by_itself(tmp_path: Path, predictor: Predictor) -> None:
    other = Predictor.load(save(tmp_path / "model", activation="sigmoid", temperature=1.0))
    answers, softmax = other.ask(photo(), "is it red"), predictor.ask(photo(), "is it red")
    assert [answer.text for answer in answers] == [answer.text for answer in softmax]
    assert sum(answer.confidence for answer in answers) != pytest.approx(1, abs=0.1)


def test_confidences_that_round_to_one_keep_their_order(tmp_path: Path) -> None:
    sure = Predictor.load(save(tmp_path / "model", activation="sigmoid", temperature=1e-4))
    reference = Predictor.load(save(tmp_path / "other", activation="sigmoid", temperature=1.0))
    answers = [answer.text for answer in reference.ask(photo(), "is it red")]
    assert [answer.text for answer in sure.ask(photo(), "is it red")] == answers


def as_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_every_form_of_an_image_is_the_same(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo().save(path)
    wanted = predictor.encode(photo())
    assert wanted.size == (80, 60)
    assert wanted.features.shape == (16, 56)
    for source in (path, str(path), as_bytes(photo()), np.asarray(photo())):
        encoded = predictor.encode(source)
        assert torch.equal(encoded.features, wanted.features)
        assert encoded.size == wanted.size


class CountingExtractor(Descriptor):
    count = 0

    def __call__(self, images: Sequence[Image.Image]) -> list[Any]:
        self.count += len(images)
        return super().__call__(images)


def test_several_questions_cost_one_extraction(folder: Path) -> None:
    predictor = Predictor.load(folder)
    assert "extractor" not in vars(predictor)  # built when first needed
    predictor.extractor = extractor = CountingExtractor()
    image = predictor.encode(photo())
    first = predictor.ask(image, "is the circle red")
    predictor.ask(image, "what is the colour")
    predictor.ask_many([(image, "is it red")] * 3)
    predictor.maps(image, "is it red")
    assert extractor.count == 1
    assert predictor.ask(image, "is the circle red") == first  # nothing is remembered


def test_many_questions_at_once_equal_one_at_a_time(predictor: Predictor) -> None:
    pairs = [
        (predictor.encode(photo(seed, (80 - seed, 60))), question)
        for seed in range(3)
        for question in ("is the circle red", "what colour is the circle", "red")
    ]
    single = [predictor.ask(*pair) for pair in pairs]
    for batch_size in (1, 2, 64):
        many = predictor.ask_many(pairs, batch_size=batch_size)
        assert len(many) == len(pairs)
        assert all(same(a, b) for a, b in zip(many, single, strict=True))
    assert predictor.ask_many([]) == []


def test_one_row_is_padded_without_a_copy() -> None:
    row = torch.rand(3, 2)
    values, mask = padded([row])
    assert values.shape == (1, 3, 2)
    assert values.data_ptr() == row.data_ptr()
    assert mask.tolist() == [[True] * 3]
    values, mask = padded([row[:0]])
    assert values.tolist() == [[[0, 0]]]
    assert mask.tolist() == [[False]]


@pytest.mark.gpu
def test_an_image_is_uploaded_once(folder: Path, predictor: Predictor) -> None:
    here = predictor.encode(photo())
    asked = [(here, "what colour"), (here, "is the circle red")]
    there = Predictor.load(folder, device="cuda")
    image = there.encode(photo())
    assert image.features.device.type == "cuda"
    for mixed in ([(image, text) for _, text in asked], [asked[0], (image, asked[1][1])]):
        with torch.backends.cudnn.flags(allow_tf32=False):  # which recurrences use if they may
            answers = there.ask_many(mixed)
        for found, wanted in zip(answers, predictor.ask_many(asked), strict=True):
            assert dict(found) == pytest.approx(dict(wanted), abs=1e-4)
    assert there.maps(image, "what colour").boxes.shape == (16, 4)


def test_images_of_different_numbers_of_regions_share_a_batch(predictor: Predictor) -> None:
    whole = predictor.encode(photo())
    part = EncodedImage(whole.features[:5], whole.boxes[:5], whole.size, None)
    none = EncodedImage(whole.features[:0], whole.boxes[:0], whole.size, None)
    pairs = [(whole, "is it red"), (part, "is it red"), (none, "what")]
    assert all(same(a, predictor.ask(*pair)) for a, pair in zip(predictor.ask_many(pairs), pairs, strict=True))
    assert all(np.isfinite(answer.confidence) for answer in predictor.ask(none, "what"))


# Questions


@pytest.mark.parametrize("question", ["", "   ", "?!", None, 7])
def test_a_question_needs_a_word(question: Any, predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="question"):
        predictor.ask(photo(), question)


def test_unknown_words_are_named(predictor: Predictor) -> None:
    with pytest.warns(UserWarning, match="does not know the word “hexagon”. The question was: is it a hexagon"):
        answers = predictor.ask(photo(), "is it a hexagon?")
    assert (answers.unknown_words, answers.withheld, len(answers)) == (("hexagon",), False, 4)
    assert answers.reasons == ("The model does not know the word “hexagon”.",)
    assert "does not know the word “hexagon”" in repr(answers)
    known = predictor.ask(photo(), "is the circle red?")
    assert (known.unknown_words, known.reasons) == ((), ())


def test_a_long_question_is_cut_as_in_training(predictor: Predictor) -> None:
    long = "what colour is the red circle is it red or what"
    with pytest.warns(UserWarning, match="11 words cut to 8"):
        explanation = predictor.maps(photo(), long)
    assert explanation.tokens == tuple(WORDS.tokens("what colour is the red circle is it"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(explanation.answers, predictor.ask(photo(), "what colour is the red circle is it"))


def test_top_k(predictor: Predictor) -> None:
    assert len(predictor.ask(photo(), "red", top_k=99)) == 4
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        predictor.ask(photo(), "red", top_k=0)


# Stores


def test_an_id_of_a_store(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    store = write_store(tmp_path / "features.h5")
    from_store = Predictor.load(folder, features=tmp_path / "features.h5")
    encoded = from_store.encode("train/8")
    assert encoded.image is None
    assert encoded.size == (80, 60)
    assert same(from_store.ask("train/8", "is it red"), predictor.ask(photo(1), "is it red"))
    assert torch.equal(predictor.encode("7", features=store).features, predictor.encode(photo()).features)
    assert torch.equal(
        predictor.encode(7, features=tmp_path / "features.h5").features, predictor.encode(photo()).features
    )
    with pytest.raises(ValueError, match="7 is the id of an image"):
        predictor.encode(7)
    assert from_store.encode("7", picture=photo()).image is not None
    path = tmp_path / "photo.png"
    photo(1).save(path)
    assert torch.equal(from_store.encode(path).features, encoded.features)  # a Path is a file all the same
    with pytest.raises(ValueError, match="no features of image '9'"):
        from_store.encode("9")


def test_features_of_another_extractor_are_refused(folder: Path, tmp_path: Path, predictor: Predictor) -> None:
    other = Descriptor(grid=(4, 4), size=(128, 128)).record
    store = write_store(tmp_path / "features.h5", other)
    for attempt in (
        lambda: Predictor.load(folder, features=store),
        lambda: predictor.encode("7", features=store),
    ):
        with pytest.raises(ValueError, match=r"settings\.size \[64, 64\] there, \[128, 128\] here"):
            attempt()
    with pytest.warns(UserWarning, match=r"settings\.size"):
        lenient = Predictor.load(folder, features=store, allow_other_features=True)
    assert len(lenient.ask("7", "is it red")) == 4


def test_features_of_another_width_never_fit(folder: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "features.h5", dim=50)
    with pytest.raises(ValueError, match=r"features of width 50, but .* reads width 56"):
        Predictor.load(folder, features=store, allow_other_features=True)


# Images that are none


def test_unreadable_images_are_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"notes\.png"):
        predictor.ask(tmp_path / "notes.png", "is it red")
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        predictor.ask(tmp_path / "missing.png", "is it red")
    with pytest.raises(ValueError, match="image"):
        predictor.ask(b"nothing", "is it red")


def test_an_extractor_that_cannot_be_rebuilt(tmp_path: Path) -> None:
    record = RECORD | {"name": "somebody's detector"}
    predictor = Predictor.load(save(tmp_path / "model", extractor=record))  # its stores can still be asked
    with pytest.raises(ValueError, match="somebody's detector"):
        predictor.ask(photo(), "is it red")


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ValueError, match="the device 'abacus' is not there"):
        Predictor.load(folder, device="abacus")
    assert Predictor.load(folder, device="auto").ask(photo(), "is it red")


# Maps


def test_maps_come_with_their_words_and_boxes(predictor: Predictor) -> None:
    image = predictor.encode(photo())
    explanation = predictor.maps(image, "is the circle red?")
    assert isinstance(explanation, Explanation)
    assert explanation.tokens == ("is", "the", "circle", "red")
    assert same(explanation.answers, predictor.ask(image, "is the circle red?"))
    shapes = {name: weights.shape for name, weights in explanation.maps.items()}
    assert shapes["pooling.regions"] == (1, 1, 16)
    assert shapes["pooling.question"] == (1, 1, 4)
    assert (4, 16, 4) in shapes.values()
    for weights in explanation.maps.values():
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_a_picture(predictor: Predictor) -> None:
    picture = predictor.explain(photo(), "is the circle red?")
    assert picture.width > 900
    name = next(name for name, weights in predictor.maps(photo(), "red").maps.items() if len(weights) > 1)
    with pytest.raises(ValueError, match="heads 0 to 3: name one"):
        predictor.explain(photo(), "is the circle red?", map=name)
    assert predictor.explain(photo(), "is the circle red?", map=name, head=0).width > 900


def test_glimpses_are_not_averaged_unasked(tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "model", num_glimpses=2))
    with pytest.raises(ValueError, match=r"pooling\.regions has the heads 0 to 1"):
        predictor.explain(photo(), "is it red", map="pooling.regions")
    assert predictor.explain(photo(), "is it red", map="pooling.regions", head="mean").width > 900


@pytest.mark.parametrize(("preset", "head"), [("hiecoatt_parallel", None), ("hiecoatt_alternating", None), ("dcn", 1)])
def test_papers_that_pool_in_their_own_way_show_a_map_unasked(preset: str, head: int | None, tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "model", preset=preset))
    assert coattn.draw(predictor.maps(photo(), "what colour is it"), head=head).width > 900
    assert predictor.explain(photo(), "what colour is it").width > 900
    shares = [region.weight for region in region_weights(predictor.maps(photo(), "what colour is it"), head=head)]
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_scores_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    predictor = Predictor.load(save(tmp_path / "model"))
    with torch.no_grad():
        predictor.model.head.classify.weight[0, 0] = torch.nan  # type: ignore[union-attr,index,operator]
    with pytest.raises(ValueError, match=r"model: the scores of the answers are not finite"):
        predictor.ask(photo(), "what is the circle?")
