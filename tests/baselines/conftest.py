"""Functionals that need no openSMILE, so that what is done with them is tested everywhere."""

import numpy as np
import pytest

from avb_hf.baselines import functionals


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    """An empty cache of this test's own; it does not exist yet."""
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def simple_functionals(cache_dir, monkeypatch):
    """Put in place of openSMILE rate of zero crossings and level, before constants; lists the clips computed."""
    computed = []

    class Simple:
        def __init__(self, feature_set):
            self.feature_set = feature_set

        def __call__(self, clip):
            computed.append(clip)
            features = np.zeros(self.feature_set.num_features, dtype=np.float32)
            features[:2] = np.mean(np.diff(np.sign(clip)) != 0), np.sqrt(np.mean(clip**2))
            return features

    monkeypatch.setattr(functionals, "Functionals", Simple)
    monkeypatch.setattr("avb_hf.baselines.functionals.version", lambda package: "1.2.3")
    return computed
