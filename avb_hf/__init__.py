"""Fine-tune speech encoders to hear emotion in vocal bursts.

Names are loaded when they are first used, so `import avb_hf` imports neither torch nor transformers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "TASKS": "avb_hf.tasks",
    "TaskSpec": "avb_hf.tasks",
    "POOLINGS": "avb_hf.model",
    "VocalBurstConfig": "avb_hf.model",
    "VocalBurstFeatureExtractor": "avb_hf.model",
    "VocalBurstPipeline": "avb_hf.model",
    "Wav2Vec2ForVocalBurst": "avb_hf.model",
    "concordance_cc": "avb_hf.model",
    "VocalBurstTrainer": "avb_hf.training.trainer",
    "VocalBurstTrainingArguments": "avb_hf.training.training_arguments",
    "load_metric": "avb_hf.evaluation.load_metric",
    "PredictArguments": "avb_hf.inference.predict_arguments",
    "predict": "avb_hf.inference.predict",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avb_hf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
