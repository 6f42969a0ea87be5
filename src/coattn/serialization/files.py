"""Names of the files of a model directory. They are separate from `directory`, which imports torch."""

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
QUESTIONS, ANSWERS = "question_vocabulary.json", "answers.json"
EXTRACTOR, TEXT_ENCODER = "extractor.safetensors", "text_encoder"
CERTIFICATE, IMAGE_INDEX, FAITHFULNESS = "certificate.json", "index.safetensors", "faithfulness.json"
FILES = frozenset(
    {WEIGHTS, CONFIG, CARD, QUESTIONS, ANSWERS, EXTRACTOR, TEXT_ENCODER, CERTIFICATE, IMAGE_INDEX, FAITHFULNESS}
)
