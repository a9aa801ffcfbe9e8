"""What a user would write without us: complete scripts around the stock Trainer, backbone and feature extractor.

Nothing here is slower than it must be: the fused AdamW that the Trainer takes by default, scaled dot-product attention,
no gradient into what is frozen, the head in float32 (a bfloat16 LSTM is the slower one on a CPU), one untimed update
before the clock starts.
"""

import tempfile
from time import perf_counter

import numpy as np
import soundfile
import torch
from clock import watching
from corpus import FEATURE_LAYER, RATE
from torch import nn

HIDDEN, LAYERS = 512, 2
# Off, as the peer would rightly do: layerdrop breaks hidden_states[12], SpecAugment wipes most of a short clip.
OFF = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False}


class Head(nn.Module):
    """LSTM and its last valid frame, or the mean over valid frames; then a linear layer."""

    def __init__(self, width, outputs, with_rnn=True):
        super().__init__()
        self.rnn = nn.LSTM(width, HIDDEN, LAYERS, batch_first=True) if with_rnn else None
        self.classifier = nn.Linear(HIDDEN if with_rnn else width, outputs)

    def forward(self, states, lengths):
        """Turn states `(batch, frames, width)` into outputs `(batch, outputs)`, in float32."""
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            if self.rnn is None:
                valid = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
                return self.classifier((states * valid[:, :, None]).sum(1) / lengths[:, None])
            frames, _ = self.rnn(states)
            return self.classifier(frames[torch.arange(len(frames), device=frames.device), lengths - 1])


class StockRegressor(nn.Module):
    """The whole Wav2Vec2Model with all its hidden states, of which the head reads the twelfth."""

    def __init__(self, shape, outputs, trains_front_end=False):
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        super().__init__()
        self.backbone = Wav2Vec2Model(Wav2Vec2Config(**shape, **OFF))
        if not trains_front_end:
            self.backbone.freeze_feature_encoder()
        self.head = Head(shape["hidden_size"], outputs)

    def forward(self, input_values, attention_mask, labels=None):
        """Return loss and scores of padded waveforms `(batch, samples)`."""
        output = self.backbone(input_values, attention_mask=attention_mask, output_hidden_states=True)
        lengths = self.backbone._get_feat_extract_output_lengths(attention_mask.sum(-1))
        scores = self.head(output.hidden_states[FEATURE_LAYER], lengths).sigmoid()
        return {"loss": ccc_loss(scores, labels), "logits": scores}


class StockWhisperClassifier(nn.Module):
    """The frozen encoder of Whisper on inputs of 30 s; the head reads the frames of the clip alone."""

    def __init__(self, folder, outputs, with_rnn):
        from transformers import WhisperModel

        super().__init__()
        self.backbone = WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.requires_grad_(False)
        self.head = Head(self.backbone.config.d_model, outputs, with_rnn)

    def forward(self, input_features, lengths, labels=None):
        """Return loss and scores of log-mels `(batch, bins, 3000)`."""
        self.backbone.eval()
        with torch.no_grad():
            states = self.backbone(input_features).last_hidden_state[:, : int(lengths.max())]
        scores = self.head(states, lengths)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def ccc_loss(preds, target):
    """Return one minus the mean concordance correlation over the columns."""
    preds_mean, target_mean = preds.mean(0), target.mean(0)
    covariance = ((preds - preds_mean) * (target - target_mean)).mean(0)
    spread = preds.var(0, correction=0) + target.var(0, correction=0) + (preds_mean - target_mean).square()
    return 1 - (2 * covariance / (spread + 1e-8)).mean()


class Clips(torch.utils.data.Dataset):
    """Decodes a clip whenever it is asked for."""

    def __init__(self, paths, labels):
        self.paths, self.labels = paths, labels

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        audio, rate = soundfile.read(self.paths[index], dtype="float32")
        if audio.ndim == 2:
            audio = audio.mean(axis=1)
        if rate != RATE:
            import librosa

            audio = librosa.resample(audio, orig_sr=rate, target_sr=RATE)
        return {"audio": audio, "labels": self.labels[index]}


def waveform_collator():
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)

    def collate(rows):
        audio = [row["audio"] for row in rows]
        batch = extractor(audio, sampling_rate=RATE, padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor(np.stack([row["labels"] for row in rows]), dtype=torch.float32)}

    return collate


def whisper_collator(folder):
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(folder)

    def collate(rows):
        features = extractor([row["audio"] for row in rows], sampling_rate=RATE, return_tensors="pt").input_features
        lengths = torch.tensor([-(-(len(row["audio"]) // 160) // 2) for row in rows])
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_features": features, "lengths": lengths, "labels": labels}

    return collate


def make_trainer(model, clips, collate, batch_size, **arguments):
    from transformers import PrinterCallback, Trainer, TrainingArguments

    if arguments.get("bf16") and not torch.cuda.is_available():
        arguments["use_cpu"] = True
    args = TrainingArguments(
        tempfile.gettempdir(),  # nothing is saved
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        num_train_epochs=1,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        learning_rate=1e-5,
        **arguments,
    )
    trainer = Trainer(model=model, args=args, train_dataset=clips, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    return trainer


def time_an_epoch(trainer):
    """Train for one update, then, with optimizer state and memory in place, for a timed epoch."""
    trainer.args.max_steps = 1
    trainer.train()
    trainer.args.max_steps = -1
    with watching() as epochs:
        trainer.train()
    return epochs


def fine_tune(corpus, shape, batch_size, trains_front_end=False, **arguments):
    """Time the peer's fine-tuning; each of its epochs is the same work, so one is as good as the second."""
    torch.manual_seed(0)
    model = StockRegressor(shape, corpus.labels.shape[1], trains_front_end)
    clips = Clips(corpus.paths, corpus.labels)
    trainer = make_trainer(model, clips, waveform_collator(), batch_size, **arguments)
    epochs = time_an_epoch(trainer)
    return {"epochs": epochs, "updates": trainer.state.global_step}


def frozen_whisper(folder, paths, labels, num_classes, with_rnn, batch_size):
    """Time training and prediction of some clips under the frozen stock encoder, in seconds a clip."""
    torch.manual_seed(0)
    model = StockWhisperClassifier(folder, num_classes, with_rnn)
    clips = Clips(paths, labels)
    trainer = make_trainer(model, clips, whisper_collator(folder), batch_size)
    (epoch,) = time_an_epoch(trainer)
    began = perf_counter()
    trainer.predict(clips)
    predicting = perf_counter() - began
    return {
        "clips": len(paths),
        "training_a_clip": epoch["seconds"] / len(paths),
        "predicting_a_clip": predicting / len(paths),
    }
