"""Hashes of what is published: whether these are the same files, and the same pictures.

    python tools/manifest.py write               # SHA256SUMS, of results/, figures/, the split and the shipped models
    python tools/manifest.py check               # the same as: sha256sum --check --quiet SHA256SUMS
    python tools/manifest.py check --faces DIR   # your copy of UTKFace, pixel by pixel

Pictures are told apart by their decoded pixels, not by their names or bytes: another program may have stored the same
picture otherwise. ``results/data/utkface_pixels.txt`` has a line for each row of the committed split.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST, PIXELS = "SHA256SUMS", "results/data/utkface_pixels.txt"
PUBLISHED = ("results", "figures", "agr_utils/data/utkface_split.csv", "agr_utils/deploy/*.onnx")
_DIGITS = 12  # of each picture's hash: 48 bits tell 21,288 pictures apart


def published_files(root: Path) -> list[Path]:
    """The committed files that the manifest lists, by name; those that are not there are left out."""
    git = ["git", "-C", root, "ls-files", "-z", *PUBLISHED]
    if (root / ".git").exists():
        names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    else:  # an archive of a release
        names = [line.split(maxsplit=1)[1] for line in (root / MANIFEST).read_text(encoding="utf-8").splitlines()]
    return sorted(root / name for name in names if name and (root / name).exists())


def file_lines(root: Path) -> list[str]:
    """The lines of the manifest, in the form of ``sha256sum``."""
    files = ((hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in published_files(root))
    return [f"{digest}  {path.relative_to(root).as_posix()}" for digest, path in files]


def picture_hashes(source: Path) -> dict[str, str]:
    """Name to hash of every image of a folder or archive; those that cannot be read are left out."""
    from agr_utils.data.reading.images import decode_image
    from agr_utils.data.reading.sources import map_images

    def digest(path: str, content: bytes) -> str:
        image = decode_image(content, path)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:_DIGITS]

    return {Path(path).name: found for path, found in map_images(source, digest) if isinstance(found, str)}


def check_faces(source: Path, root: Path) -> list[str]:
    """Names of the faces of the split that are missing or have other pixels."""
    from agr_utils.data.splits import read_split_file

    names = read_split_file()["image_id"]
    expected = dict(zip(names, (root / PIXELS).read_text(encoding="utf-8").split(), strict=True))
    found = picture_hashes(source)
    return [name for name, digest in expected.items() if found.get(name) != digest]


def write_faces(source: Path, root: Path) -> None:
    """Write the hashes of the pictures, a line for each row of the committed split."""
    from agr_utils.data.splits import read_split_file

    found = picture_hashes(source)
    lines = [found[name] for name in read_split_file()["image_id"]]
    (root / PIXELS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Write or check; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("--faces", type=Path, help="folder or archive of UTKFace; only its pixels are looked at")
    options = parser.parse_args(arguments)
    if options.faces and options.action == "write":
        write_faces(options.faces, ROOT)
        return 0
    if options.action == "write":
        if not (ROOT / ".git").exists():
            sys.exit(f"{MANIFEST} lists what is committed, and this is no git checkout. Nothing was written.")
        (ROOT / MANIFEST).write_text("\n".join(file_lines(ROOT)) + "\n", encoding="utf-8")
        return 0
    if options.faces:
        wrong = check_faces(options.faces, ROOT)
    else:
        wrong = sorted(set((ROOT / MANIFEST).read_text(encoding="utf-8").splitlines()) ^ set(file_lines(ROOT)))
        wrong = list(dict.fromkeys(line.split(maxsplit=1)[1] for line in wrong))
    for name in wrong[:20]:
        print(f"{name}: missing, or not what was published", file=sys.stderr)
    print(f"{len(wrong)} differ" if wrong else "all are what was published")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
