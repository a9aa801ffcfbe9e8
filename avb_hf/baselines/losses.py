"""Which losses fit which kind of problem."""

from avb_hf.tasks import LossName

# The one that the paper's baselines were trained with stands first.
FITTING_LOSSES: dict[str, tuple[LossName, ...]] = {
    "regression": ("mse", "ccc"),
    "single_label_classification": ("cross_entropy",),
}
