import gc
from typing import get_args

import pytest

from avb_hf.data.arguments import DataArguments, SourceName
from avb_hf.data.sources import SOURCES, infer_task, load_corpus
from avb_hf.tasks import TASKS


def test_sources_are_the_choices_of_the_flag():
    assert tuple(SOURCES) == get_args(SourceName)


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_infers_and_lists(name):
    assert callable(SOURCES[name].infer_task)
    assert callable(SOURCES[name].list_clips)


@pytest.mark.parametrize("flag", ["split_file", "manifest", "split_column", "label_columns", "label_range"])
def test_a_flag_of_another_source_is_an_error(flag):
    args = DataArguments(source="avb", task="high", **{flag: "x"})
    for call in (lambda: infer_task(args), lambda: load_corpus(TASKS["high"], args)):
        with pytest.raises(ValueError, match=f"--{flag} belongs to --source"):
            call()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(corpus_dir, tmp_path, is_enabled):
    try:
        (gc.enable if is_enabled else gc.disable)()
        load_corpus(TASKS["high"], DataArguments(data_dir=str(corpus_dir)))
        with pytest.raises(ValueError, match="does not exist"):
            load_corpus(TASKS["high"], DataArguments(data_dir=str(tmp_path)))
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()
