"""Evaluate a trained model on a split: its answers, controls of its score, safeguards, explanations."""
