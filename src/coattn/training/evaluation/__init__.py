"""What a trained model is worth on a split: its answers, controls of its score, safeguards, explanations."""
