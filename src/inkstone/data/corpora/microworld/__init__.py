"""A small consistent world told in Chinese and English: text to train on, with ground truth for every application."""

from inkstone.data.corpora.microworld.corpus import SHARES, Microworld
from inkstone.data.corpora.microworld.exercises import SPLITS, TASKS
from inkstone.data.corpora.microworld.holdout import Question

__all__ = ["SHARES", "SPLITS", "TASKS", "Microworld", "Question"]
