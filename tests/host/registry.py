"""A registry with one image, from an OCI archive, for whoever knows the password. usage: registry.py ARCHIVE PORT"""

import base64, http.server, json, sys, tarfile

files = {}
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        if member.isfile():
            files[member.name.removeprefix("./")] = archive.extractfile(member).read()
manifest = json.loads(files["index.json"])["manifests"][0]
wanted = "Basic " + base64.b64encode(b"jane:secret").decode()


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, kind, body, headers={}):
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("Authorization") != wanted:
            return self.answer(401, "text/plain", b"", {"WWW-Authenticate": 'Basic realm="test"'})
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["v2"]:
            return self.answer(200, "application/json", b"{}")
        digest = parts[-1] if ":" in parts[-1] else manifest["digest"]
        blob = files.get("blobs/sha256/" + digest.removeprefix("sha256:"))
        if blob is None:
            return self.answer(404, "text/plain", b"")
        kind = manifest["mediaType"] if parts[-2] == "manifests" else "application/octet-stream"
        self.answer(200, kind, blob, {"Docker-Content-Digest": digest})

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Registry).serve_forever()
