"""Make the committed split of UTKFace again, from the images: python tools/split.py UTKFace

Files that the committed split lists are hashed, near-duplicates become groups, and groups are divided 70/10/20. What
differs from agr_utils/data/utkface_split.csv is counted; --write puts the new one in its place.
"""

import argparse
from pathlib import Path

import pandas as pd

from agr_utils.data.duplicates import find_pairs, group_pairs, hash_images
from agr_utils.data.splits import SPLIT_FILE, read_split_file, split_by_group
from agr_utils.data.utkface import read_names


def make_split(source: Path, listed: pd.Series) -> pd.DataFrame:
    """Columns ``image_id, group, split`` of the listed images of a folder or archive, in the order of their paths."""
    hashes = hash_images(source)
    faces = read_names(hashes.paths.tolist())
    faces["group"] = pd.Series(group_pairs(find_pairs(hashes), len(faces)), dtype="Int64")
    faces = faces[faces["image_id"].isin(listed)].reset_index(drop=True)
    faces["group"] = pd.factorize(faces["group"])[0]
    return faces.assign(split=split_by_group(faces))[["image_id", "group", "split"]]


def main() -> None:
    """Compare, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder or archive of UTKFace")
    parser.add_argument("--write", action="store_true", help="replace the committed file")
    options = parser.parse_args()
    committed = read_split_file()
    made = make_split(options.source, committed["image_id"])
    both = made.merge(committed, on="image_id", how="outer", suffixes=("", "_committed"))
    groups = both.groupby("group")["group_committed"].nunique(), both.groupby("group_committed")["group"].nunique()
    print(f"{len(made)} of {len(committed)} listed images are there")
    print(f"{(groups[0] != 1).sum() + (groups[1] != 1).sum()} groups differ")
    print(f"{(both['split'] != both['split_committed']).sum()} images are in another split")
    if options.write:
        made.to_csv(SPLIT_FILE, index=False)


if __name__ == "__main__":
    main()
