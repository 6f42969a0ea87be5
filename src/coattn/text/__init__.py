"""Text: tokens of questions, forms and soft scores of answers, the vocabularies of both, and text encoders."""
