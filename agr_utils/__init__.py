"""Multi-task face analysis: age, gender and race from one image, with the evidence for every claim."""

__version__ = "0.1.0"
