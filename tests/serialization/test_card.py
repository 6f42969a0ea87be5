from coattn.serialization.card import Section, table, write_card


def test_a_card_has_front_matter_a_title_and_its_sections_in_order() -> None:
    text = write_card(
        "mine", "An introduction.\n", [Section("A", table({"x": 1})), Section("B", "b\n")], metadata={"license": "mit"}
    )
    assert text == (
        "---\nlibrary_name: coattn\npipeline_tag: visual-question-answering\nlicense: mit\n---\n\n# mine\n\n"
        "An introduction.\n\n## A\n\n| | |\n|---|---|\n| x | 1 |\n\n## B\n\nb\n"
    )
