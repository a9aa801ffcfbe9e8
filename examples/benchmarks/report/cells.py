"""Tables, and the numbers in their cells."""

from math import sqrt
from statistics import mean, median, stdev

STOCK_A, STOCK_B = "stock (a): front end frozen, fp32", "stock (b): front end frozen, bf16"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def emulated(section):
    """Return a sentence on bf16 where a section was run without it."""
    if section.get("runs_bf16", True):
        return ""
    return " This processor only emulates bf16: a matrix product takes far longer in it, so no arm was run in it."


def middle(rounds, key):
    return median(result.get(key, 0.0) for result in rounds)


def seconds(rounds):
    """Return the median seconds of the last epoch, by which caches are full and memory is in place."""
    return median(result["epochs"][-1]["seconds"] for result in rounds)


def waiting(rounds):
    """Return the median share of the last epoch that went by while batches were fetched."""
    return median(result["epochs"][-1]["waiting"] / result["epochs"][-1]["seconds"] for result in rounds)


def ratio(numerator, denominator):
    return "" if not numerator or not denominator else f"{numerator / denominator:.2f}x"


def gib(rounds):
    return f"{middle(rounds, 'peak') / 2**30:.2f}"


def standard_error(values):
    """Return the standard error of the mean; None of fewer than two values."""
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else None


def mean_and_error(values):
    error = standard_error(values)
    return f"{mean(values):.3f}" + ("" if error is None else f" ± {error:.3f}")


def number(value, digits=4):
    return "" if value is None else f"{value:.{digits}f}"
