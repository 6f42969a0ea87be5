from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import RECORD, settings, write_data, write_store

from coattn.features.store.reader import FeatureStore
from coattn.text.vocabulary import UNK
from coattn.training.data.batches import Batch
from coattn.training.data.module import VQADataModule
from coattn.training.data.settings import Files


def module(data: Path, **changes: object) -> VQADataModule:
    return VQADataModule(**settings(data, data)["data"] | changes)


def epoch(loader: object) -> list[Batch]:
    return list(loader)  # type: ignore[call-overload]


def same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a.divisor == b.divisor and all(map(torch.equal, a[:-1], b[:-1])) for a, b in pairs)


def test_batches_hold_what_the_files_say(tiny_data: Path) -> None:
    data = module(tiny_data)
    split, store = data.split("train"), FeatureStore(tiny_data / "features.h5")
    words, answers = data.text.vocabularies.words, data.text.vocabularies.answers
    assert words is not None
    seen = []
    for batch in epoch(data.train_dataloader()):
        assert batch.divisor == len(batch.positions)
        targets = batch.targets(len(answers))
        for row, position in enumerate(batch.positions.tolist()):
            record = split.records[position]
            seen.append(record.question_id)
            tokens = words.encode(record.question)
            assert batch.question[row, batch.question_mask[row]].tolist() == tokens
            assert not batch.question[row, ~batch.question_mask[row]].any()
            image = store.read(store.index(record.image_id))
            mask = batch.region_mask[row]
            assert np.array_equal(batch.regions[row, mask].float(), image.features)
            assert np.array_equal(batch.boxes[row, mask], image.boxes)
            assert not batch.regions[row, ~mask].any()
            assert batch.image_sizes[row].tolist() == [40, 30]
            assert answers.answers[targets[row].argmax()] == record.answer
            assert targets[row].sum() == 1
        assert batch.question.shape[1] == batch.question_mask.sum(dim=1).max()
        assert batch.regions.shape[1] == batch.region_mask.sum(dim=1).max()
    assert sorted(seen) == sorted(record.question_id for record in split.records)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_workers_change_nothing(start_method: str, tiny_data: Path) -> None:
    alone = module(tiny_data)
    helped = module(tiny_data, num_workers=2 if start_method == "fork" else 1, start_method=start_method)
    epoch(alone.train_dataloader())  # its maps are open now, and must not be carried over
    loader = helped.train_dataloader()
    assert same(epoch(alone.train_dataloader()), epoch(loader))
    assert same(epoch(alone.train_dataloader()), epoch(loader)), "a second epoch of the same workers"


def test_loading_leaves_the_global_generator_alone(tiny_data: Path) -> None:
    data = module(tiny_data, num_workers=1)
    before = torch.get_rng_state()
    epoch(data.train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_vocabularies_come_from_training_alone(tiny_data: Path) -> None:
    data = module(tiny_data, test_questions=str(tiny_data / "val_questions.json"))
    words, answers = data.text.vocabularies.words, data.text.vocabularies.answers
    assert words is not None
    assert set(words.words) == {"please", "what", "colour", "is", "it", "red"}
    assert set(answers.answers) == {"red", "green", "blue", "yes", "no"}
    assert words.encode("is it purple") == [*words.encode("is it"), UNK]
    assert (data.num_words, data.num_answers, data.region_dim, data.question_dim) == (8, 5, 8, None)


def test_words_are_split_by_the_tokenizer_asked_for(tiny_data: Path) -> None:
    data = module(tiny_data, tokenizer="possessives")
    words = data.text.vocabularies.words
    assert words is not None
    assert words.tokens("is it the dog's?") == ["is", "it", "the", "dog", "'s"]
    assert module(tiny_data).text.vocabularies.words.tokens("the dog's?") == ["the", "dogs"]
    with pytest.raises(ValueError, match="tokenizer must be one of plain, "):
        _ = module(tiny_data, tokenizer="nltk").text.vocabularies


def test_targets_are_soft_for_many_answers(tmp_path: Path) -> None:
    data = module(write_data(tmp_path, answers_each=3))
    batch = epoch(data.train_dataloader())[0]
    # Two of three say the same: leaving one out, min(1, 1/3), min(1, 1/3), min(1, 2/3).
    assert torch.allclose(batch.targets(data.num_answers).amax(dim=1), torch.tensor(4 / 9))


def test_only_training_questions_have_other_targets(tmp_path: Path) -> None:
    write_data(tmp_path, answers_each=3)
    expected = {"soft": 4 / 9, "typed": 4 / 9, "share": 2 / 3, "single": 1.0}  # two of three say the same
    for targets, worth in expected.items():
        data = module(tmp_path, targets=targets)
        for loader, best in ((data.train_dataloader(), worth), (data.val_dataloader(), 4 / 9)):
            highest = torch.cat([batch.targets(data.num_answers).amax(dim=1) for batch in epoch(loader)])
            assert torch.allclose(highest, torch.tensor(best))
    with pytest.raises(ValueError, match="targets must be one of soft, typed, share, single, got 'hard'"):
        module(tmp_path, targets="hard")


def test_questions_with_unknown_answers_are_left_out_of_training_alone(tiny_data: Path) -> None:
    whole, known = (module(tiny_data, max_answers=2, known_answers_only=flag) for flag in (False, True))
    answers = known.text.vocabularies.answers
    assert len(answers) == 2
    kept = [record for record in whole.split("train").records if record.answer in answers.index]
    assert 0 < len(kept) < 44
    assert known.split("train").records == kept
    targets = [batch.targets(2).sum(dim=1) for batch in epoch(known.train_dataloader())]
    assert torch.equal(torch.cat(targets), torch.ones(len(kept)))
    assert len(known.split("val").records) == 13


def test_flips_follow_seed_epoch_and_question(tmp_path: Path) -> None:
    data = module(write_data(tmp_path, flips=True), flips=True)
    plain = data.split("train").images
    first, second = data.order.images(0), data.order.images(1)
    assert 0 < (first != plain).sum() < len(plain)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, module(tmp_path, flips=True).order.images(0))
    stems = {data.features.image_ids[image].removesuffix("#flip") for image in first}  # type: ignore[union-attr]
    assert stems == {f"train/{number}" for number in range(9)}
    drawn = np.concatenate([batch.regions[batch.region_mask] for batch in epoch(data.train_dataloader())])
    assert (drawn[:, :3].sum(axis=1) < 0).any(), "mirrored images are drawn"
    assert not (np.concatenate([b.regions[b.region_mask] for b in epoch(data.val_dataloader())])[:, :3] < 0).any()


def test_flips_need_mirrored_images(tiny_data: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"no features of 9 of the 9 images of data.files.train_questions, mirrored.*'train/0#flip'.*--flips",
    ):
        epoch(module(tiny_data, flips=True).train_dataloader())


def test_missing_features_are_named(tiny_data: Path, tmp_path: Path) -> None:
    store = write_store(tmp_path / "some.h5", [f"train/{number}" for number in range(7)])
    with pytest.raises(
        ValueError,
        match=r"some.h5: no features of 2 of the 9 images .*'train/7', 'train/8'; its first image is 'train/0'",
    ):
        module(tiny_data, features=str(store)).setup("fit")


@pytest.mark.filterwarnings("ignore:.*val_questions are left out")
def test_questions_about_missing_images_are_left_out_on_request(tiny_data: Path, tmp_path: Path) -> None:
    images = [f"{split}/{number}" for split in ("train", "val") for number in range(7)]
    store = write_store(tmp_path / "some.h5", images)
    data = module(tiny_data, features=str(store), skip_missing_images=True)
    with pytest.warns(UserWarning, match=r"train_questions are left out: 2 images .* 'train/7', 'train/8'"):
        data.setup("fit")
    assert {record.image_id for record in data.split("train").records} == set(images[:7])
    empty = write_store(tmp_path / "other.h5", ["else"])
    with pytest.raises(ValueError, match=r"other.h5: no image of data.files.train_questions has features"):
        module(tiny_data, features=str(empty), skip_missing_images=True).setup("fit")


def test_files_must_be_given_in_pairs(tiny_data: Path) -> None:
    with pytest.raises(ValueError, match=r"1 files in data.files.test_questions, but 0 in data.files.test_annotations"):
        module(tiny_data, test_annotations=None).setup("test")
    with pytest.raises(ValueError, match=r"no predict questions; set data\.files\.test_questions"):
        module(tiny_data, test_questions=None).setup("predict")
    module(tiny_data, test_annotations=None).setup("predict")


def test_several_files_train_together(tiny_data: Path) -> None:
    names = ("train", "val")
    questions, annotations = (
        [str(tiny_data / f"{n}_{kind}.json") for n in names] for kind in ("questions", "annotations")
    )
    data = module(tiny_data, train_questions=questions, train_annotations=annotations)
    assert len(data.split("train").records) == 44 + 13


def test_question_embeddings_replace_words(tiny_data: Path, tmp_path: Path) -> None:
    questions = sorted({record.question for record in module(tiny_data).split("train").records})
    store = write_store(tmp_path / "questions.h5", questions, dim=5)
    with pytest.warns(UserWarning, match="max_tokens have no effect on data.text.embeddings"):
        data = module(tiny_data, question_embeddings=str(store), max_tokens=9)
    assert (data.num_words, data.question_dim, data.text.vocabularies.words) == (None, 5, None)
    batch = epoch(data.train_dataloader())[0]
    embeddings = FeatureStore(store)
    for row, position in enumerate(batch.positions.tolist()):
        expected = embeddings.read(embeddings.index(data.split("train").records[position].question)).features
        assert np.array_equal(batch.question[row, batch.question_mask[row]].float(), expected)
    short = write_store(tmp_path / "few.h5", [text for text in questions if text != "please is it red?"], dim=5)
    with pytest.raises(ValueError, match=r"few.h5: no embeddings of 1 questions, for example 'please is it red\?'"):
        module(tiny_data, question_embeddings=str(short)).setup("fit")


def test_a_copy_for_another_process_reads_for_itself(tiny_data: Path) -> None:
    data = module(tiny_data)
    copied = pickle.loads(pickle.dumps(data))
    copied.settings = dataclasses.replace(copied.settings, files=Files("elsewhere.json", "none.json"))
    with pytest.raises(FileNotFoundError, match=r"elsewhere\.json"):
        _ = copied.text.vocabularies
    assert data.text.vocabularies.to_json() == module(tiny_data).text.vocabularies.to_json()


def test_state_is_checked_when_it_comes_back(tiny_data: Path, tmp_path: Path) -> None:
    data = module(tiny_data)
    state = data.state_dict()
    data.load_state_dict(state)
    with pytest.raises(ValueError, match="vocabularies differ"):
        module(tiny_data, max_answers=2).load_state_dict(state)
    with pytest.raises(ValueError, match=r"trained with data.text.max_tokens None, not 3"):
        module(tiny_data, max_tokens=3).load_state_dict(state)
    ids = FeatureStore(tiny_data / "features.h5").image_ids
    foreign = str(write_store(tmp_path / "foreign.h5", ids, record={**RECORD, "name": "foreign"}))
    with pytest.raises(ValueError, match=r"foreign.h5.*another extractor.*--allow-other-features"):
        module(tiny_data, features=foreign).load_state_dict(state)
    with pytest.warns(UserWarning, match="another extractor"):
        module(tiny_data, features=foreign, allow_other_features=True).load_state_dict(state)


def test_a_question_without_words_is_a_row_of_padding(tiny_data: Path) -> None:
    data = module(tiny_data, max_tokens=0)
    batch = data.split("train").batch(np.array([0, 1]))
    assert batch.question.shape == (2, 1)
    assert not batch.question_mask.any()


def test_a_question_comes_in_one_file_only(tiny_data: Path) -> None:
    twice = {kind: [str(tiny_data / f"train_{kind}.json")] * 2 for kind in ("questions", "annotations")}
    with pytest.raises(ValueError, match="question_id 5000 is in more than one file"):
        module(tiny_data, train_questions=twice["questions"], train_annotations=twice["annotations"]).setup("fit")
