"""The pipeline `vocal-burst-emotion`: from recordings of any kind to the emotion in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoModelForAudioClassification, PreTrainedModel, SequenceFeatureExtractor
from transformers.pipelines.base import ChunkPipeline

from .configuration_vocal_burst import nearest
from .loading_vocal_burst import HUB_ARGUMENTS
from .pushing_vocal_burst import PUSH_ARGUMENTS, push_saved
from .reading_vocal_burst import find_dataset, read_clip, read_rows
from .schema_vocal_burst import output_schema, score_bounds
from .segments_vocal_burst import find_bursts

TASK = "vocal-burst-emotion"


class VocalBurstPipeline(ChunkPipeline):
    """Score the emotion in recordings of vocal bursts.

    Args:
        model: A fine-tuned model, or its Hub id or folder. It is brought to evaluation mode.
        feature_extractor: The model's own if None.
        **kwargs: Arguments of a call, which become its defaults; transformers' `device`, `batch_size` and
            `num_workers`; with an id or folder also `revision`, `token`, `dtype` and their like.

    Raises:
        TypeError: If an argument does not exist; the message names the nearest.
        ValueError: If the model is no fine-tuned one of ours, or cannot do what is asked for.
    """

    _load_feature_extractor = True
    _load_tokenizer = _load_image_processor = _load_video_processor = _load_processor = False

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike,
        feature_extractor: SequenceFeatureExtractor | None = None,
        **kwargs: Any,
    ) -> None:
        loading = {name: kwargs.pop(name) for name in (*HUB_ARGUMENTS, "trust_remote_code") if name in kwargs}
        if isinstance(model, str | os.PathLike):
            if "dtype" in kwargs:
                loading["dtype"] = kwargs["dtype"]
            model = AutoModelForAudioClassification.from_pretrained(model, **loading)
        feature_extractor = feature_extractor or getattr(model, "feature_extractor", None)
        if feature_extractor is None or not hasattr(model.config, "label_names"):
            raise ValueError(f"model must be a fine-tuned vocal-burst model, got {type(model).__name__}")
        super().__init__(model=model.eval(), feature_extractor=feature_extractor, **kwargs)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Score one recording or many.

        Scores are a regression's final scores, or probabilities where the labels are classes, in the order of the
        labels. `output_schema` describes what is returned for a recording:

        - `{label: score}`;
        - with `segment`, a list of spans `{"start", "end", "scores"}`, in seconds, one for each burst;
        - with `trajectory`, each span, which without `segment` is the recording as a whole, has `trajectory` too:
          `times`, the middle of each frame in seconds of the recording, and for each label the frames' `outputs`. Their
          pooling is the clip's score, or, where the model's activation follows its pooling, what goes into that; of
          classes, it is what goes into the softmax.

        Args:
            inputs: A recording: path, URL or bytes of an audio file of any rate and number of channels, or the mapping
                `{"array" or "raw", "sampling_rate"}`; or a list of recordings, a generator of them, or a dataset (of
                the package datasets, with an audio column, or of torch), or such a column of the former.
            **kwargs: `as_list` makes scores a list of `{"label", "score"}`, highest first, as Hub widgets expect;
                `segment` finds the bursts in long recordings, as `find_bursts` describes; `trajectory` asks for frames;
                `batch_size` is the number of clips that are run at once, `num_workers` as in transformers.

        Returns:
            The result of one recording, the list of those of a list, or an iterator over those of a generator or
            dataset.

        Raises:
            TypeError: If an argument does not exist.
            ValueError: If a recording cannot be used, or the model cannot do what is asked for.
        """
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        dataset = find_dataset(inputs)
        if dataset is not None:
            inputs = read_rows(dataset)
        return super().__call__(list(inputs) if isinstance(inputs, tuple) else inputs, **kwargs)

    def output_schema(self, as_list: bool = False, segment: bool = False, trajectory: bool = False) -> dict[str, Any]:
        """Describe what a call with these arguments returns for one recording, as a JSON schema (draft 2020-12)."""
        return output_schema(self.model.config, as_list, segment, trajectory)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save the model and its feature extractor.

        Args:
            save_directory: The folder.
            push_to_hub: Whether the same is uploaded too, by `push_to_hub`.
            **kwargs: Further arguments of transformers' `save_pretrained`, those of `push_to_hub` included.
        """
        push = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
        super().save_pretrained(os.fspath(save_directory), **kwargs)
        if push_to_hub:
            self.push_to_hub(push.pop("repo_id", Path(save_directory).name), **kwargs, **push)

    def push_to_hub(self, repo_id: str, *, private: bool | None = True, **kwargs: Any) -> str:
        """Upload what `save_pretrained` leaves.

        Args:
            repo_id: Name of the repository.
            private: Whether it must be private; None leaves it as it is, and is the owner's default for a new one.
            **kwargs: Further arguments of transformers' `push_to_hub`.

        Returns:
            URL of the commit.

        Raises:
            ValueError: If it is to be private, and a public repository of that name exists.
        """
        return push_saved(self.save_pretrained, type(self.model).__name__, repo_id, private, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = ("as_list", "segment", "trajectory")
        for name in given:
            if name not in known:
                raise TypeError(f"VocalBurstPipeline has no argument {name!r}{nearest(name, known)}")
        if given.get("trajectory") and getattr(self.model.config, "pool_over", None) != "logits":
            raise ValueError("trajectory needs a model with pool_over 'logits': no frame of this one has a score")
        return (
            {name: given[name] for name in ("segment",) if name in given},
            {name: given[name] for name in ("trajectory",) if name in given},
            given,
        )

    def preprocess(self, input_: Any, segment: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the clips of a recording, each as a batch of its own with its `span` in seconds."""
        rate = self.feature_extractor.sampling_rate
        clip, name = read_clip(input_, rate)
        spans: list[tuple[int, int] | None] = [(0, len(clip))]
        if segment:
            spans = [*find_bursts(clip, rate)] or [None]
        for index, span in enumerate(spans):
            # transformers wants a clip of each recording: where there is no burst it is silence, and not returned.
            burst = np.zeros(rate, np.float32) if span is None else clip[slice(*span)]
            self._check_length(len(burst), rate, name)
            inputs = self.feature_extractor(burst, sampling_rate=rate, return_tensors="pt")
            seconds = None if span is None else (span[0] / rate, span[1] / rate)
            yield {**inputs, "span": seconds, "is_last": index == len(spans) - 1}

    def _check_length(self, samples: int, rate: int, name: str) -> None:
        longest = self.model.config.max_samples
        if longest is not None and samples > longest:
            raise ValueError(
                f"{name} lasts {samples / rate:.1f} s, the model takes up to {longest / rate:g} s; segment=True finds "
                "the bursts in a long recording"
            )

    def _forward(self, input_tensors: dict[str, Any], trajectory: bool = False) -> dict[str, Any]:
        others = {name: input_tensors[name] for name in ("span", "is_last")}
        input_values = input_tensors["input_values"].to(self.model.dtype)
        attention_mask = input_tensors["attention_mask"]
        if not trajectory:
            return {"logits": self.model(input_values=input_values, attention_mask=attention_mask).logits, **others}
        states, num_frames = self.model.encoder(input_values, attention_mask.sum(dim=1))
        logits = self.model.score_states(states, num_frames)
        frames = self.model.score_frames(states, num_frames)
        return {"logits": logits, "frames": frames, "num_frames": num_frames, **others}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        as_list: bool = False,
        segment: bool = False,
        trajectory: bool = False,
    ) -> Any:
        """Name the scores of a recording's clips."""
        spans = [self._span(output, as_list) for output in model_outputs if output["span"] is not None]
        if segment:
            return spans
        return spans[0] if trajectory else spans[0]["scores"]

    def _span(self, output: dict[str, Any], as_list: bool) -> dict[str, Any]:
        start, end = output["span"]
        logits = output["logits"][0].float()
        is_class = self.model.config.problem_type == "single_label_classification"
        values = (logits.softmax(dim=-1) if is_class else logits).double().numpy()
        # float32 rounds the bounds themselves: a score that reaches one may lie beyond it.
        scores = self._per_label(values.clip(*score_bounds(self.model.config)).tolist())
        span = {"start": start, "end": end, "scores": _as_list(scores) if as_list else scores}
        if "frames" in output:
            span["trajectory"] = self._trajectory(output["frames"][0, : int(output["num_frames"])], start)
        return span

    def _trajectory(self, frames: Tensor, start: float) -> dict[str, Any]:
        config, rate = self.model.config, self.feature_extractor.sampling_rate
        centres = config.first_frame_centre + config.frame_hop * np.arange(len(frames))
        outputs = self._per_label(frames.float().T.tolist())
        return {"times": (start + centres / rate).tolist(), "outputs": outputs}

    def _per_label(self, values: list[Any]) -> dict[str, Any]:
        return dict(zip(self.model.config.label_names, values, strict=True))


def _as_list(scores: dict[str, float]) -> list[dict[str, Any]]:
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return [{"label": label, "score": score} for label, score in ordered]
