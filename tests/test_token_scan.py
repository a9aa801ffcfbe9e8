"""The scan for tokens in what tests leave behind finds them."""

from token_scan import LARGEST, files_with_tokens


def test_the_scan_of_files_finds_what_it_looks_for(tmp_path):
    token = b"hf_" + b"Xy7Qw3Er9Tz5" * 2
    contents = {
        "plain": token, "deep/er/file.json": b'"' + token, "clean": b"hf_", "binary": b"\0" + token,
        "large": b"a" * LARGEST + token, "named12/file": token,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    found = {str(path.relative_to(tmp_path)) for path in files_with_tokens(tmp_path, {"named"})}
    assert found == {"plain", "deep/er/file.json"}
