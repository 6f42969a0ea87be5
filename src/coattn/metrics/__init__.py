"""Scores of answers: the official metrics, intervals, calibration, and risk certificates."""
