"""A stand-in for the Hub on loopback: repositories of models and datasets, private ones, commits, LFS, downloads.

`with StandInHub() as hub` serves until the block ends, and then fails if a token was pushed. A subprocess finds it by
`hub.environment(home)`, since HF_ENDPOINT is read at import; the test's own process by `hub.enter(monkeypatch, home)`.
"""

import hashlib
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from stand_in_server import Handler, Server

from avb_hf.data.hub_account import LIKE_A_TOKEN

TOKEN = "hf_" + "StandIn" * 3 + "aB3dE6gH9jK"  # a token's form


@dataclass
class Commit:
    """A commit: its hash, its title, and every file of the repository as of it, by path."""

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A repository: whether it is private, and the commits of its branches, oldest first."""

    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch or hash names."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((made for line in self.branches.values() for made in line if made.oid == revision), None)


class StandInHub:
    """The server.

    Attributes:
        url: What HF_ENDPOINT must be.
        repos: Repositories by `user/name`, those of datasets by `datasets/user/name`.
        calls: Method, path and Authorization header of each request.
        largest: Bytes of the largest file that is taken.
        scopes: Names of the owners and repositories that a token with the role `fineGrained` writes to.
        groups: The user's roles by organisation.
    """

    def __init__(self, user: str = "tester", token: str = TOKEN, role: str = "write") -> None:
        self.user, self.token, self.role = user, token, role
        self.repos: dict[str, Repo] = {}
        self.calls: list[tuple[str, str, str | None]] = []
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.largest, self.scopes, self.groups = float("inf"), [user], {}
        self._pass, self._cut = float("inf"), 0.0
        self._refusals: dict[str, list] = {}

    def __enter__(self) -> "StandInHub":
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        if kind is None:
            self.require_no_token()

    def require_no_token(self) -> None:
        """Fail if any commit of any repository holds what looks like a token."""
        for key, repo in self.repos.items():
            for commit in (commit for line in repo.branches.values() for commit in line):
                found = [name for name, content in commit.files.items() if LIKE_A_TOKEN.search(content)]
                assert not found, f"{key}, commit {commit.title!r}: a token in {found}"

    def commits(self, repo: str, branch: str = "main") -> list[Commit]:
        """Commits of a repository, oldest first, the empty one of its creation included; none if it is not there."""
        return self.repos[repo].branches.get(branch, []) if repo in self.repos else []

    def fail_after(self, uploads: int, times: float = float("inf")) -> None:
        """Let so many uploads pass, each a large file or a commit, and cut the next `times` off in their middle."""
        self._pass, self._cut = uploads, times

    def refuse(self, part: str, status: int, message: str, times: float = float("inf")) -> None:
        """Answer the next `times` requests with `part` in their paths by an error."""
        self._refusals[part] = [times, (status, message)]

    def find_refusal(self, path: str) -> tuple[int, str] | None:
        """The error by which a request is to be answered now."""
        for part, refusal in self._refusals.items():
            if part in path and refusal[0] > 0:
                refusal[0] -= 1
                return refusal[1]
        return None

    @property
    def account(self) -> dict:
        """What it says of who is logged in."""
        scoped = [{"entity": {"type": "user", "name": name}, "permissions": ["repo.write"]} for name in self.scopes]
        token = {"displayName": "test", "role": self.role, "fineGrained": {"scoped": scoped}}
        groups = [{"name": name, "roleInOrg": role} for name, role in self.groups.items()]
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "name": self.user, "orgs": groups, "auth": auth}

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables by which a subprocess is logged in here, with caches of its own below `home`."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "DISABLE_SAFETENSORS_CONVERSION": "1",
        }  # fmt: skip

    def enter(self, monkeypatch, home: Path) -> None:
        """Turn this process to the stand-in, logged in, with caches of its own below `home`, until the test ends."""
        import huggingface_hub.utils._http
        import transformers.dynamic_module_utils
        import transformers.utils.hub
        from huggingface_hub import constants

        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        patches = {
            "ENDPOINT": self.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(home / "token"),
        }  # fmt: skip
        for name, value in patches.items():
            monkeypatch.setattr(constants, name, value)
        for module in (transformers.utils.hub, transformers.dynamic_module_utils):
            monkeypatch.setattr(module, "HF_MODULES_CACHE", str(home / "modules"))
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
        if "datasets.config" in sys.modules:
            config = sys.modules["datasets.config"]
            for name, value in (("HF_ENDPOINT", self.url), ("HF_HUB_OFFLINE", False)):
                monkeypatch.setattr(config, name, value)
            monkeypatch.setattr(config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
            monkeypatch.setattr(config, "HUB_DATASETS_URL", self.url + "/datasets/{repo_id}/resolve/{revision}/{path}")

    def cuts_off(self) -> bool:
        """Whether the upload that begins now is to be cut off."""
        if self._pass > 0:
            self._pass -= 1
            return False
        self._cut -= 1
        return self._cut >= 0

    def create(self, key: str, private: bool) -> bool:
        """Make a repository with an empty first commit, unless it is there; tell whether it was."""
        if key in self.repos:
            return True
        self.repos[key] = Repo(private)
        self.add_commit(self.repos[key], "main", "initial commit", {})
        return False

    def add_commit(self, repo: Repo, branch: str, title: str, files: dict[str, bytes]) -> Commit:
        """Put a commit at the end of a branch."""
        line = repo.branches.setdefault(branch, [])
        oid = hashlib.sha1(f"{id(repo)} {branch} {len(line)} {title}".encode()).hexdigest()
        line.append(Commit(oid, title, files))
        return line[-1]
