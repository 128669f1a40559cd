"""Writes layout/sidecar.ld anew: which functions a sidecar calls, as patterns for the linker.

    cargo rustc --release --locked --bin mesh-lite -- -C link-arg=-Wl,-Map=mesh-lite.map
    sudo unshare --net sh -c 'ip link set lo up && python3 layout/record.py \\
        target/x86_64-unknown-linux-gnu/release/mesh-lite mesh-lite.map'

Needs x86_64 and the linker that comes with Rust (lld), whose map it reads. Runs a control plane
and two sidecars, with a breakpoint on every function of the sidecars: from an empty data directory
and from a filled one, idle and with connections. Names are kept without what a compiler or a new
version of a crate changes, and names that have their beginning in common become one pattern where
few bytes come along that are never called.
"""

import bisect
import http.client
import http.server
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

from called import Called

HERE = pathlib.Path(__file__).parent
TUNNEL, BACKEND, UPSTREAM = "15008", "18080", "18081"
# A pattern is worth this many bytes of functions that are mapped and never called.
BYTES_PER_PATTERN = 1000
PARTS = re.compile(r"[^$.]+(?:\.\.|\$[A-Za-z0-9]+\$|\.)?|\.\.|\$[A-Za-z0-9]+\$|\.|\$")
MAP_LINE = re.compile(r" *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +\d+ {9}(\S.*):\((\.text[^)]*)\)$")


def functions_of(binary):
    """Their addresses in the file, each once."""
    table = subprocess.run(["nm", "-S", binary], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in table.splitlines()]
    return {int(row[0], 16) for row in rows if len(row) == 4 and row[2] in "tTwW"}


def sections_of(link_map):
    """(address, size, pattern) of all that was linked into .text, by address."""
    sections = []
    for line in link_map.splitlines():
        if found := MAP_LINE.match(line):
            address, size, file, section = found.groups()
            sections.append((int(address, 16), int(size, 16), pattern_of(file, section)))
    return sorted(sections, key=lambda section: section[0])


def sidecar(binary, folder, side, address, *more):
    return [binary, "proxy", "--capture", "explicit", "--control-plane", "127.0.0.1:15012",
            "--trust-bundle", f"{folder}/state/trust-bundle.pem", "--trust-domain", "layout.local",
            "--join-token-file", f"{folder}/{side}.token", "--data-dir", f"{folder}/{side}",
            "--tunnel-listen", f"{address}:{TUNNEL}", "--admin-listen", f"{address}:15000",
            "--metrics-listen", f"{address}:15020", "--health-listen", f"{address}:15021",
            "--access-log", f"{folder}/{side}.log", "--workers", "2", "--drain-delay", "0", *more]


def get(address, port, path="/"):
    connection = http.client.HTTPConnection(address, int(port), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def wait_for(address, port, path):
    for _ in range(300):
        try:
            if get(address, port, path) == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"record.py: nothing good at {address}:{port}{path}")


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * 1_000_000
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def called_by_sidecars(binary, addresses):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, HERE.parent / "bench/tools/mesh_lite.py", folder, binary,
                        "layout.local", TUNNEL, BACKEND, "client", "server"], check=True)
        backend = http.server.ThreadingHTTPServer(("127.0.0.1", int(BACKEND)), Backend)
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        output = open(f"{folder}/output", "w")
        control_plane = subprocess.Popen(
            [binary, "control-plane", "--data-dir", f"{folder}/state", "--config-dir",
             f"{folder}/documents", "--trust-domain", "layout.local", "--listen",
             "127.0.0.1:15012", "--admin-listen", "127.0.0.1:15014"], stdout=output, stderr=output)
        a = sidecar(binary, folder, "a", "127.0.0.2", "--upstreams",
                    f"{UPSTREAM}=default/server:{BACKEND}")
        b = sidecar(binary, folder, "b", "127.0.0.3", "--inbound-ports", BACKEND)
        called = set()
        try:
            for start in ("from nothing", "from what the first start kept"):
                with Called(a, addresses, output) as client, Called(b, addresses, output) as server:
                    use()
                called |= client.functions | server.functions
                print(f"record.py: {start}: {len(called)} functions", file=sys.stderr)
        finally:
            control_plane.terminate()
            control_plane.wait()
        return called


def use():
    """Idle sidecars, then some connections between them."""
    for address in ("127.0.0.2", "127.0.0.3"):
        wait_for(address, 15021, "/readyz")
    time.sleep(3)
    for _ in range(20):
        wait_for("127.0.0.1", UPSTREAM, "/")
    get("127.0.0.3", 15020, "/metrics")
    time.sleep(2)


def pattern_of(file, section):
    """Names a section as it stays when compiler, versions and processor change."""
    archive, _, member = re.sub(r".*/", "", file).partition("(")
    if archive.startswith("lib") and archive.endswith(".a"):
        # libc has no section for each function, but small files
        member = re.sub(r"-(evex|avx|sse|ssse|fma|erms).*", "-*", member.rstrip(")"))
        return f"*{archive}:{member}(.text .text.*)"
    if section == ".text":
        member = re.sub(r"^[0-9a-f]{16}-", "*", member.rstrip(")"))
        return f"*:{member}(.text)" if member else None
    section = re.sub(r"\.\d+$", "", section).replace(".text.", "*(.text.", 1)
    if found := re.search(r"17h[0-9a-f]{16}E", section):
        return section[:found.start()] + "17h*)"
    section = re.sub(r"aws_lc_\d+_\d+_\d+_", "aws_lc_*_", section)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", section) + "*" * ("._R" in section) + ")"


def parts_of(pattern):
    """Where a pattern may be cut: after each part of a Rust path or of a name in C."""
    beginning = re.match(r"\*\(\.text\.(unlikely\.|startup\.|exit\.)?(_ZN|aws_lc_\*_)?", pattern)
    if not beginning or "._R" in pattern:
        return [pattern]
    parts, rest = [beginning[0]], pattern[beginning.end():]
    if beginning[2] != "_ZN":
        return parts + re.findall(r"_*[^_]+_?|_+", rest)
    while (length := re.match(r"\d+", rest)) and not rest.startswith("17h*"):
        end = length.end() + int(length[0])
        name = rest[length.end():end]
        # types within a name change its length, and names that begin alike are to meet
        parts += ["[0-9]*" if "$LT$" in name else length[0], *PARTS.findall(name)]
        rest = rest[end:]
    return [*parts, rest]


class Node:
    def __init__(self):
        self.children, self.size, self.called = {}, 0, False

    def patterns(self, beginning="", depth=0):
        """What covers all that is called below here, and what that costs."""
        if not self.children:
            return (self.size + BYTES_PER_PATTERN, [beginning]) if self.called else (0, [])
        cost, found = 0, []
        for part, child in self.children.items():
            child_cost, child_found = child.patterns(beginning + part, depth + 1)
            cost, found = cost + child_cost, found + child_found
        # a beginning alone, or the length of a name, says nothing
        if found and depth > 1 and beginning[-1] not in "0123456789*" \
                and self.size + BYTES_PER_PATTERN <= cost:
            return self.size + BYTES_PER_PATTERN, [beginning + "*)"]
        return cost, found


def patterns_for(sections, called):
    starts = [start for start, _, _ in sections]
    indices = {bisect.bisect_right(starts, address) - 1 for address in called}
    root = Node()
    for index, (_, size, pattern) in enumerate(sections):
        if pattern is None:
            continue
        node = root
        for part in parts_of(pattern):
            node = node.children.setdefault(part, Node())
            node.size += size
        node.called |= index in indices
    kilobytes = sum(sections[index][1] for index in indices) // 1024
    patterns = sorted(root.patterns()[1])
    print(f"record.py: {kilobytes} kB in {len(indices)} sections: {len(patterns)} patterns",
          file=sys.stderr)
    return patterns


def main():
    sys.setrecursionlimit(20_000)  # names of types can be long
    binary, link_map = (str(pathlib.Path(argument).resolve()) for argument in sys.argv[1:])
    sections = sections_of(pathlib.Path(link_map).read_text())
    called = called_by_sidecars(binary, functions_of(binary))
    text = "\n".join(f"    {pattern}" for pattern in patterns_for(sections, called))
    frame = (HERE / "frame.ld").read_text()
    (HERE / "sidecar.ld").write_text(frame.replace("    @CALLED@", text))


if __name__ == "__main__":
    main()
