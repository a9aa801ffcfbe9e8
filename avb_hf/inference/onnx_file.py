"""The ONNX file of a model: its graph, and all that is needed to use it, as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig

from avb_hf import __version__
from avb_hf.model import VocalBurstFeatureExtractor

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
INPUTS, OUTPUT = {"input_values": torch.float32, "attention_mask": torch.int64}, "logits"
# Whose versions a file names.
_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")
_MEANINGS = {
    "regression": "final scores of shape (batch, labels), output activation applied",
    "single_label_classification": "raw class scores of shape (batch, labels); their softmax is the probabilities",
}


def require_onnx(*packages: str) -> None:
    """Refuse to go on without packages that only ONNX files need.

    Raises:
        ImportError: If one is not installed; the message says how to get it.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX files need {' and '.join(missing)}: pip install 'avb_hf[onnx]'")


class OnnxModel:
    """A model in an ONNX file that `avb export` wrote, run on the CPU by as many threads as torch uses.

    Args:
        path: The file.

    Attributes:
        path: The file.
        metadata: The file's metadata, text by name; `describe_model` says which.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        ValueError: If there is no such file, or it is no model.
    """

    def __init__(self, path: Path) -> None:
        require_onnx("onnxruntime")
        import onnxruntime

        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own have no other base
            raise ValueError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        self.path = path
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute `logits` `(batch, labels)` from `input_values` and `attention_mask`, `(batch, samples)`."""
        feed = {name: inputs[name].to(dtype).numpy() for name, dtype in INPUTS.items()}
        (logits,) = self._session.run([OUTPUT], feed)
        return torch.from_numpy(logits)

    def parts(self) -> tuple[PreTrainedConfig, VocalBurstFeatureExtractor]:
        """Return the configuration of the model and its feature extractor.

        Raises:
            ValueError: If the file holds none, or of a model that is not known.
        """
        missing = sorted({"config", "precision", "preprocessing"} - self.metadata.keys())
        if missing:
            raise ValueError(f"{self.path} was not written by `avb export`: its metadata lacks {missing}")
        fields = json.loads(self.metadata["config"])
        if fields["model_type"] not in CONFIG_MAPPING:
            raise ValueError(f"{self.path}: no model_type {fields['model_type']!r} is known")
        config = CONFIG_MAPPING[fields["model_type"]].from_dict(fields)
        return config, VocalBurstFeatureExtractor.from_dict(json.loads(self.metadata["preprocessing"]))


def describe_model(config: PreTrainedConfig, feature_extractor: VocalBurstFeatureExtractor) -> dict[str, Any]:
    """Collect what a user of a file must know of its model.

    Returns:
        `label_names`, `problem_type`, `label_range`, the meaning of the `logits`, `sampling_rate` in Hz, shortest and
        longest clip in samples, `preprocessing` and `config` as `preprocessor_config.json` and `config.json` of the
        checkpoint have them, and `versions`.
    """
    return {
        "label_names": config.label_names,
        "problem_type": config.problem_type,
        "label_range": config.label_range,
        "logits": _MEANINGS[config.problem_type],
        "sampling_rate": feature_extractor.sampling_rate,
        "min_samples": config.min_samples,
        "max_samples": config.max_samples,
        "preprocessing": json.loads(feature_extractor.to_json_string()),
        "config": json.loads(config.to_json_string()),
        "versions": {"avb_hf": __version__} | {name: version(name) for name in _PACKAGES},
    }


def set_metadata(graph: onnx.ModelProto, values: Mapping[str, Any]) -> None:
    """Put values into a graph's metadata: text as it is, anything else as JSON."""
    import onnx

    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    onnx.helper.set_model_props(graph, texts)


def read_metadata(path: Path) -> dict[str, str]:
    """Return a file's metadata without running it; none of a file that is no ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False)
    except DecodeError:
        return {}
    return {entry.key: entry.value for entry in graph.metadata_props}
