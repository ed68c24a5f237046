"""Speaks to the API server as the administrator of a kubeconfig, in ways that kubectl does not.

usage: api.py KUBECONFIG messages PROTOCOL PATH      what a WebSocket says, byte for byte, until it is closed
       api.py KUBECONFIG tolerations PATH COUNT      so many updates of a pod's spec, one after the other
"""

import base64, http.client, json, os, re, ssl, struct, sys, tempfile, urllib.parse

config = open(sys.argv[1]).read()
server = urllib.parse.urlsplit(re.search(r"server: \"?([^\s\"]+)", config)[1])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
with tempfile.TemporaryDirectory() as place:
    for name in ["client-certificate", "client-key"]:
        data = re.search(name + r"-data: \"?([^\s\"]+)", config)[1]
        open(os.path.join(place, name), "wb").write(base64.b64decode(data))
    context.load_cert_chain(os.path.join(place, "client-certificate"), os.path.join(place, "client-key"))


def connect():
    return http.client.HTTPSConnection(server.hostname, server.port, context=context, timeout=60)


def messages(protocol, path):
    connection = connect()
    connection.putrequest("GET", path)
    key = base64.b64encode(os.urandom(16)).decode()
    for name, value in {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                        "Sec-WebSocket-Key": key, "Sec-WebSocket-Protocol": protocol}.items():
        connection.putheader(name, value)
    connection.endheaders()
    # The answer is read from the same buffer as the frames behind it.
    stream = connection.sock.makefile("rb")
    status = stream.readline().decode().strip()
    headers = http.client.parse_headers(stream)
    if " 101 " not in status:
        raise SystemExit("%s: %s" % (status, stream.read(2000)))
    print("protocol", headers["Sec-WebSocket-Protocol"])
    while True:
        head = stream.read(2)
        if len(head) < 2:
            raise SystemExit("cut off without a close frame")
        kind, length = head[0] & 15, head[1] & 127
        if length == 126:
            length = struct.unpack(">H", stream.read(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", stream.read(8))[0]
        data = stream.read(length)
        if kind == 8:
            return
        if kind in (1, 2, 0):
            print("message", repr(data))


def tolerations(path, count):
    connection = connect()
    done = 0
    while done < int(count):
        connection.request("GET", path)
        pod = json.load(connection.getresponse())
        pod["spec"]["tolerations"].append({"key": "key-%d" % done, "operator": "Exists", "effect": "NoSchedule"})
        connection.request("PUT", path, json.dumps(pod), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        # The kubelet tells its status in between.
        if answer.status not in (200, 409):
            raise SystemExit("%d %s" % (answer.status, text[:2000]))
        done += answer.status == 200
    print("done")


{"messages": messages, "tolerations": tolerations}[sys.argv[2]](*sys.argv[3:])
