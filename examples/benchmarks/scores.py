"""Do speed-ups move scores? Two recipes with and without each of them, and at each depth of freezing."""

import json
import tempfile
from pathlib import Path

import frozen
import ours
from comparison import MANY_SEEDS, SEEDS, Arm, Comparison, broken_claims

PLAIN = ["--length_pool", 1, "--cache", "off", "--precision", "fp32", "--optim", "adamw_torch"]
CACHED = ["--cache", "auto"]
# The cache changes nothing, as the second arm shows, and makes the others cheaper.
SPEED_UPS = {
    "--cache auto": Arm(CACHED, claims_same_bytes=True),
    "--activation_checkpointing": Arm([*CACHED, "--activation_checkpointing"], claims_same_bytes=True),
    "--optim adamw_torch_fused": Arm([*CACHED, "--optim", "adamw_torch_fused"], seeds=MANY_SEEDS),
    "--precision bf16": Arm([*CACHED, "--precision", "bf16"], seeds=MANY_SEEDS),
    "--length_pool 50": Arm([*CACHED, "--length_pool", 50], seeds=MANY_SEEDS),
}
EMOGATOR_CLIPS = 720
EMOGATOR_EPOCHS, LIVE_EPOCHS, EMOGATOR_DEPTH_EPOCHS = 20, 2, 2
EMOGATOR = {
    "our defaults": Arm(seeds=MANY_SEEDS),
    "--cache_dtype float16": Arm(["--cache_dtype", "float16"]),
    "--cache_dtype bfloat16": Arm(["--cache_dtype", "bfloat16"]),
    "--precision bf16": Arm(["--precision", "bf16"], seeds=MANY_SEEDS),
    "--optim adamw_torch": Arm(["--optim", "adamw_torch"], seeds=MANY_SEEDS),
    "--length_pool 1": Arm(["--length_pool", 1], seeds=MANY_SEEDS),
}
LIVE = {
    "--cache auto": Arm(CACHED, seeds=SEEDS[:1]),
    "--cache off": Arm(["--cache", "off"], claims_same_bytes=True, seeds=SEEDS[:1]),
}
RECIPE_EPOCHS, DEMO_DEPTH_EPOCHS = 16, 8
DEMO_DEPTHS = {str(depth): Arm(["--freeze_blocks", depth]) for depth in (0, 4, 8, 12)}
EMOGATOR_DEPTHS = {str(depth): Arm(["--freeze_blocks", depth], seeds=SEEDS[:1]) for depth in (0, 2, 4, 6)}


def on_this_processor(arms, options):
    """Leave out what computes in bf16 if that would only be emulated."""
    runs_bf16 = options.quick or ours.runs_bf16()
    return {name: arm for name, arm in arms.items() if runs_bf16 or "bf16" not in arm.flags}


def scores(options, section, save):
    """Train and test all arms.

    Raises:
        ValueError: At the end, if an arm that claims the first one's predictions has others.
    """
    comparison = Comparison(options, section, save)
    with tempfile.TemporaryDirectory() as folder:
        on_demo(options, comparison, Path(folder))
    if options.emogator and options.whisper:
        on_emogator(options, comparison)
    else:
        section["missing"] = "EmoGator: not measured, --emogator and --whisper name no folders."
        save()
    if broken := broken_claims(section):
        raise ValueError(f"these claim the predictions of the first arm and have others: {'; '.join(broken)}")


def on_demo(options, comparison, folder):
    """Compare on the demo corpus, which is written once into a cache of its own."""
    cache = folder / "cache"
    bounds = ["--max_train_samples", 32, "--max_eval_samples", 16] if options.quick else []
    facts = {"epochs": epochs(options, RECIPE_EPOCHS)}
    recipe = ["quickstart", "--freeze", "feature_encoder", *bounds, "--num_train_epochs", facts["epochs"], *PLAIN]
    speed_ups = on_this_processor(SPEED_UPS, options)
    all_flags = [flag for arm in speed_ups.values() for flag in arm.flags]
    arms = {"none of them": Arm(seeds=MANY_SEEDS), **speed_ups, "all of them": Arm(all_flags, seeds=MANY_SEEDS)}
    comparison.compare("demo", facts, recipe, arms, cache)

    options.say("depths of demo: training a backbone of 12 blocks")
    facts = {"pretraining_epochs": epochs(options, RECIPE_EPOCHS), "epochs": epochs(options, DEMO_DEPTH_EPOCHS)}
    recipe = ["quickstart", *bounds, "--num_train_epochs", facts["pretraining_epochs"]]
    backbone = make_backbone(recipe, cache, folder / "backbone")
    recipe = ["quickstart", "--model_name_or_path", backbone, "--task", "type", "--freeze", "feature_encoder", *bounds]
    recipe += ["--num_train_epochs", facts["epochs"]]
    comparison.compare("depths of demo", facts, recipe, DEMO_DEPTHS, cache)


def on_emogator(options, comparison):
    """Compare on EmoGator's clips, with the states that the section of the frozen recipe left if it ran."""
    bounds = frozen.bounds(options) or ["--max_train_samples", EMOGATOR_CLIPS]
    head = [*frozen.recipe(options), "--rnn", "none", "--pooling", "mean"]
    tuned = ["emogator", "--data_dir", options.emogator, "--model_name_or_path", options.whisper]
    for name, recipe, arms, count in (
        ("emogator", head, on_this_processor(EMOGATOR, options), EMOGATOR_EPOCHS),
        ("emogator, live", head, LIVE, LIVE_EPOCHS),
        ("depths of emogator", tuned, EMOGATOR_DEPTHS, EMOGATOR_DEPTH_EPOCHS),
    ):
        facts = {"epochs": epochs(options, count), "clips": bounds[1]}
        recipe = [*recipe, "--num_train_epochs", facts["epochs"], *bounds]
        comparison.compare(name, facts, recipe, arms, options.states, by_contributor=True)


def epochs(options, count):
    return 1 if options.quick else count


def make_backbone(recipe, cache, folder):
    """Train the recipe's model with 12 blocks on its task, and save its backbone as one of stock transformers."""
    from transformers import Wav2Vec2Model

    from avb_hf import Wav2Vec2ForVocalBurst
    from avb_hf.cli.flags import recipe_flags

    words = recipe_flags(recipe[0])
    shape = json.loads(words[words.index("--encoder_config") + 1]) | {"num_hidden_layers": 12}
    with tempfile.TemporaryDirectory() as run:
        out = Path(run) / "run"
        ours.train([*recipe, "--encoder_config", json.dumps(shape), "--eval_strategy", "no"], cache, out)
        model = Wav2Vec2ForVocalBurst.from_pretrained(out)
    stock = Wav2Vec2Model(model.config.encoder_config)
    # The LayerNorm behind the last block is the stock model's own; the head reads what is before it.
    unknown = stock.load_state_dict(model.encoder.state_dict(), strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"these weights are no stock backbone's: {unknown}")
    stock.save_pretrained(folder)
    return folder
