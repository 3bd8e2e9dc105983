"""ONNX files that prove themselves whole: read into memory, checked, and run one image at a time by onnxruntime."""

import hashlib
import stat
from pathlib import Path

import onnxruntime

from agr_utils.errors import InputError

# The last 76 bytes: one more entry of ModelProto.metadata_props (field 14), "sha256" and the hash of all before them.
# A protocol buffer's repeated fields may be appended to, so the file stays one that any ONNX tool opens.
_SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"


def seal(content: bytes) -> bytes:
    """A serialised ONNX model with its SHA-256 added to its metadata."""
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def read_sealed(path: Path) -> tuple[bytes, str]:
    """Content of a sealed ONNX file, and its hash; an InputError if it is missing, damaged, cut or was never sealed."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file. Name an ONNX file; agr export makes one from a run folder")
        content = path.read_bytes()  # into memory: a file that is cut while it is mapped kills the process
    except FileNotFoundError:
        raise InputError(f"{path}: no such model. Make one from a run folder: agr export RUN") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its path and permissions") from error
    body, end = content[: -len(_SEAL) - 64], content[-len(_SEAL) - 64 :]
    digest = hashlib.sha256(body).hexdigest()
    if end != _SEAL + digest.encode():
        raise InputError(
            f"{path}: damaged, or not made by agr export (its SHA-256 is missing or differs). "
            "Get it again, or make it from a run folder: agr export RUN"
        )
    return content, digest


def make_session(model: bytes | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Session on the CPU for a serialised ONNX model or its file, with so many threads, which only tells errors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_session(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, str], str]:
    """Session of a sealed ONNX file, its metadata and its hash; an InputError if it cannot be read or run.

    One thread computes one call, so an answer does not depend on the number of threads; calls may come from several.
    """
    content, digest = read_sealed(path)
    try:
        session = make_session(content)
    except Exception as error:  # onnxruntime's own kinds, of which it exports no common base
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run it ({reason}). Export it again"
        ) from error
    return session, session.get_modelmeta().custom_metadata_map, digest
