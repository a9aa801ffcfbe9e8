"""What a corpus holds, in one digest a split."""

import hashlib

import numpy as np
from datasets import DatasetDict

from avb_hf.data.contents import file_stamp
from avb_hf.data.tables import as_texts


def fingerprint(splits: DatasetDict) -> dict[str, str]:
    """Digest each split's clips in their order: File_IDs, labels, durations and sizes of the files that hold them.

    Where the corpus lies, and when its files were written, make no difference.

    Args:
        splits: The corpus, as `make_splits` builds it.

    Returns:
        SHA-256 of each split, as hexadecimal text.
    """
    digests = {}
    for name, split in splits.items():
        texts = split.with_format("arrow", columns=["file_id", "path"])[:]
        columns = split.with_format("numpy", columns=["labels", "duration"])[:]
        digest = hashlib.sha256("\0".join(as_texts(texts["file_id"])).encode())
        sizes = [file_stamp(path)[0] for path in as_texts(texts["path"])]
        for numbers in (columns["labels"], columns["duration"], sizes):
            digest.update(np.ascontiguousarray(numbers, dtype="<f8").data)
        digests[name] = digest.hexdigest()
    return digests
