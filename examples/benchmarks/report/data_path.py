"""From a corpus to its first batch, and through an epoch, against its size."""

from report.cells import table

MIB = 2**20


def data(results):
    section = results["data"]
    starts = section.get("starts", [])
    if not starts:
        return ""
    smallest = starts[0]["peak"]
    rows = [
        [
            _name(found),
            f"{found['seconds']:.2f}",
            f"{found['cpu_seconds']:.2f}",
            f"{found['epoch_seconds']:.2f}",
            f"{found['epoch_clips'] / found['epoch_seconds']:.0f}",
            f"{found['order_seconds']:.3f}",
            f"{(found['rss_corpus'] - found['rss_imports']) / MIB:.0f}",
            f"{found['peak'] / MIB:.0f}",
            f"{found['peak'] / smallest:.2f}x",
        ]
        for found in starts
    ]
    head = ["clips and start", "first batch, s", "of it CPU", "epoch of the loader, s", "clips / s"]
    head += ["order of an epoch, s", "the corpus in memory, MiB", "peak memory, MiB", "against the smallest"]
    return (
        f"Corpora in the A-VB layout, of links to {section['distinct']} clips of gamma-distributed length; half of the "
        "clips are trained on. Each is read by a new process as a training run reads it, without the model, the second "
        "time with the index of headers that the first left; the page cache stays warm. Imports are not counted. The "
        f"loader decodes, normalises and pads batches of {section['batch_size']} in the training's own process.\n\n"
        f"{table(head, rows)}{_training(section)}\n### Steps to the first batch, s\n\n{_steps(starts)}"
        f"\n### Padding\n\n{_padding(section, starts)}"
    )


def _training(section):
    if "training" not in section:
        return ""
    found = section["training"]
    return (
        f"\nTraining the small model of the quickstart on {found['clips']} of these clips, {found['waiting']:.1%} of "
        f"an epoch's {found['seconds']:.1f} s are spent waiting for batches, without a loader process and without a "
        "cache; what LARGE, BASE and a frozen backbone wait stands in their tables.\n"
    )


def _steps(starts):
    steps = list(starts[0]["steps"])
    rows = [[_name(found), *(f"{found['steps'][step]:.3f}" for step in steps)] for found in starts]
    return table(["clips and start", *steps], rows)


def _padding(section, starts):
    pools = list(starts[0]["waste"])
    rows = [
        [f"{found['clips']:,} clips", *(f"{found['waste'][pool]:.1%}" for pool in pools)]
        for found in starts
        if found["start"] == "first"
    ]
    return (
        f"Share of padding in an epoch's batches of {section['batch_size']}, by `--length_pool` (default 50; 1 makes "
        "batches at random), and in batches of all clips sorted, the same in every epoch:\n\n"
        + table(["corpus", *pools], rows)
    )


def _name(found):
    return f"{found['clips']:,} clips, {found['start']} start"
