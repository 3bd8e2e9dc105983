"""Install each archive into an empty environment and let it answer for a photograph: ``make package``."""

import argparse
import json
import subprocess
import tempfile
import time
import venv
from pathlib import Path


def try_archive(archive: Path, picture: Path) -> None:
    """Install ``archive`` and ask it about ``picture``, in a folder where no checkout is in sight.

    Raises:
        SystemExit: if no face is found, or PyTorch came along.
    """
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", archive], check=True)
        command = [Path(folder) / "bin" / "agr", "predict", picture, "--json"]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        faces = json.loads(done.stdout.splitlines()[0])["faces"]
        torch = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0
        if len(faces) != 1 or torch:
            raise SystemExit(f"{archive.name}: {len(faces)} faces found, {'with' if torch else 'without'} PyTorch")
        print(f"{archive.name}: installed and asked in {time.perf_counter() - clock:.0f} s, age {faces[0]['age']:.0f}")


def main() -> None:
    """Try every archive that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives", nargs="+", type=Path, help="wheels and source archives")
    options = parser.parse_args()
    from PIL import Image
    from skimage.data import astronaut

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "astronaut.png"
        Image.fromarray(astronaut()).save(picture)
        for archive in options.archives:
            try_archive(archive.resolve(), picture)


if __name__ == "__main__":
    main()
