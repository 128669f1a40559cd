"""Makes the mesh of one mesh-lite pair: root and issuing CA, documents, join tokens.

    mesh_lite.py FOLDER MESH_LITE TRUST_DOMAIN TUNNEL_PORT BACKEND_PORT SIDECAR_A SIDECAR_B

SIDECAR_A and SIDECAR_B are the workloads (client, server or other) that the two sidecars are
given join tokens for. With others than client and server, `verify` sees what is refused.

The folder then holds: state/ (the control plane's data directory), documents/, a.token, b.token,
and two leaves of the same issuing CA, made with openssl, for a hand-made caller: client.pem and
other.pem.
"""

import os
import subprocess
import sys

CLIENT, SERVER, OTHER = "127.0.0.2", "127.0.0.3", "127.0.0.4"

DOCUMENTS = """\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {{name: client, namespace: default}}
spec: {{serviceAccount: client, addresses: ["{client}"], tunnelPort: {tunnel}}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {{name: server, namespace: default, labels: {{app: server}}}}
spec: {{serviceAccount: server, addresses: ["{server}"], tunnelPort: {tunnel}}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {{name: other, namespace: default}}
spec: {{serviceAccount: other, addresses: ["{other}"], tunnelPort: {tunnel}}}
---
apiVersion: mesh-lite.io/v1
kind: Service
metadata: {{name: server, namespace: default}}
spec:
  selector: {{app: server}}
  ports: [{{port: {backend}}}]
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {{name: server-from-client, namespace: default}}
spec:
  action: ALLOW
  rules:
  - from:
    - source: {{principals: ["{domain}/ns/default/sa/client"]}}
    to:
    - operation: {{ports: ["{backend}"]}}
  tests:
  - {{from: {domain}/ns/default/sa/client, port: {backend}, expect: ALLOW}}
  - {{from: {domain}/ns/default/sa/other, port: {backend}, expect: DENY}}
"""


def run(*command, data=None):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=30)
    if done.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(command[:3]), done.stderr.decode()[-600:]))
    return done.stdout.decode()


def write(path, text, mode=0o644):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as f:
        f.write(text)


def hand_made_leaf(folder, issuer, domain, account):
    """A leaf that the issuing CA signed, for a caller that speaks TLS by itself."""
    at = lambda name: os.path.join(folder, f"{account}.{name}")
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", at("key"), "-subj", "/", "-out", at("csr"))
    write(at("ext"), "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                     "extendedKeyUsage=serverAuth,clientAuth\nauthorityKeyIdentifier=keyid\n"
                     f"subjectAltName=critical,URI:spiffe://{domain}/ns/default/sa/{account}\n")
    leaf = run("openssl", "x509", "-req", "-in", at("csr"), "-CA", issuer, "-CAkey", issuer,
               "-set_serial", str(int.from_bytes(os.urandom(8), "big") >> 1), "-sha256", "-days", "1",
               "-extfile", at("ext"))
    with open(at("key")) as key:
        write(at("pem"), leaf + run("openssl", "x509", "-in", issuer) + key.read(), 0o600)


def main():
    folder, program, domain, tunnel, backend, *sidecars = sys.argv[1:]
    state = os.path.join(folder, "state")
    documents = os.path.join(folder, "documents")
    os.makedirs(documents)
    for sidecar in ("a", "b"):
        os.mkdir(os.path.join(folder, sidecar), 0o700)
    write(os.path.join(documents, "mesh.yaml"), DOCUMENTS.format(
        client=CLIENT, server=SERVER, other=OTHER, tunnel=tunnel, backend=backend, domain=domain))
    run(program, "root", "init", "--data-dir", state, "--trust-domain", domain)
    for side, workload in zip("ab", sidecars):
        token = run(program, "token", "create", f"default/{workload}", "--data-dir", state)
        write(os.path.join(folder, f"{side}.token"), token, 0o600)
    issuer = os.path.join(state, "issuing", "issuing-ca.pem")
    for account in ("client", "other"):
        hand_made_leaf(folder, issuer, domain, account)


main()
