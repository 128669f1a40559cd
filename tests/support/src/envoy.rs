//! Envoy, as a client of the SDS API that we did not write.
//!
//! Its bootstraps are templates beside the tests (`tests/envoy/*.yaml`) with `${KEY}` where a
//! test's own values go. Every port is the system's choice.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::applications::http_get_here;
use crate::eventually::eventually;
use crate::process::Process;
use crate::requirements;

/// What a template finds unless the test says otherwise.
const USUAL: [(&str, &str); 5] = [
    ("API_TYPE", "GRPC"),
    ("VALIDATOR", "spiffe"),
    ("SVID", "default"),
    ("BUNDLE", "ROOTCA"),
    // for ever: until both secrets are there the port stays closed
    ("FETCH_TIMEOUT", "0s"),
];

/// Where `tests/envoy/install` puts it; the test is put on record as not run if it is not there.
pub fn installed(test: &str) -> Option<PathBuf> {
    let program = in_tests("../target/envoy/envoy");
    requirements::file(test, "Envoy", &program).then_some(program)
}

/// A template as it lies in the tree.
pub fn template(name: &str) -> String {
    let path = in_tests(&format!("envoy/{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A template with its values in place.
pub fn filled(name: &str, values: &[(&str, &str)]) -> String {
    let mut text = template(name);
    // the test's own come first: what is replaced is no longer there for the usual
    for (key, value) in values.iter().chain(&USUAL) {
        text = text.replace(&format!("${{{key}}}"), value);
    }
    assert!(!text.contains("${"), "{name}.yaml lacks a value:\n{text}");
    text
}

#[derive(Debug)]
pub struct Envoy {
    name: String,
    process: Process,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts it from a template; does not wait until it has its secrets. Its files go into
    /// `directory`.
    pub fn start(
        program: &Path,
        template: &str,
        name: &str,
        values: &[(&str, &str)],
        directory: &Path,
    ) -> Self {
        let values: Vec<_> = [("NODE_ID", name)]
            .into_iter()
            .chain(values.iter().copied())
            .collect();
        let bootstrap = directory.join(format!("{name}.yaml"));
        fs::write(&bootstrap, filled(template, &values)).unwrap();
        let admin_path = directory.join(format!("{name}.admin"));
        // an earlier one of this name may have left its own behind
        let _ = fs::remove_file(&admin_path);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.arg("-c").arg(&bootstrap);
        command.arg("--admin-address-path").arg(&admin_path);
        command.args(["--concurrency", "1", "--disable-hot-restart"]);
        command.args(["--log-level", "warning"]);
        let mut process = Process::start(name, command, directory);
        let admin = eventually(&format!("{name} has an admin port"), || {
            process.assert_runs();
            let text = fs::read_to_string(&admin_path).map_err(|error| error.to_string())?;
            text.parse::<SocketAddr>()
                .map_err(|error| format!("{text:?}: {error}"))
        });
        Self {
            name: name.to_owned(),
            process,
            admin,
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        eventually(&format!("{} answers {path}", self.name), || {
            let (status, answer) = http_get_here(self.admin, path)?;
            Ok::<_, std::io::Error>((status, body(&answer)))
        })
    }

    /// Whether it is ready: every listener has its secrets, or has given up waiting for them.
    pub fn is_ready(&self) -> bool {
        self.get("/ready").0 == 200
    }

    pub fn wait_ready(&mut self) {
        let what = format!("{} is ready", self.name);
        eventually(&what, || {
            self.process.assert_runs();
            if self.is_ready() {
                Ok(())
            } else {
                Err(self.stats("update_|connected_state"))
            }
        });
    }

    /// Where its only listener is.
    pub fn listener(&self) -> SocketAddr {
        eventually(&format!("{} has a listener", self.name), || {
            let (_, text) = self.get("/listeners?format=json");
            let listed: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let address = &listed["listener_statuses"][0]["local_address"]["socket_address"];
            match (address["address"].as_str(), address["port_value"].as_u64()) {
                (Some(ip), Some(port)) if port > 0 => format!("{ip}:{port}")
                    .parse::<SocketAddr>()
                    .map_err(|error| error.to_string()),
                _ => Err(text),
            }
        })
    }

    /// Counters and gauges whose names match a regular expression.
    pub fn stats(&self, pattern: &str) -> BTreeMap<String, u64> {
        let pattern = pattern.replace('|', "%7C");
        let (_, text) = self.get(&format!("/stats?filter={pattern}"));
        text.lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    /// The sum of all that [`Envoy::stats`] finds. Finding none fails the test.
    pub fn sum(&self, pattern: &str) -> u64 {
        let found = self.stats(pattern);
        assert!(
            !found.is_empty(),
            "{}: no statistic is like {pattern}",
            self.name
        );
        found.values().sum()
    }

    /// Secrets that it refused: zero, whatever our server was told to do.
    pub fn rejected(&self) -> u64 {
        self.sum("update_rejected")
    }

    /// Serial numbers of the leaves in use.
    pub fn serials(&self) -> Vec<String> {
        let (_, text) = self.get("/certs");
        let listed: Value = serde_json::from_str(&text).unwrap();
        let pairs = listed["certificates"].as_array().cloned();
        let leaves = pairs.unwrap_or_default().into_iter();
        leaves
            .filter_map(|pair| Some(pair["cert_chain"][0]["serial_number"].as_str()?.to_owned()))
            .collect()
    }

    pub fn config_dump(&self) -> Value {
        serde_json::from_str(&self.get("/config_dump").1).unwrap()
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

fn in_tests(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The body of an HTTP/1.1 answer, which Envoy sends in chunks.
fn body(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        whole.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    whole
}
