"""What a package tells of a model, and what it keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_backend.domain import Component
from ml_backend.service.package_facts import Ancestor, facts_of, shareable

SECRET_ADDRESS = "http://label-studio.intern.example:8080"


def write_model(folder: Path, **manifest: Any) -> Component:
    folder.mkdir()
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"")
    (folder / "manifest.json").write_text(json.dumps({"sha256": "ab" * 32, **manifest}))
    return Component(
        name=folder.name, architecture="residual-unet", sha256="ab" * 32, path=str(weights),
        licence="CC0-1.0",
    )  # fmt: skip


def parent(component: Component) -> dict[str, str]:
    return {"name": component.name, "sha256": component.sha256, "path": component.path}


def test_the_lineage_goes_up_to_the_base(tmp_path: Path) -> None:
    base = write_model(tmp_path / "nuclei-1", licence="CC0-1.0")
    first = write_model(tmp_path / "v1", licence="CC-BY-4.0", parent=parent(base))
    second = write_model(tmp_path / "v2", parent=parent(first))

    assert facts_of(second).lineage == (
        Ancestor(name="v1", sha256="ab" * 32, licence="CC-BY-4.0"),
        Ancestor(name="nuclei-1", sha256="ab" * 32, licence="CC0-1.0"),
    )


def test_a_parent_that_is_gone_is_still_named(tmp_path: Path) -> None:
    gone = {"name": "v1", "sha256": "cd" * 32, "path": str(tmp_path / "gone" / "w.safetensors")}
    model = write_model(tmp_path / "v2", parent=gone)
    assert facts_of(model).lineage == (Ancestor(name="v1", sha256="cd" * 32),)


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    model = write_model(tmp_path / "v1")
    path = Path(model.path).with_name("manifest.json")
    path.write_text(json.dumps({"sha256": "ab" * 32, "parent": parent(model)}))
    assert 1 <= len(facts_of(model).lineage) <= 50


def test_the_lineage_of_a_model_that_came_in_a_package_is_kept(tmp_path: Path) -> None:
    kept = [{"name": "v1", "licence": "CC-BY-NC-4.0"}, {"name": "cpsam"}]
    model = write_model(tmp_path / "mine", lineage=kept)
    assert [one.name for one in facts_of(model).lineage] == ["v1", "cpsam"]


def test_paths_addresses_and_projects_stay_here(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "v1",
        project=f"{SECRET_ADDRESS}#3.1",
        parent={"name": "/data/models/base.pt", "path": "/data/models/base.pt"},
        device="cuda:0",
        session="3f2a91c0",
        metrics={"candidate": {"ap50": 0.9}, "note": f"see {SECRET_ADDRESS}/projects/3"},
        data={"sha256": "ef" * 32, "training_images": 3, "root": "/data/images"},
        segmentation={"flow_threshold": 0.4, "model": "~/weights.pt"},
    )

    facts = facts_of(model)

    said = json.dumps([facts.told, [one.to_json() for one in facts.lineage]])
    for secret in ("intern.example", "/data", "~/", "3f2a91c0", "cuda"):
        assert secret not in said
    assert facts.part("metrics") == {"candidate": {"ap50": 0.9}}
    assert facts.part("data") == {"sha256": "ef" * 32, "training_images": 3}
    assert facts.lineage == (Ancestor(name="base.pt"),)


def test_addresses_of_published_data_are_told(tmp_path: Path) -> None:
    model = write_model(tmp_path / "v1", training_data={"address": "https://example.org/data"})
    assert facts_of(model).part("training_data") == {"address": "https://example.org/data"}


def test_of_a_checkpoint_without_a_manifest_nothing_is_known(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"")
    model = Component(
        name="mine.pt", architecture="sam-vitl", sha256="ab" * 32, path=str(path), licence="unknown"
    )
    facts = facts_of(model)
    assert (facts.lineage, dict(facts.told)) == ((), {})


def test_windows_paths_and_long_texts_are_left_out() -> None:
    told = shareable(
        {"a": "C:\\Users\\me", "b": "\\\\server\\share", "c": "x" * 301, "d": [1, "e"]}
    )
    assert told == {"d": [1, "e"]}
