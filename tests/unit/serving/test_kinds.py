"""What is no transformer is served too: each kind answers as `predict` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import tunelab
from tiny import reviews, write_csv
from tunelab.serving.listening import ServerSettings, make_service
from tunelab.serving.loading import NamedFolder
from tunelab.serving.web import make_app

METHODS = ("svm", "knn", "static")  # planes and neighbours on a base's vectors; no base at all
TEXTS = ["a good film", "dull and grim, hé"]


@pytest.mark.slow
def test_every_kind_is_served_as_it_predicts(tiny_bert: Path, tmp_path: Path):
    rows = write_csv(tmp_path / "r.csv", reviews(80), ["text", "label"])
    for name in METHODS:
        tunelab.fine_tune(rows, name, output_dir=tmp_path / name, model=tiny_bert, max_length=32)
    folders = [NamedFolder(name, tmp_path / name) for name in METHODS]
    service = make_service(folders, ServerSettings())
    try:
        http = TestClient(make_app(service))
        for name in METHODS:
            said = http.post("/classify", json={"model": name, "input": TEXTS})
            p = np.array([row["probs"] for row in said.json()["data"]])
            expected = tunelab.load(tmp_path / name).predict_proba(TEXTS)
            np.testing.assert_allclose(p, expected, atol=1e-6)
    finally:
        service.engine.close()
