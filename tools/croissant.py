"""Write ``croissant.json``: machine-readable metadata of the split and the predictions, with responsible-AI fields."""

import argparse
import hashlib
import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPLIT = "agr_utils/data/utkface_split.csv"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
RESPONSIBLE = {
    "rai:dataCollection": (
        "File names, labels in them and a grouped split of UTKFace, a collection of faces from the web. No "
        "picture is part of this data set. Predictions were made by networks trained in this repository."
    ),
    "rai:dataAnnotationProtocol": (
        "Ages, genders and races were estimated from the picture by a network and checked by annotators of "
        "UTKFace. They are guesses, nobody's self-description."
    ),
    "rai:dataBiases": (
        "Young adults and faces labelled white dominate. Gender has two values and race five. Near-duplicates "
        "carry ages that differ by several years; they never straddle two parts of the split."
    ),
    "rai:personalSensitiveInformation": (
        "Guessed age, gender and race of pictures of people who were not asked. The pictures themselves are "
        "not included."
    ),
    "rai:dataUseCases": (
        "Teaching, and research on methods: comparing networks face by face, fairness, calibration, robustness."
    ),
    "rai:dataLimitations": (
        "Not for deciding anything about a person, for finding out who somebody is, or for estimating the "
        "make-up of a crowd. Results do not carry over to other cameras and collections."
    ),
    "rai:dataSocialImpact": (
        "Systems that guess such labels can harm the people whom they misjudge, and those errors are not "
        "spread evenly: see the model card."
    ),
    "rai:dataReleaseMaintenancePlan": (
        "Corrections are made in the repository; CHANGELOG.md lists them. Each prediction names its run, and "
        "each run its commit."
    ),
}
PREDICTIONS = {
    "run_id": ("sc:Text", "Run that made the prediction: its folder below results/."),
    "image_id": ("sc:Text", "File name in UTKFace."),
    "split": ("sc:Text", "validation or test."),
    "age": ("sc:Float", "Labelled age in years."),
    "age_min": ("sc:Float", "Lower end of the labelled age band, in years."),
    "age_max": ("sc:Float", "Upper end of the labelled age band, in years."),
    "gender": ("sc:Integer", "Label: 0 male, 1 female."),
    "race": ("sc:Integer", "Label: 0 White, 1 Black, 2 Asian, 3 Indian, 4 Others."),
    "age_pred": ("sc:Float", "Predicted age in years."),
    "age_lo": ("sc:Float", "Lower end of the 90 % interval, in years."),
    "age_hi": ("sc:Float", "Upper end of the 90 % interval, in years."),
    "gender_p": ("sc:Float", "Predicted probability of label 1."),
    **{f"race_p{code}": ("sc:Float", f"Predicted probability of race label {code}.") for code in range(5)},
}
SPLIT_COLUMNS = {
    "image_id": ("sc:Text", "File name in UTKFace."),
    "group": ("sc:Integer", "Near-duplicate group; a group never straddles two parts."),
    "split": ("sc:Text", "train, validation or test."),
}


def describe(root: Path) -> dict:
    """The metadata of the data that lie in a checkout."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    address = f"https://{settings['tool']['agr']['repository']}"
    raw = f"{address}/raw/{settings['tool']['agr']['branch']}"
    (shipped,) = sorted((root / "results" / "shipped").glob("*/predictions.parquet"))
    repository = {
        "@type": "cr:FileObject",
        "@id": "repository",
        "name": "repository",
        "description": "The repository as a whole; runs are its folders below results/.",
        "contentUrl": address,
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",  # the standard's mark for what has no hash
    }
    every = {
        "@type": "cr:FileSet",
        "@id": "every-predictions",
        "name": "every-predictions",
        "description": "The predictions of every published run, in one format.",
        "containedIn": {"@id": "repository"},
        "encodingFormat": "application/x-parquet",
        "includes": "results/**/predictions.parquet",
    }
    files = [
        _file(root / SPLIT, "utkface-split", "text/csv", raw, root),
        _file(shipped, "shipped-predictions", "application/x-parquet", raw, root),
    ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": "UTKFace-grouped-split-and-predictions",
        "description": (
            "A leak-free split of UTKFace by near-duplicate groups, and per-image predictions of age, gender "
            "and race with intervals and probabilities. No image is included. File names and labels come from "
            "UTKFace, which is for non-commercial research."
        ),
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "license": "https://opensource.org/license/mit",
        "url": address,
        "version": _version(root),
        "datePublished": "2026-11-26",
        "creator": {"@type": "sc:Organization", "name": "The authors of the course", "url": address},
        "keywords": ["face analysis", "age estimation", "fairness", "multi-task learning"],
        "citeAs": f"@misc{{agr, title={{{settings['project']['description']}}}, url={{{address}}}}}",
        "isLiveDataset": False,
        **RESPONSIBLE,
        "distribution": [repository, *files, every],
        "recordSet": [
            _records("split", "One row for each face.", "utkface-split", SPLIT_COLUMNS),
            _records("predictions", "One row for each face of the shipped run.", "shipped-predictions", PREDICTIONS),
        ],
    }


def _version(root: Path) -> str:
    """A version of three numbers, as the standard wants it, from the package."""
    text = (root / "agr_utils" / "__init__.py").read_text(encoding="utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def _file(path: Path, name: str, encoding: str, raw: str, root: Path) -> dict:
    place = path.relative_to(root).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": f"{place} of the repository.",
        "contentUrl": f"{raw}/{place}",
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _records(name: str, description: str, file: str, columns: dict[str, tuple[str, str]]) -> dict:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "description": text,
            "dataType": kind,
            "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
        }
        for column, (kind, text) in columns.items()
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields}


def main() -> int:
    """Write the file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / "croissant.json").write_text(json.dumps(describe(ROOT), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
