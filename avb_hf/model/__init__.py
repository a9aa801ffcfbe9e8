"""The model and everything that travels with a checkpoint.

Importing this package registers configuration, model and feature extractor with transformers' Auto classes, and the
pipeline with its pipelines.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_vocal_burst import VocalBurstConfig
from .feature_extraction_vocal_burst import VocalBurstFeatureExtractor
from .losses_vocal_burst import LOSSES, concordance_cc
from .modeling_vocal_burst import Wav2Vec2ForVocalBurst
from .pipeline_vocal_burst import TASK, VocalBurstPipeline
from .pooling_vocal_burst import POOLINGS

AutoConfig.register(VocalBurstConfig.model_type, VocalBurstConfig, exist_ok=True)
AutoModelForAudioClassification.register(VocalBurstConfig, Wav2Vec2ForVocalBurst, exist_ok=True)
AutoFeatureExtractor.register(VocalBurstConfig, VocalBurstFeatureExtractor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(TASK, VocalBurstPipeline, pt_model=AutoModelForAudioClassification, type="audio")

__all__ = [
    "LOSSES",
    "POOLINGS",
    "VocalBurstConfig",
    "VocalBurstFeatureExtractor",
    "VocalBurstPipeline",
    "Wav2Vec2ForVocalBurst",
    "concordance_cc",
]
