"""Replays the life of the reference fine-tuning service through our client, on a running backend.

python tools/replay_reference_service.py --dataset ../shared/data/bbbc039_nuclei16

The backend must see the dataset under the same path, so DATA_ROOTS must hold it. Exits with 1 at
the first thing that is not as it should be; at the end a table says what was checked of each call.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # started as a script

from ml_backend.client import Client  # noqa: E402 - after the path is set
from ml_backend.client.address import DEFAULT_URL  # noqa: E402
from ml_backend.errors import BackendError  # noqa: E402
from ml_backend.settings import read_client_settings  # noqa: E402
from tools.checking import NotAsItShouldBe  # noqa: E402
from tools.reference_life import Material, ReferenceLife  # noqa: E402


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the person wants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="of the backend; default: ML_BACKEND_URL, or this machine's")
    # in files, because everybody on a machine can read the arguments of its programs
    parser.add_argument("--token-file", type=Path, help="of who trains; default: ML_BACKEND_TOKEN")
    parser.add_argument("--other-token-file", type=Path, help="of another who may train")
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images and masks")
    parser.add_argument("--images", default="images/*.tif", help="pattern in it")
    parser.add_argument("--masks", default="masks/*.png", help="pattern in it")
    parser.add_argument("--test-images", help="pattern of a test set in it")
    parser.add_argument("--test-masks", help="pattern of a test set in it")
    parser.add_argument("--epochs", type=int, default=3, help="of the first training")
    parser.add_argument("--samples", type=int, help="in an epoch; default: the network's own")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds for one training")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the life; return the exit code."""
    given = read_arguments(arguments)
    rows: list[tuple[str, str]] = []
    began = time.monotonic()

    def tell(call: str, checked: str) -> None:
        rows.append((call, checked))
        print(f"{time.monotonic() - began:7.1f} s  {call}: {checked}", flush=True)

    try:
        with ExitStack() as opened:
            material = _material(given, Path(opened.enter_context(tempfile.TemporaryDirectory())))
            client = opened.enter_context(_client(given, given.token_file))
            other = None
            if given.other_token_file is not None:
                other = opened.enter_context(_client(given, given.other_token_file))
            ReferenceLife(client=client, other=other, material=material, tell=tell).live()
    except (NotAsItShouldBe, BackendError, OSError) as error:
        print(f"error: after {rows[-1] if rows else 'nothing'}: {error}", file=sys.stderr)
        return 1
    width = max(len(call) for call, _ in rows)
    print(f"\n{'call':{width}}  what was checked")
    for call, checked in rows:
        print(f"{call:{width}}  {checked}")
    return 0


def _client(given: argparse.Namespace, token_file: Path | None) -> Client:
    settings = read_client_settings()
    token = None
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8")
    elif settings.ml_backend_token is not None:
        token = settings.ml_backend_token.get_secret_value()
    return Client(given.url or settings.ml_backend_url or DEFAULT_URL, token)


def _material(given: argparse.Namespace, folder: Path) -> Material:
    dataset = given.dataset.resolve()
    images = sorted(dataset.glob(given.images))
    if not images:
        raise NotAsItShouldBe(f"there is no image {given.images} in {dataset}")
    return Material(
        dataset=dataset,
        layout={
            "train_images": given.images,
            "train_annotations": given.masks,
            "test_images": given.test_images,
            "test_annotations": given.test_masks,
        },
        image=images[0],
        epochs=given.epochs,
        samples=given.samples,
        patience_s=given.patience,
        folder=folder,
    )


if __name__ == "__main__":
    sys.exit(main())
