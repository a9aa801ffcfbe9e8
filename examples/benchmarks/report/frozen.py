"""The frozen recipe."""

from statistics import median

from report.cells import middle, ratio, table, waiting


def frozen(results):
    section = results["frozen"]
    finished = {head: arms for head, arms in section.get("heads", {}).items() if "stock" in arms}
    if not finished:
        return ""
    clips = next(iter(finished.values()))["live"][0]["clips"]
    text = (
        f"{section['epochs']} epochs on {clips['train']:,} clips of EmoGator, Whisper's encoder frozen, "
        f"{clips['validation']:,} validation clips scored in each, fp32. The first pass takes "
        f"{median(section['first_pass']):.1f} s: all these clips, once; it is counted in every cached arm, though the "
        "second head finds the states of the first. The stock encoder takes inputs of 30 s; its head reads the frames "
        "of the clip alone. Totals that do not say *measured* are extrapolated, ours from whole epochs, stock's from "
        "the seconds that some clips took.\n\n"
    )
    rows = [row for head, arms in finished.items() for row in _heads(head, arms)]
    head = ["head", "arm", "s in all", "from", "own length gives", "the cache gives", "against stock"]
    return text + table([*head, "waiting for input"], rows)


def _heads(head, arms):
    arms = {name: results[: len(arms["stock"])] for name, results in arms.items()}  # of whole rounds
    stock, live, cached = (middle(arms[name], "total") for name in ("stock", "live", "cached"))
    waits = {name: f"{waiting(arms[name]):.1%}" for name in ("live", "cached")}
    measured = arms["cached"][0]["measured"]
    source = "measured" if measured == 20 else f"{measured} epochs"
    return [
        [head, "stock, 30 s", f"{stock:.0f}", f"{arms['stock'][0]['clips']} clips", "", "", "1.00x", ""],
        [head, "ours, --cache off", f"{live:.0f}", "2 epochs", ratio(stock, live), "", ratio(stock, live),
         waits["live"]],
        [head, "ours", f"{cached:.0f}", source, ratio(stock, live), ratio(live, cached), ratio(stock, cached),
         waits["cached"]],
    ]  # fmt: skip
