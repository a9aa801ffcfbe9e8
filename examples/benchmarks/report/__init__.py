"""From `benchmarks.json` to `benchmarks.md`: nothing is measured here."""

from functools import partial

from report.data_path import data
from report.fine_tuning import fine_tuning, gpu, loss, memory
from report.frozen import frozen
from report.prediction import prediction
from report.scores import scores

COMMAND = "python examples/benchmarks/run.py"
INTRODUCTION = f"""# Benchmarks

Made by `{COMMAND}`; every number is of the machine that stands under its heading. Timed arms
run in one process by turns (A B A B), on the same clips, with the same head, the same number of updates and the same
threads, prediction and the frozen backbone before fine-tuning, behind which memory lies ready for stock's long inputs
and large batches; numbers are medians over rounds; processors that only emulate bf16 run no arms in it. *Stock* is a
complete script as people write it (`peers.py`): transformers' Trainer and its default optimizer, the whole
`Wav2Vec2Model` with `output_hidden_states=True`, of which the head reads `hidden_states[12]`,
`Wav2Vec2FeatureExtractor` with attention mask, random batches, every clip decoded by soundfile in every epoch,
layerdrop and SpecAugment off, the head in float32. It gets one untimed update first. *Ours* is `avb train`; its first
epoch is told apart, with the seconds that filling the cache and timing two precisions took before it.
"""
# Section: (heading, what writes it from all results).
WRITERS = {
    "large": ("Fine-tuning LARGE", partial(fine_tuning, "large")),
    "base": ("Fine-tuning BASE", partial(fine_tuning, "base")),
    "memory": ("Memory", memory),
    "frozen": ("A frozen backbone", frozen),
    "loss": ("The loss of the whole effective batch", loss),
    "prediction": ("Prediction", prediction),
    "data": ("Cost against size", data),
    "scores": ("Scores", scores),
    "gpu": ("GPU", gpu),
}
# Sections whose arms run as often as there are rounds.
BY_TURNS = ("large", "base", "frozen", "loss", "prediction", "gpu")


def page(results):
    """Return the page, with those sections that there are results of."""
    parts = [INTRODUCTION]
    for name, (title, write) in WRITERS.items():
        if name in results:
            section = results[name]
            quick = "**A smoke test of tiny backbones: the numbers mean nothing.**\n\n" if section["quick"] else ""
            failed = f"**Failed: {section['error']}**\n\n" if "error" in section else ""
            text = section.get("note") or write(results)
            parts.append(f"## {title}\n\n{quick}{machine(name, section)}\n\n{failed}{text}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def machine(name, section):
    facts = section["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    gpu_name = f"{facts['gpu']}; " if facts["gpu"] else ""
    rounds = f", {section['rounds']} round{'s' if section['rounds'] > 1 else ''}" if name in BY_TURNS else ""
    took = f", {section['took'] / 60:.1f} min" if "took" in section else ", not finished"
    return (
        f"{gpu_name}{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, load before "
        f"{facts['load_before']}; {versions}; {facts['date']}{rounds}{took}."
    )
