"""What upstream's test image does, as far as the behaviours that are tried here need it.

usage: agnhost.py netexec HTTP-PORT UDP-PORT | porter | liveness PORT | pause
       agnhost.py ask TIMES URL      each answer in a line of its own, - for what cannot be reached
       agnhost.py dig TYPE NAME SERVER      the names and addresses of the answer
"""

import http.server, json, os, signal, socket, struct, subprocess, sys, threading, time
import urllib.parse, urllib.request

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
seen = {}


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text, code=200, kind="text/plain", headers={}):
        body = text.encode()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.route(url.path, query)

    def log_message(self, *words):
        pass


for verb in ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]:
    setattr(Handler, "do_" + verb, Handler.handle_one)


def client(address):
    return address[0].removeprefix("::ffff:")


class NetExec(Handler):
    def route(self, path, query):
        if path in ("/hostname", "/hostName", "/"):
            return self.answer(socket.gethostname())
        if path == "/clientip":
            return self.answer("%s:%d" % (client(self.client_address), self.client_address[1]))
        if path == "/echo":
            print("received", query["msg"], flush=True)
            return self.answer(query["msg"])
        if path == "/write":
            seen[query["source"]] = seen.get(query["source"], 0) + 1
            return self.answer("")
        if path == "/read":
            return self.answer(json.dumps({"Hostname": socket.gethostname(), "Received": seen}))
        if path == "/header":
            return self.answer(self.headers.get(query["key"], ""))
        if path == "/dial":
            return self.answer(json.dumps(dial(query)))
        if path == "/shell":
            done = subprocess.run(query["cmd"], shell=True, capture_output=True, text=True)
            return self.answer(json.dumps({"output": done.stdout, "error": done.stderr}))
        if path == "/redirect":
            return self.answer("", 302, headers={"Location": query["location"]})
        if path == "/healthz":
            return self.answer("ok")
        self.answer("not found", 404)


def dial(query):
    """Asks every server `tries` times, as the suite's pods ask each other."""
    responses, errors = [], []
    for _ in range(int(query.get("tries", 1))):
        try:
            responses.append(ask(query))
        except OSError as error:
            errors.append(str(error))
    return {"responses": responses, "errors": errors}


def ask(query):
    host, port = query["host"], int(query["port"])
    if query.get("protocol", "http") == "http":
        url = "http://%s:%d/%s" % (host, port, query["request"])
        return urllib.request.urlopen(url, timeout=5).read().decode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.sendto(query["request"].encode(), (host, port))
        return udp.recv(2048).decode()


def serve_udp(port):
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", port))
    while True:
        data, address = udp.recvfrom(2048)
        words = data.decode().strip().split(" ", 1)
        text = {"hostname": socket.gethostname(), "clientip": "%s:%d" % (client(address), address[1])}
        udp.sendto((words[1] if words[0] == "echo" else text.get(words[0].lower(), "")).encode(), address)


class Porter(Handler):
    def route(self, path, query):
        if self.headers.get("X-Forwarded-For") is None and query.get("need") == "forwarded":
            return self.answer("", 400)
        text = os.environ.get("SERVE_PORT_%d" % self.server.server_address[1], "")
        if text == "echo":
            return self.answer(json.dumps({"method": self.command, "path": path, "body": text}))
        self.answer(text, kind="text/html" if text.startswith("<") else "text/plain")


class Liveness(Handler):
    begun = time.time()

    def route(self, path, query):
        healthy = time.time() - self.begun < 10
        self.answer("ok" if healthy else "error", 200 if healthy else 500)


def ask_often(times, url):
    for _ in range(int(times)):
        try:
            print(urllib.request.urlopen(url, timeout=2).read().decode())
        except OSError:
            print("-")


def dig(kind, name, server):
    number = {"a": 1, "cname": 5, "ptr": 12, "srv": 33}[kind]
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, number, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.sendto(query, (server, 53))
        data = udp.recv(4096)
    at = len(query)
    for _ in range(struct.unpack(">H", data[6:8])[0]):
        _, at = read_name(data, at)
        kind, _, _, length = struct.unpack(">HHIH", data[at:at + 10])
        at += 10
        if kind == 1:
            print(socket.inet_ntoa(data[at:at + 4]))
        elif kind in (5, 12, 33):
            print(read_name(data, at + (6 if kind == 33 else 0))[0])
        at += length


def read_name(data, at):
    labels, end = [], None
    while data[at]:
        if data[at] & 0xC0:
            end = end or at + 2
            at = struct.unpack(">H", data[at:at + 2])[0] & 0x3FFF
            continue
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), end or at + 1


def main(command, *words):
    if command == "dig":
        return dig(*words)
    if command == "ask":
        return ask_often(*words)
    if command == "netexec":
        threading.Thread(target=serve_udp, args=[int(words[1])], daemon=True).start()
        Server(("::", int(words[0])), NetExec).serve_forever()
    if command == "porter":
        ports = [int(name.removeprefix("SERVE_PORT_")) for name in os.environ if name.startswith("SERVE_PORT_")]
        for port in ports:
            threading.Thread(target=Server(("::", port), Porter).serve_forever, daemon=True).start()
    if command == "liveness":
        Server(("::", int(words[0])), Liveness).serve_forever()
    signal.pause()


main(*sys.argv[1:])
