"""The page in demo/: build it into build/demo, and serve it on this machine only.

python tools/demo.py build [FOLDER]
python tools/demo.py serve [PORT]
"""

import functools
import hashlib
import json
import shutil
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from agr_utils.data.synthetic import draw_faces
from agr_utils.deploy.detect import DETECTOR
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "build" / "demo"
RUNTIME = ROOT / "demo" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PORT = 8017


def build(output: Path = OUTPUT) -> None:
    """Copy the sources, the runtime and both networks, and write down what the networks' files must hash to."""
    if not (RUNTIME / RUNTIME_FILES[0]).exists():
        sys.exit("onnxruntime-web is not installed. Run: npm ci --prefix demo (make demo does)")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(ROOT / "demo" / "src", output)
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


def add_network(path: Path, output: Path) -> dict[str, str]:
    """Copy an ONNX file; its name and hash."""
    content = path.read_bytes()
    (output / path.name).write_bytes(content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}


class Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers that allow several threads, and no connection elsewhere."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        """Add the headers; without the first two, browsers run WebAssembly on one thread."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *arguments) -> None:
        """Say nothing of each request."""


def make_server(port: int = PORT, folder: Path = OUTPUT) -> ThreadingHTTPServer:
    """A server of a folder on the loopback address; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def main() -> None:
    """See the module."""
    match sys.argv[1:]:
        case ["build", *folder]:
            build(Path(folder[0]) if folder else OUTPUT)
        case ["serve", *port]:
            with make_server(int(port[0]) if port else PORT) as server:
                print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C stops it)", flush=True)
                try:
                    server.serve_forever()
                except KeyboardInterrupt:
                    print()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
