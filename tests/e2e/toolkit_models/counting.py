"""A class as people write them for the toolkit: it finds bright parts and counts annotations.

Nothing here knows of our backend. The end-to-end tests serve this file.
"""
# ruff: noqa: UP006, UP035, UP045

import json
import os
import signal
import time
from typing import Dict, List, Optional

from helper_of_counting import brightest_box
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse
from label_studio_ml.utils import get_image_size
from label_studio_sdk.label_interface.objects import PredictionValue


class CountingModel(LabelStudioMLBase):
    """Predicts a rectangle and a choice; its version says how many annotations it has seen."""

    def setup(self):
        if not self.has("seen"):
            self.set("seen", "0")
            self.set("model_version", "counting-0")
        self.loaded_at = time.time()

    def predict(self, tasks: List[Dict], context: Optional[Dict] = None, **kwargs) -> ModelResponse:
        box, image, value = self.get_first_tag_occurence("RectangleLabels", "Image")
        choice, _, _ = self.get_first_tag_occurence("Choices", "Image")
        predictions = []
        for task in tasks:
            url = task["data"].get(value) or task["data"]["image"]
            if "raise" in url:
                raise RuntimeError("this image is not for me")
            path = self.get_local_path(url, task_id=task["id"])
            width, height = get_image_size(path)
            label = self.label_interface.get_control(box).labels[0]
            regions = [
                {
                    "id": f"box-{task['id']}",
                    "from_name": box,
                    "to_name": image,
                    "type": "rectanglelabels",
                    "original_width": width,
                    "original_height": height,
                    "score": 0.5,
                    "value": {**brightest_box(path), "rotation": 0, "rectanglelabels": [label]},
                },
                {
                    "from_name": choice,
                    "to_name": image,
                    "type": "choices",
                    "value": {"choices": ["drawn" if context else "Few"]},
                },
            ]
            predictions.append(PredictionValue(result=regions, score=0.75))
        return ModelResponse(predictions=predictions, model_version="whatever")

    def fit(self, event, data, **kwargs):
        if event == "ANNOTATION_DELETED":
            raise RuntimeError("deletions are too much for me")
        if event == "START_TRAINING":
            extra = self.extra_params or {}
            time.sleep(float(extra.get("seconds", 0)))
            self.set("model_version", f"trained-{self.get('seen')}")
            return
        note = json.dumps(data.get("annotation") or {})
        marker = self.extra_params.get("die_once")
        if marker and "deadly" in note and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        seen = int(self.get("seen")) + 1
        self.set("seen", str(seen))
        self.set("model_version", f"counting-{seen}")
