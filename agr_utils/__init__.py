"""Multi-task face analysis: age, gender and race from one image, with the evidence for every claim."""

import warnings

# A dependency of timm imports tqdm.auto, which warns in every notebook that has no ipywidgets. Our bars are plain text.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "1.0.0"
