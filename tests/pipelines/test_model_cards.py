"""Contracts of the page of model cards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from pipelines.model_cards import write_model_cards
from wsi_her2.errors import ClassifierError, OutputError
from wsi_her2.models.loading import bundled_bundles


def test_every_classifier_has_a_card_that_says_it_is_not_validated(tmp_path: Path) -> None:
    count = write_model_cards(tmp_path / "cards.md")
    text = (tmp_path / "cards.md").read_text("utf-8")
    assert count == 2 + len(bundled_bundles()), "with the membrane scorer and the network for cells"
    assert text.count("It was not validated.") == count
    assert "Research use only" in text
    assert "no tissue of patients" in text


def test_what_a_bundle_says_of_itself_cannot_become_markup(tmp_path: Path) -> None:
    (source, *_) = bundled_bundles().values()
    bundle = shutil.copytree(source, tmp_path / "bundles" / "strange")
    weights = bundle / "model.safetensors"
    with safe_open(weights, "numpy") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dictionary
    card = json.loads(metadata["wsi_her2"])
    card["name"] = "<script>alert(1)</script> | [link](javascript:x)"
    save_file(tensors, weights, {"wsi_her2": json.dumps(card)})
    write_model_cards(tmp_path / "cards.md", tmp_path / "bundles")
    text = (tmp_path / "cards.md").read_text("utf-8")
    assert "## &lt;script&gt;alert(1)&lt;/script&gt; \\| \\[link\\](javascript:x)" in text
    assert "<script" not in text


def test_a_folder_that_is_not_there_and_a_place_that_cannot_be_written_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match="absent"):
        write_model_cards(tmp_path / "cards.md", tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_model_cards(tmp_path / "file" / "cards.md")
