"""What the stand-in for the Hub answers to each request."""

import base64
import binascii
import hashlib
import json
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".onnx")
KINDS = {"models": "", "datasets": "datasets/"}
REPO = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)"
API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+?)(?:/(?P<verb>[a-z-]+)(?:/(?P<rest>.+))?)?"


class Server(ThreadingHTTPServer):
    """Serves each request in a thread of its own."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing of clients that went away."""


class _Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, status, message, code=""):
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; `hub` is what is asked about."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_any(self):
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        is_upload = self.command == "PUT" or "/commit/" in path
        with self.hub.lock:
            self.hub.calls.append((self.command, path, self.headers.get("Authorization")))
            cut = is_upload and self.hub.cuts_off()
        if cut:
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = self._read_body()
        try:
            with self.hub.lock:
                self._route(path, query, data)
        except _Refused as refused:
            code = {"X-Error-Code": refused.code} if refused.code else {}
            self.reply({"error": str(refused)}, refused.status, **code)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any

    def _read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, content=None, status=200, body=None, **headers):
        body = json.dumps(content).encode() if body is None else body
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def is_known(self):
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _route(self, path, query, data):
        if refusal := self.hub.find_refusal(path):
            raise _Refused(*refusal)
        for pattern, answer in ROUTES.items():
            if match := re.fullmatch(pattern, path):
                return answer(self, match, query, data)
        raise _Refused(404, f"{self.command} {path} is not in the stand-in")

    def find_repo(self, kind, name):
        repo = self.hub.repos.get(f"{kind}{name}")
        if repo is None or (repo.private and not self.is_known):
            raise _Refused(404 if self.is_known else 401, "Repository not found", "RepoNotFound")
        return repo

    def find_commit(self, repo, revision):
        commit = repo.find(revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def require_writer(self):
        if not self.is_known:
            raise _Refused(401, "Invalid username or password.")
        if self.hub.role == "read":
            raise _Refused(403, "You don't have the rights to create a model under this namespace")

    def whoami(self, match, query, data):
        if not self.is_known:
            raise _Refused(401, "Invalid username or password.")
        self.reply(self.hub.account)

    def validate_card(self, match, query, data):
        header = re.match(r"---\n(.*?)\n---\n", json.loads(data)["content"], re.DOTALL)
        try:
            fields = yaml.safe_load(header[1]) if header else {}
        except yaml.YAMLError as error:
            return self.reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
        indexed = [result for model in fields.get("model-index", ()) for result in model["results"]]
        lacking = [result for result in indexed if not {"task", "dataset", "metrics"} <= result.keys()]
        if lacking:
            return self.reply({"errors": [{"message": f"model-index lacks keys: {lacking}"}], "warnings": []}, 400)
        return self.reply({"errors": [], "warnings": []})

    def create_repo(self, match, query, data):
        self.require_writer()
        asked = json.loads(data)
        owner = asked.get("organization") or self.hub.user
        if owner != self.hub.user:
            raise _Refused(403, f"You don't have the rights to create a model under the namespace {owner}")
        name, kind = f"{owner}/{asked['name']}", KINDS[f"{asked.get('type') or 'model'}s"]
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        exists = self.hub.create(f"{kind}{name}", private)
        self.reply({"url": f"{self.hub.url}/{kind}{name}", "name": name, "id": name}, 409 if exists else 200)

    def lfs_batch(self, match, query, data):
        self.require_writer()
        wanted = json.loads(data)["objects"]
        for item in wanted:
            if item["size"] > self.hub.largest:
                item["error"] = {"code": 413, "message": "the file is too large"}
            elif item["oid"] not in self.hub.blobs:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/_lfs/{item['oid']}"}}
        self.reply({"transfer": "basic", "objects": wanted})

    def take_blob(self, match, query, data):
        if hashlib.sha256(data).hexdigest() != match[1]:
            raise _Refused(400, "the content is not what its digest says")
        self.hub.blobs[match[1]] = data
        self.reply({})

    def resolve(self, match, query, data):
        repo = self.find_repo(match["kind"] or "", match["name"])
        commit = self.find_commit(repo, match["revision"])
        about = {"X-Repo-Commit": commit.oid}
        if match["path"] not in commit.files:
            return self.reply({}, 404, **about, **{"X-Error-Code": "EntryNotFound"})
        content = commit.files[match["path"]]
        about |= {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self.reply(body=content, **about | {"Content-Type": "application/octet-stream"})
        start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        about["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self.reply(body=content[start : end + 1], status=206, **about)

    def api(self, match, query, data):
        repo = self.find_repo(KINDS[match["kind"]], match["name"])
        verb, rest = match["verb"] or "revision", match["rest"] or "main"
        answer = VERBS.get(verb)
        if answer is None:
            raise _Refused(404, f"{verb} is not in the stand-in")
        return answer(self, repo, match["name"], rest, query, data)

    def describe(self, repo, name, revision, query, data):
        commit = self.find_commit(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        about = {"private": repo.private, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        self.reply({"id": name, "modelId": name, "sha": commit.oid} | about)

    def preupload(self, repo, name, revision, query, data):
        present, answers = self.find_commit(repo, revision).files, []
        for path in (file["path"] for file in json.loads(data)["files"]):
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = _oid(present.get(path), mode)
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply({"files": answers})

    def take_commit(self, repo, name, branch, query, data):
        self.require_writer()
        head = self.find_commit(repo, branch)
        files, title = dict(head.files), ""
        for line in data.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, head.oid):
                    raise _Refused(412, "A commit has happened since. Please refresh and try again.")
            else:
                STEPS[step["key"]](self.hub, files, value)
        made = self.hub.add_commit(repo, branch, title, files)
        url = f"{self.hub.url}/{name}/commit/{made.oid}"
        self.reply({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def create_branch(self, repo, name, branch, query, data):
        self.require_writer()
        if branch in repo.branches:
            raise _Refused(409, "Reference already exists")
        start = self.find_commit(repo, json.loads(data or b"{}").get("startingPoint") or "main")
        repo.branches[branch] = [start]
        self.reply({})

    def list_tree(self, repo, name, rest, query, data):
        revision, _, folder = rest.partition("/")
        files = self.find_commit(repo, revision).files
        start, is_deep = f"{folder}/" if folder else "", query.get("recursive", [""])[0].lower() in ("true", "1")
        rows = {}
        for path in sorted(path for path in files if path.startswith(start)):
            below, slash, _ = path[len(start) :].partition("/")
            if slash and not is_deep:
                rows[below] = {"type": "directory", "path": start + below, "oid": "0" * 40, "size": 0}
            else:
                rows[path] = _describe_file(path, files[path])
        if folder and not rows:
            raise _Refused(404, f"{folder} does not exist", "EntryNotFound")
        self.reply(list(rows.values()))

    def list_paths(self, repo, name, revision, query, data):
        files = self.find_commit(repo, revision).files
        asked = json.loads(data) if data[:1] == b"{" else parse_qs(data.decode())
        self.reply([_describe_file(path, files[path]) for path in asked.get("paths", []) if path in files])

    def list_refs(self, repo, name, rest, query, data):
        lines = repo.branches.items()
        refs = [{"name": key, "ref": f"refs/heads/{key}", "targetCommit": line[-1].oid} for key, line in lines]
        self.reply({"branches": refs, "converts": [], "tags": []})


def _git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(content, mode):
    """What the client compares its own file with; None if there is none."""
    if content is None:
        return None
    return hashlib.sha256(content).hexdigest() if mode == "lfs" else _git_oid(content)


def _describe_file(path, content):
    row = {"type": "file", "path": path, "oid": _git_oid(content), "size": len(content)}
    if path.endswith(LARGE):
        row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return row


def _put(hub, files, value):
    try:
        files[value["path"]] = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise _Refused(400, f"{value['path']} is not base64: {error}") from error


def _put_large(hub, files, value):
    if value["oid"] not in hub.blobs:
        raise _Refused(400, f"{value['path']}: its content was never uploaded")
    files[value["path"]] = hub.blobs[value["oid"]]


def _delete(hub, files, value):
    for path in [path for path in files if path == value["path"] or path.startswith(value["path"].rstrip("/") + "/")]:
        del files[path]


STEPS = {"file": _put, "lfsFile": _put_large, "deletedFile": _delete, "deletedFolder": _delete}
VERBS = {
    "revision": Handler.describe, "preupload": Handler.preupload, "commit": Handler.take_commit,
    "branch": Handler.create_branch, "tree": Handler.list_tree, "paths-info": Handler.list_paths,
    "refs": Handler.list_refs,
}  # fmt: skip
ROUTES = {
    r"/api/whoami-v2": Handler.whoami,
    r"/api/validate-yaml": Handler.validate_card,
    r"/api/repos/create": Handler.create_repo,
    r"/_lfs/([0-9a-f]{64})": Handler.take_blob,
    REPO + r"\.git/info/lfs/objects/batch": Handler.lfs_batch,
    REPO + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)": Handler.resolve,
    API: Handler.api,
}
