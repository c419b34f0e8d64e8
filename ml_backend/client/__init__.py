"""A client for a running backend: typed methods for all of /api/v1.

Nothing here loads a network library, and nothing is sent before a method is called. Answers are
frozen dataclasses; what is refused, here or by the server, is raised as one of `ml_backend.errors`.
"""

from __future__ import annotations

from ml_backend.client.activation_info import ActivationInfo
from ml_backend.client.client import Client
from ml_backend.client.dataset import Dataset
from ml_backend.client.images import Image, ServerPath
from ml_backend.client.infer_options import InferOptions
from ml_backend.client.infer_result import Flows, InferResult, ModelUsed
from ml_backend.client.load import EngineLoad, Load
from ml_backend.client.model_info import ModelInfo, Served
from ml_backend.client.point import Point
from ml_backend.client.project import ConnectedProject, Project
from ml_backend.client.retries import Retries
from ml_backend.client.session_debug import LeaseInfo, SessionDebug
from ml_backend.client.session_event import EventKind, SessionEvent
from ml_backend.client.session_info import SessionInfo
from ml_backend.client.training_options import DatasetLayout, TrainingOptions
from ml_backend.client.training_parameter import ParameterInfo

__all__ = [
    "ActivationInfo",
    "Client",
    "ConnectedProject",
    "Dataset",
    "DatasetLayout",
    "EngineLoad",
    "EventKind",
    "Flows",
    "Image",
    "InferOptions",
    "InferResult",
    "LeaseInfo",
    "Load",
    "ModelInfo",
    "ModelUsed",
    "ParameterInfo",
    "Point",
    "Project",
    "Retries",
    "Served",
    "ServerPath",
    "SessionDebug",
    "SessionEvent",
    "SessionInfo",
    "TrainingOptions",
]
