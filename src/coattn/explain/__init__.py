"""Explanations of an answer: attention maps with the words and boxes that they refer to."""
