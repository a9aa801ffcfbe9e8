"""Fine-tuning, its memory, the loss of the whole batch, and all of it on a GPU."""

from statistics import median

from report.cells import STOCK_A, STOCK_B, emulated, gib, mean_and_error, middle, ratio, seconds, table, waiting

DIFFERENT_WORK = (
    "\n(c) and ours beside it train the front end as well: that is other work than (a), (b) and the rest.\n"
)


def fine_tuning(section, results):
    found, scored = results[section], results.get("scores", {}).get("depths of demo", {}).get("arms", {})
    if "arms" not in found:
        return ""
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
            state_error(name, rounds, found.get("state_errors")),
        ]
        for name, rounds in arms.items()
        if "--freeze_blocks" not in name
    ]
    head = ["arm", "s an epoch", "first epoch, s (cache, timing)", "audio s / s", "speed against (a)", "against (b)"]
    head += ["waiting for input", "largest difference of states"]
    return (
        f"{describe(corpus)}{emulated(found)}\n\n{table(head, rows)}{DIFFERENT_WORK}\n{errors(found)}\n"
        "\nWhat each depth of `--freeze_blocks` costs, in fp32, one round, and what a small backbone of 12 blocks "
        f"scores at that depth on the demo corpus (task and seeds stand under *Scores*):\n\n"
        f"{depths(arms, baseline, scored)}"
    )


def depths(arms, baseline, scored):
    named = {"0": "ours, fp32"} | {name.split()[-1]: name for name in arms if "--freeze_blocks" in name}
    rows = [
        [
            depth,
            f"{seconds(arms[name]):.2f}",
            f"{middle(arms[name], 'cache_runtime'):.2f}",
            ratio(baseline, seconds(arms[name])),
            mean_and_error([run["score"] for run in scored[depth]]) if depth in scored else "",
        ]
        for depth, name in named.items()
        if name in arms
    ]
    return table(["--freeze_blocks", "s an epoch", "cache, s", "speed against (a)", "scores, UAR"], rows)


def errors(found):
    if "state_errors" not in found:
        return ""
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
        f"{corpus['padding_random']:.0%} of random batches, {corpus['padding_ours']:.0%} of ours."
    )


def first_epoch(name, rounds):
    if name.startswith("stock"):
        return ""
    parts = [median(result["epochs"][0]["seconds"] for result in rounds)]
    parts += [middle(rounds, name) for name in ("cache_runtime", "precision_runtime")]
    return f"{sum(parts):.2f} ({parts[1]:.2f}, {parts[2]:.2f})"


def state_error(name, rounds, found):
    precision = rounds[0].get("precision")
    chosen = f" ({precision} chosen)" if "auto" in name else ""
    return "" if precision is None or found is None else f"{found[precision]:.1e}{chosen}"


def memory(results):
    arms = results["memory"].get("arms", {})
    baseline = middle(arms[STOCK_A], "peak") if STOCK_A in arms else None
    rows = [[name, gib(rounds), ratio(middle(rounds, "peak"), baseline)] for name, rounds in arms.items()]
    return "Largest resident memory of a process that does nothing else, LARGE, imports and all included:\n\n" + table(
        ["arm", "GiB", "share of (a)"], rows
    )


def loss(results):
    section = results["loss"]
    arms = section.get("arms", {})
    baseline = next(map(seconds, arms.values()), None)
    rows = [[name, f"{seconds(rounds):.2f}", ratio(seconds(rounds), baseline)] for name, rounds in arms.items()]
    return (
        f"{section.get('size', 'BASE')}, fp32, 4 accumulated batches of 4. The CCC of 16 clips is no sum over batches "
        "of 4, so `batch` runs each batch once more, without gradient.\n\n"
        + table(["arm", "s an epoch", "time against micro"], rows)
    )


def gpu(results):
    section = results["gpu"]
    if "corpus" not in section:
        return ""
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
