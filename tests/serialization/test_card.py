import pytest
import yaml

from coattn.serialization.card import Section, score_metadata, table, update_metadata, write_card


def test_a_card_has_front_matter_a_title_and_its_sections_in_order() -> None:
    text = write_card(
        "mine", "An introduction.\n", [Section("A", table({"x": 1})), Section("B", "b\n")], metadata={"license": "mit"}
    )
    assert text == (
        "---\nlibrary_name: coattn\npipeline_tag: visual-question-answering\nlicense: mit\n---\n\n# mine\n\n"
        "An introduction.\n\n## A\n\n| | |\n|---|---|\n| x | 1 |\n\n## B\n\nb\n"
    )


@pytest.mark.parametrize(
    ("metric", "known_as"), [("vqa_accuracy", "accuracy"), ("exact_match", "exact_match"), ("anls", "anls")]
)
def test_a_score_of_any_metric_is_metadata(metric: str, known_as: str) -> None:
    card = write_card("mine", "", [], metadata=score_metadata("mine", "a: b", metric, 12.345))
    front = yaml.safe_load(card.split("---")[1])
    (result,) = front["model-index"][0]["results"]
    assert (front["metrics"], result["metrics"][0]["type"], result["metrics"][0]["value"]) == (
        [known_as],
        known_as,
        12.35,
    )
    assert result["dataset"] == {"name": "a: b", "type": "a: b", "split": "validation"}


def test_metadata_is_updated_and_a_license_needed() -> None:
    card = write_card("mine", "", [], metadata={"license": "unknown", "tags": ["a"]})
    front = yaml.safe_load(update_metadata(card, {"license": "mit", "tags": []}, where="x").split("---")[1])
    assert (front["license"], front["tags"], front["library_name"]) == ("mit", ["a"], "coattn")
    assert update_metadata("# A card\n", {"license": "mit"}, where="x").endswith("---\n\n# A card\n")
    for text, message in (
        ("# A card\n", "x: names no license"),
        ("---\n: [\n---\n", "x: the front matter is not YAML"),
        ("---\n- a\n---\n", "x: the front matter is not a mapping"),
    ):
        with pytest.raises(ValueError, match=message):
            update_metadata(text, {}, where="x")
