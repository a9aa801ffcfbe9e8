"""Prediction beside the stock pipeline."""

from report.cells import emulated, middle, ratio, table

PEERS = ("pipeline, batch 1", "pipeline, batch 8")


def prediction(results):
    section = results["prediction"]
    if "clips" not in section:
        return ""
    arms, length = section["arms"], section["audio_seconds"]
    rows = [
        [
            name,
            f"{length / middle(rounds, 'seconds'):.2f}",
            *(ratio(middle(arms.get(peer, []) or [{}], "seconds"), middle(rounds, "seconds")) for peer in PEERS),
            f"{max(result['difference'] for result in rounds):.1e}",
        ]
        for name, rounds in arms.items()
    ]
    head = ["arm", "audio s / s", *(f"speed against {peer}" for peer in PEERS), "largest difference of scores"]
    return (
        f"{section['model']}; {section['clips']} ragged clips, {length:.1f} s, read from disk in every round. The "
        "pipeline takes the same model, in fp32. Differences are from the pipeline at batch 1, of scores in [0, 1] "
        f"that spread by {section['spread']:.2g} over the clips. Choosing our batch sizes took "
        f"{section['choosing']:.1f} s before, once.{emulated(section)}\n\n{table(head, rows)}"
    )
