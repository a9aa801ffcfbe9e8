"""From `benchmarks.json` to `benchmarks.md`: nothing is measured here."""

from statistics import median

COMMAND = "python examples/benchmarks/run.py"
INTRODUCTION = f"""# Benchmarks

Made by `{COMMAND}`; every number is of the machine that stands under its heading. Arms run in one process
by turns (A B A B), on the same clips, with the same head, the same number of updates and the same threads; numbers are
medians over rounds. *Stock* is a complete script as people write it (`peers.py`): transformers' Trainer and its default
optimizer, the whole `Wav2Vec2Model` with `output_hidden_states=True`, of which the head reads `hidden_states[12]`,
`Wav2Vec2FeatureExtractor` with attention mask, random batches, every clip decoded by soundfile in every epoch,
layerdrop and SpecAugment off, the head in float32. It gets one untimed update first. *Ours* is `avb train`; its first
epoch is told apart, with the seconds that filling the cache and timing two precisions took before it.
"""
DIFFERENT_WORK = (
    "\n(c) and ours beside it train the front end as well: that is other work than (a), (b) and the rest.\n"
)
STOCK_A, STOCK_B = "stock (a): front end frozen, fp32", "stock (b): front end frozen, bf16"


def page(results):
    """Return the page, with those sections that there are results of."""
    parts = [INTRODUCTION]
    for name, (title, write) in WRITERS.items():
        if name in results:
            section = results[name]
            quick = "**A smoke test of tiny backbones: the numbers mean nothing.**\n\n" if section["quick"] else ""
            parts.append(f"## {title}\n\n{quick}{machine(section)}\n\n{section.get('note') or write(section)}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def machine(section):
    facts = section["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    gpu = f"{facts['gpu']}; " if facts["gpu"] else ""
    rounds = f"{section['rounds']} round{'s' if section['rounds'] > 1 else ''}"
    took = f", {section['took'] / 60:.1f} min" if "took" in section else ", not finished"
    return (
        f"{gpu}{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, load before {facts['load_before']}; "
        f"{versions}; {facts['date']}, {rounds}{took}."
    )


def fine_tuning(section):
    sizes = {size: found for size, found in section.items() if isinstance(found, dict) and "arms" in found}
    return "\n".join(_fine_tuning_of(size, found) for size, found in sizes.items())


def _fine_tuning_of(size, found):
    corpus, arms = found["corpus"], found["arms"]
    baseline, in_bf16 = (seconds(arms[name]) if name in arms else None for name in (STOCK_A, STOCK_B))
    rows = [
        [
            name,
            f"{seconds(rounds):.2f}",
            first_epoch(name, rounds),
            f"{corpus['seconds'] / seconds(rounds):.2f}",
            ratio(baseline, seconds(rounds)),
            ratio(in_bf16, seconds(rounds)),
            f"{waiting(rounds):.1%}",
            state_error(name, rounds, found["state_errors"]),
        ]
        for name, rounds in arms.items()
        if "--freeze_blocks" not in name
    ]
    head = ["arm", "s an epoch", "first epoch, s (cache, timing)", "audio s / s", "speed against (a)", "against (b)"]
    head += ["waiting for input", "largest difference of states"]
    return (
        f"### {size}\n\n{describe(corpus)}\n\n{table(head, rows)}{DIFFERENT_WORK}\n{errors(found)}\n"
        f"\nWhat each depth of `--freeze_blocks` costs, in fp32, one round:\n\n{depths(arms, baseline)}"
    )


def depths(arms, baseline):
    named = {"0": "ours, fp32"} | {name.split()[-1]: name for name in arms if "--freeze_blocks" in name}
    rows = [
        [
            depth,
            f"{seconds(arms[name]):.2f}",
            f"{middle(arms[name], 'cache_runtime'):.2f}",
            ratio(baseline, seconds(arms[name])),
        ]
        for depth, name in named.items()
        if name in arms
    ]
    return table(["--freeze_blocks", "s an epoch", "cache, s", "speed against (a)"], rows)


def errors(found):
    states = found["state_errors"]
    text = (
        "States are those of block 12 on the same weights and clips, against the stock model's of each clip alone in "
        f"fp32, the largest of which is {states['largest_state']:.3g}. Ours differ by at most {states['fp32']:.1e} in "
        f"fp32, by {states['fp32, padded batch']:.1e} in a padded batch, by {states['bf16']:.1e} under bf16."
    )
    if "bf16_score_difference" in found:
        text += (
            " After the same updates in fp32 and bf16, validation scores (in [0, 1]) differ by at most "
            f"{found['bf16_score_difference']:.1e}."
        )
    return text


def describe(corpus):
    return (
        f"{corpus['clips']} clips, {corpus['seconds']:.1f} s, batches of {corpus['batch_size']}. Padding: "
        f"{corpus['padding_random']:.0%} of random batches, {corpus['padding_sorted']:.0%} of batches sorted by length "
        "as ours (2% where a corpus fills pools of 50 batches)."
    )


def memory(section):
    arms = section["arms"]
    baseline = middle(arms[STOCK_A], "peak") if STOCK_A in arms else None
    rows = [[name, gib(rounds), ratio(middle(rounds, "peak"), baseline)] for name, rounds in arms.items()]
    return "Largest resident memory of a process that does nothing else, LARGE, imports and all included:\n\n" + table(
        ["arm", "GiB", "share of (a)"], rows
    )


def frozen(section):
    first = f"The first pass takes {section['first_pass']:.1f} s" if "first_pass" in section else "Not measured yet"
    text = (
        f"{section['epochs']} epochs on EmoGator's clips, Whisper's encoder frozen, the validation split scored in "
        f"each, fp32. {first}: all clips of all splits, once; it is counted in every cached arm, though the second "
        "head finds the states of the first. The stock encoder takes inputs of 30 s; its head reads the frames of the "
        "clip alone. Totals that do not say *measured* are extrapolated, ours from whole epochs, stock's from the "
        "seconds that some clips took.\n\n"
    )
    finished = {head: arms for head, arms in section["heads"].items() if "total" in arms.get("stock", {})}
    rows = [row for head, arms in finished.items() for row in _heads(head, arms)]
    head = ["head", "arm", "s in all", "from", "own length gives", "the cache gives", "against stock"]
    return text + table(head, rows)


def _heads(head, arms):
    stock, live, cached = (arms[name]["total"] for name in ("stock", "live", "cached"))
    measured = arms["cached"]["measured"]
    source = "measured" if measured == 20 else f"{measured} epochs"
    return [
        [head, "stock, 30 s", f"{stock:.0f}", f"{arms['stock']['clips']} clips", "", "", "1.00x"],
        [head, "ours, --cache off", f"{live:.0f}", "2 epochs", ratio(stock, live), "", ratio(stock, live)],
        [head, "ours", f"{cached:.0f}", source, ratio(stock, live), ratio(live, cached), ratio(stock, cached)],
    ]


def loss(section):
    arms = section["arms"]
    baseline = next((seconds(rounds) for rounds in arms.values()), None)
    rows = [[name, f"{seconds(rounds):.2f}", ratio(seconds(rounds), baseline)] for name, rounds in arms.items()]
    return (
        f"{section['size']}, fp32, 4 accumulated batches of 4. The CCC of 16 clips is no sum over batches of 4, so "
        "`batch` runs each batch once more, without gradient.\n\n"
        + table(["arm", "s an epoch", "time against micro"], rows)
    )


def gpu(section):
    corpus, ceiling = section["corpus"], section["ceiling"]
    rows = [_gpu_row(name, rounds, corpus, ceiling) for name, rounds in section["arms"].items()]
    rows += [_gpu_row(name, [found], corpus, ceiling) for name, found in section["largest"].items() if found]
    head = ["arm", "batch", "clips / s", "useful TFLOP/s", "of the ceiling", "memory, GiB", "waiting for input"]
    return (
        f"LARGE, {corpus['clips']} clips, {corpus['seconds']:.0f} s. A product of 8192 x 8192 bf16 matrices reaches "
        f"{ceiling / 1e12:.0f} TFLOP/s. Useful are blocks 1 to 12 forward and backward on true frames, whatever an arm "
        "computes besides. Larger batches are those that fit, by doubling.\n\n" + table(head, rows)
    )


def _gpu_row(name, rounds, corpus, ceiling):
    took = seconds(rounds)
    rate = corpus["useful_flops"] / took
    cells = [f"{corpus['clips'] / took:.1f}", f"{rate / 1e12:.1f}", f"{rate / ceiling:.1%}", gib(rounds)]
    return [name, str(rounds[0]["batch_size"]), *cells, f"{waiting(rounds):.1%}"]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def middle(rounds, key):
    return median(result.get(key, 0.0) for result in rounds)


def seconds(rounds):
    """Return the median seconds of the last epoch, by which caches are full and memory is in place."""
    return median(result["epochs"][-1]["seconds"] for result in rounds)


def waiting(rounds):
    """Return the median share of the last epoch that went by while batches were fetched."""
    return median(result["epochs"][-1]["waiting"] / result["epochs"][-1]["seconds"] for result in rounds)


def first_epoch(name, rounds):
    if name.startswith("stock"):
        return ""
    parts = [median(result["epochs"][0]["seconds"] for result in rounds)]
    parts += [middle(rounds, name) for name in ("cache_runtime", "precision_runtime")]
    return f"{sum(parts):.2f} ({parts[1]:.2f}, {parts[2]:.2f})"


def state_error(name, rounds, found):
    precision = rounds[0].get("precision")
    chosen = f" ({precision} chosen)" if "auto" in name else ""
    return "" if precision is None else f"{found[precision]:.1e}{chosen}"


def ratio(numerator, denominator):
    return "" if not numerator or not denominator else f"{numerator / denominator:.2f}x"


def gib(rounds):
    return f"{middle(rounds, 'peak') / 2**30:.2f}"


WRITERS = {
    "finetune": ("Fine-tuning", fine_tuning),
    "memory": ("Memory", memory),
    "frozen": ("A frozen backbone", frozen),
    "loss": ("The loss of the whole effective batch", loss),
    "gpu": ("GPU", gpu),
}
