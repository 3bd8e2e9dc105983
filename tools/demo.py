"""The page in demo/: build it into a folder, and serve what lies in build/demo, on this machine only."""

import argparse
import contextlib
import functools
import hashlib
import json
import re
import shutil
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from agr_utils.data.synthetic import draw_faces
from agr_utils.deploy.detect import DETECTOR
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "demo" / "src"
OUTPUT = ROOT / "build" / "demo"
RUNTIME = ROOT / "demo" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PORT = 8017
# What the page may load and connect to, as its own <meta> says; and who may show it in a frame, which a <meta> cannot.
POLICY = re.search(r'content="(default-src [^"]*)"', (SOURCES / "index.html").read_text(encoding="utf-8"))[1]
POLICY += "; frame-ancestors 'none'"


def build(output: Path = OUTPUT) -> None:
    """Copy the sources, the runtime and both networks, and write down what the networks' files must hash to.

    The folder may be new, empty, or hold an earlier page, whose files are replaced. Nothing else in it is touched.
    """
    if output.exists() and output != OUTPUT and not may_be_replaced(output):
        sys.exit(f"{output} holds something else than this page, and was left as it is. Name a new or an empty folder.")
    if not (RUNTIME / RUNTIME_FILES[0]).exists():
        sys.exit("onnxruntime-web is not installed. Run: npm ci --prefix demo (make demo does)")
    if output == OUTPUT:  # ours alone: nothing of an earlier build is to be published with this one
        shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(SOURCES, output, dirs_exist_ok=True)
    for name in RUNTIME_FILES:
        shutil.copy(RUNTIME / name, output)
    model = FaceModel(SHIPPED_MODEL)
    names = ("run_id", "image_size", "labels", "licence", "zoom", "limits", "trained_ages")
    about = {name: model.about[name] for name in names} | {"model_sha256": model.sha256}
    about["abstain"] = {task: found["threshold"] for task, found in model.about["abstain"].items()}
    config = {"about": about, "model": add_network(SHIPPED_MODEL, output), "detector": add_network(DETECTOR, output)}
    config["megabytes"] = round(sum(path.stat().st_size for path in output.iterdir()) / 1e6)
    (output / "config.js").write_text(f"export default {json.dumps(config, indent=2)};\n", encoding="utf-8")
    Image.fromarray(draw_faces(10, image_size=256, seed=3).pixels[1]).save(output / "drawing.png")


def may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty, or the page was built into it: then its config.js names a network."""
    config = folder / "config.js"
    ours = config.exists() and b'"model_sha256"' in config.read_bytes()
    return folder.is_dir() and (ours or not any(folder.iterdir()))


def add_network(path: Path, output: Path) -> dict[str, str]:
    """Copy an ONNX file; its name and hash."""
    content = path.read_bytes()
    (output / path.name).write_bytes(content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}


class Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers that allow several threads, and no connection elsewhere, nor from the worker."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        """Add the headers; without the first two, browsers run WebAssembly on one thread."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def handle(self) -> None:
        """Answer; a browser that closes the connection meanwhile, as one does when a page is left, is no error."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *arguments) -> None:
        """Say nothing of each request."""


def make_server(port: int = PORT, folder: Path = OUTPUT) -> ThreadingHTTPServer:
    """A server of a folder on the loopback address; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def serve(port: str) -> None:
    """Serve the built page until Ctrl-C."""
    if not (OUTPUT / "config.js").exists():
        sys.exit(f"There is no page in {OUTPUT}. Run: python tools/demo.py build")
    try:
        server = make_server(int(port))
    except (ValueError, OverflowError):
        sys.exit(f"{port!r} is no port. Name a number up to 65535, or 0 for a free one.")
    except OSError as error:
        sys.exit(f"Port {port} cannot be used ({error.strerror}). Name another one: python tools/demo.py serve 0")
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["build", "serve"])
    parser.add_argument("place", nargs="?", help=f"folder to build into (build/demo), or port to serve at ({PORT})")
    options = parser.parse_args()
    if options.action == "build":
        build(Path(options.place).resolve() if options.place else OUTPUT)
    else:
        serve(options.place or str(PORT))


if __name__ == "__main__":
    main()
