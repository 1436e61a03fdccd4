"""What may stand between a node and its researcher: a relay that counts and cuts, and an HTTP proxy that knows CONNECT."""

import base64
import socket
import struct
import threading

import wire


class Connection:
    """One that was taken: bytes towards the server and back, and whether it is over."""

    def __init__(self, client):
        self.client, self.server = client, None
        self.leaves_from = None  # the port that the server sees
        self.up = self.down = 0
        self.closed = False


class Relay(wire.Watched):
    """Hands each connection on to `target`, a (host, port)."""

    def __init__(self, target=None):
        super().__init__()
        self.target = target
        self.connections = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def open(self):
        """The connections that are not over."""
        with self.changed:
            return [c for c in self.connections if not c.closed]

    def cut(self):
        """Resets all connections, with what is on its way in them."""
        for each in self.open():
            each.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._over(each)

    def close(self):
        self._listener.close()
        self.cut()

    def _listen(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(Connection(client),), daemon=True).start()

    def _serve(self, each):
        with self.changed:
            self.connections.append(each)
            self.changed.notify_all()
        try:
            each.server = self._dial(each)
        except OSError:
            each.server = None
        if each.server is None:
            return self._over(each)
        each.leaves_from = each.server.getsockname()[1]
        threading.Thread(target=self._pump, args=(each, "down", each.server, each.client), daemon=True).start()
        self._pump(each, "up", each.client, each.server)

    def _dial(self, _):
        """The other end of a connection, or None where there is to be none."""
        return socket.create_connection(self.target, timeout=None)

    def _pump(self, each, direction, source, sink):
        try:
            while data := source.recv(1 << 16):
                with self.changed:
                    setattr(each, direction, getattr(each, direction) + len(data))
                    self.changed.notify_all()
                sink.sendall(data)
        except OSError:
            pass
        self._over(each)

    def _over(self, each):
        with self.changed:
            each.closed = True
            self.changed.notify_all()
        for end in (each.client, each.server):
            if end is not None:
                try:
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
                except OSError:
                    pass
                end.close()


class ConnectProxy(Relay):
    """An HTTP proxy for tunnels. `refuse` is the status line's end that it answers instead, such as "403 Forbidden";
    `login` is the "user:password" that it wants."""

    def __init__(self, refuse=None, login=None):
        self.refuse, self.login = refuse, login
        self.requests = []  # (method, target, {header in lower case: value})
        super().__init__()

    def _dial(self, each):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = each.client.recv(1)
            if not byte:
                return None
            head += byte
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        with self.changed:
            self.requests.append((method, target, headers))
            self.changed.notify_all()
        problem = self.refuse
        if self.login and headers.get("proxy-authorization") != "Basic " + base64.b64encode(
                self.login.encode()).decode():
            problem = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"tests\""
        if method != "CONNECT":
            problem = "405 Method Not Allowed"
        if problem:
            each.client.sendall(f"HTTP/1.1 {problem}\r\nContent-Length: 0\r\n\r\n".encode())
            return None
        host, port = target.rsplit(":", 1)
        server = socket.create_connection((host.strip("[]"), int(port)), timeout=None)
        each.client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return server
