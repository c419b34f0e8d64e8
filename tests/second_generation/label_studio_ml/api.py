"""The server: `python -m label_studio_ml.api PORT` serves the class of `model.py`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from flask import Flask, jsonify, request

from label_studio_ml.response import ModelResponse

TRAIN_EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATION_DELETED",
    "START_TRAINING",
)


def make_app(model_class: Any) -> Flask:
    """Return the application."""
    app = Flask(__name__)

    @app.route("/health", methods=["GET"])
    def health() -> Any:
        return jsonify({"status": "UP", "model_class": model_class.__name__})

    @app.route("/setup", methods=["POST"])
    def setup() -> Any:
        body = request.get_json()
        project_id = body["project"].split(".", 1)[0]
        model = model_class(project_id=project_id, label_config=body["schema"])
        return jsonify({"model_version": model.get("model_version")})

    @app.route("/predict", methods=["POST"])
    def predict() -> Any:
        body = request.get_json()
        params = dict(body.get("params") or {})
        context = params.pop("context", {})
        project_id = str(body.get("project")).split(".", 1)[0]
        model = model_class(project_id=project_id, label_config=body.get("label_config"))
        answer = model.predict(body["tasks"], context=context, **params)
        if isinstance(answer, ModelResponse):
            answer = answer.model_dump()["predictions"]
        return jsonify({"results": answer})

    @app.route("/webhook", methods=["POST"])
    def webhook() -> Any:
        body = request.get_json()
        event = body.pop("action")
        if event not in TRAIN_EVENTS:
            return jsonify({"status": "Unknown event"}), 200
        project = body["project"]
        model = model_class(str(project["id"]), label_config=project["label_config"])
        return jsonify({"result": model.fit(event, body), "status": "ok"}), 201

    return app


if __name__ == "__main__":
    sys.path.insert(0, ".")
    served = importlib.import_module("model").CellBackend
    make_app(served).run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
