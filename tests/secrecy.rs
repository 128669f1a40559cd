//! Nothing that mesh-lite says of itself holds a key or a token, at any level of its log.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lite_proto::trust_bundle::{hex, pem};
use mesh_lite_test_support::applications::{Server, http_get_here};
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::process::finish;
use mesh_lite_test_support::requirements::program;
use mesh_lite_test_support::{LoopbackMesh, eventually};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// Of a secret, this many bytes in a row are never there by chance.
const WINDOW: usize = 16;
/// Long enough for two renewals in a test.
const LEAF_LIFETIME: &str = "10s";
/// In a state file: its magic, the digest of what follows, the key's length.
const KEY_LENGTH_AT: usize = 16 + 32;

/// The private number of an elliptic-curve key in PKCS#8: all else there is public.
fn private_number(pkcs8: &[u8]) -> Vec<u8> {
    // ECPrivateKey: version 1, then an octet string
    let start = [0x02, 0x01, 0x01, 0x04];
    let at = pkcs8.windows(4).position(|window| window == start);
    let at = at.expect("an elliptic-curve key") + 4;
    let length = usize::from(pkcs8[at]);
    pkcs8[at + 1..=at + length].to_vec()
}

/// How `secret` would look in a text without white space, if any [`WINDOW`] of it got there.
fn looks(secret: &[u8]) -> BTreeSet<String> {
    let mut looks = BTreeSet::new();
    for window in secret.windows(WINDOW) {
        looks.insert(hex(window));
        looks.insert(hex(window).to_uppercase());
        let numbers: Vec<String> = window.iter().map(u8::to_string).collect();
        looks.insert(numbers.join(","));
        let escaped = window.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02x}");
            text
        });
        looks.insert(escaped);
        // five whole groups of three: one of three windows in a row begins where a group does
        let base64 = pem("X", &window[..15]).lines().nth(1).unwrap().to_owned();
        looks.insert(base64.replace('+', "-").replace('/', "_"));
        looks.insert(base64);
    }
    looks
}

/// White space and line ends in JSON strings would hide a key that is written over several lines.
fn without_space(text: &str) -> String {
    text.replace("\\n", "")
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect()
}

#[test]
fn a_key_is_found_however_it_is_written() {
    let secret: Vec<u8> = (100..132).collect();
    let der = [&[1, 2, 3, 4][..], &secret, &[5; 70]].concat();
    let found = |text: &str| {
        let text = without_space(text);
        looks(&secret).iter().any(|look| text.contains(look))
    };
    for skipped in 0..3 {
        assert!(found(&pem("PRIVATE KEY", &der[skipped..])));
        assert!(found(
            &pem("PRIVATE KEY", &der[skipped..]).replace('\n', "\\n")
        ));
    }
    assert!(found(&format!("{der:?}")) && found(&format!("{der:#?}")));
    assert!(found(&hex(&der)) && found(&hex(&der).to_uppercase()));
    assert!(!found(&pem("CERTIFICATE", &[7; 400])));
}

struct Secrets {
    keys: Vec<Vec<u8>>,
    tokens: Vec<String>,
}

impl Secrets {
    /// The key that a sidecar has now, if it is not known yet.
    fn key_of(&mut self, sidecar: &Path) -> bool {
        let state = fs::read(sidecar.join("sidecar-state")).unwrap();
        let (length, rest) = state[KEY_LENGTH_AT..].split_first_chunk::<4>().unwrap();
        let key = private_number(&rest[..u32::from_be_bytes(*length) as usize]);
        let is_new = !self.keys.contains(&key);
        if is_new {
            self.keys.push(key);
        }
        is_new
    }

    fn authority(&mut self, file: &Path) {
        let key = PrivatePkcs8KeyDer::from_pem_file(file).unwrap();
        self.keys.push(private_number(key.secret_pkcs8_der()));
    }

    fn looks(&self) -> BTreeSet<String> {
        self.keys.iter().flat_map(|key| looks(key)).collect()
    }

    fn assert_not_in(&self, name: &str, text: &str, looks: &BTreeSet<String>) {
        assert!(!text.contains("PRIVATE KEY"), "a key is in {name}");
        let text = without_space(text);
        for look in looks {
            assert!(!text.contains(look), "{look} of a key is in {name}");
        }
        for token in &self.tokens {
            for start in 0..=token.len() - WINDOW {
                let part = token.get(start..start + WINDOW).unwrap();
                assert!(!text.contains(part), "{part:?} of a token is in {name}");
            }
        }
    }
}

/// mesh-lite, which logs all it can.
fn talkative(folder: &Path) -> String {
    let program = folder.join("mesh-lite");
    let script = format!("#!/bin/sh\nRUST_LOG=trace exec {PROGRAM} \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

fn page(address: SocketAddr, path: &str) -> String {
    http_get_here(address, path).unwrap().1
}

/// Logs of every process, access logs, and whatever page there is.
fn all_that_is_said(mesh: &LoopbackMesh) -> Vec<(String, String)> {
    let mut said = Vec::new();
    let mut folders: Vec<PathBuf> = vec![mesh.directory().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".output") || name.ends_with("access.log") {
                let bytes = fs::read(&path).unwrap();
                said.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    for sidecar in ["web", "api"] {
        let admin = mesh.sidecar(sidecar).admin();
        let contents = page(admin, "/");
        for path in contents.lines().filter_map(|line| line.split(' ').next()) {
            if path.starts_with('/') {
                said.push((format!("{sidecar} {path}"), page(admin, path)));
            }
        }
        let health = SocketAddr::new(admin.ip(), 15021);
        said.push((format!("{sidecar} health"), page(health, "/readyz")));
    }
    let control_plane = SocketAddr::new(mesh.control_plane_address().ip(), 15014);
    for path in ["/metrics", "/readyz"] {
        said.push((format!("control plane {path}"), page(control_plane, path)));
    }
    said
}

/// A client that gets the key, one that asks for what is not there, and one that is no client.
fn use_socket(socket: &Path) {
    let service = "http://localhost/envoy.service.secret.v3.SecretDiscoveryService";
    for (method, body) in [
        ("FetchSecrets", "\\0\\0\\0\\0\\0"),
        ("FetchSecrets", "\\0\\0\\0\\0\\3\\032\\1x"),
        ("StreamSecrets", "\\0\\0\\0\\0\\0"),
        ("NoSuchMethod", ""),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "printf \"$1\" | curl --silent --http2-prior-knowledge --max-time 2 \
             -H 'content-type: application/grpc' -H 'te: trailers' --unix-socket \"$2\" --data-binary @- \"$3\"",
        ]);
        let output = finish(
            command
                .args(["sh", body])
                .arg(socket)
                .arg(format!("{service}/{method}")),
        );
        let got_the_key = String::from_utf8_lossy(&output.stdout).contains("BEGIN PRIVATE KEY");
        assert_eq!(
            got_the_key,
            body == "\\0\\0\\0\\0\\0",
            "{method} {output:?}"
        );
    }
}

/// Of a caller, of a token that was used, of what is no TLS.
fn provoke_refusals(mesh: &mut LoopbackMesh, used_token: &str) {
    let _ = mesh.sidecar("guest").call();
    let _ = mesh.sidecar("web").call().unwrap().line();
    mesh.sidecar_mut("guest").kill();
    mesh.start_sidecar_with("guest", used_token);
    eventually("the used token is refused", || {
        let output = mesh.sidecar("guest").output();
        let refused = output.contains("does not accept the token");
        refused.then_some(()).ok_or("not yet")
    });
    let tunnel = SocketAddr::new(mesh.sidecar("web").admin().ip(), 15008);
    for address in [tunnel, mesh.control_plane_address()] {
        let _ = http_get_here(address, "/");
    }
}

/// Web's with a workload socket.
fn start_sidecars(mesh: &mut LoopbackMesh, tokens: &[String], socket: &Path) {
    let socket = socket.display().to_string();
    for (name, token) in ["web", "api", "guest"].into_iter().zip(tokens) {
        let arguments = ["--workload-socket", &socket];
        let arguments = if name == "web" { &arguments[..] } else { &[] };
        mesh.start_sidecar_told(name, token.trim(), arguments)
            .wait_ready();
    }
}

/// SDS-S29
#[test]
fn no_log_page_metric_or_error_holds_a_key_or_a_token() {
    if !program("no_log_page_metric_or_error_holds_a_key_or_a_token", "curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api");
    let short = ["--leaf-lifetime", LEAF_LIFETIME];
    let talkative = talkative(folder.path());
    let mut mesh = LoopbackMesh::prepare(&talkative, server.address().port(), WEB_ONLY, &short);
    mesh.start_control_plane();
    let mut secrets = Secrets {
        keys: Vec::new(),
        tokens: ["web", "api", "guest"].map(|name| mesh.token(name)).into(),
    };
    let socket = folder.path().join("socket");
    start_sidecars(&mut mesh, &secrets.tokens, &socket);
    let folders = ["web", "api"].map(|name| mesh.sidecar(name).folder().to_owned());
    let mode = fs::metadata(folders[0].join("sidecar-state"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for sidecar in &folders {
        assert!(secrets.key_of(sidecar));
    }
    use_socket(&socket);

    let used = secrets.tokens[2].clone();
    provoke_refusals(&mut mesh, used.trim());
    for renewal in 1..=2 {
        for sidecar in &folders {
            eventually(
                &format!("renewal {renewal} of {}", sidecar.display()),
                || secrets.key_of(sidecar).then_some(()).ok_or("the same key"),
            );
        }
    }
    for part in ["issuing/issuing-ca.pem", "root/root.pem"] {
        secrets.authority(&mesh.state().join(part));
    }
    assert!(secrets.keys.len() >= 8);
    let said = all_that_is_said(&mesh);
    let traced = said
        .iter()
        .filter(|(_, text)| text.contains("\"level\":\"TRACE\""));
    assert!(traced.count() >= 4, "the logs were not caught");
    let looks = secrets.looks();
    for (name, text) in &said {
        secrets.assert_not_in(name, text, &looks);
    }
}
