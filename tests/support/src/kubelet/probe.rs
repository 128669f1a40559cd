//! Probes and hooks as they are written, asked from the node.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::RunningPod;
use crate::ROOT_UID;
use crate::process::finish;

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    Good,
    Bad(String),
}

impl Probed {
    /// # Errors
    /// What was bad.
    pub fn good(self) -> Result<(), String> {
        match self {
            Self::Good => Ok(()),
            Self::Bad(why) => Err(why),
        }
    }
}

/// `probe` is a probe or a hook of `container`.
pub(super) fn run(pod: &RunningPod<'_>, container: &Value, probe: &Value) -> Probed {
    let timeout = probe["timeoutSeconds"].as_u64().unwrap_or(1);
    if let Some(get) = probe.get("httpGet") {
        return http(pod, container, get, timeout);
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        let to = SocketAddr::from((pod.at.v4, port(container, &tcp["port"])));
        let tried = pod.node.run(ROOT_UID, || std::net::TcpStream::connect(to));
        return match tried {
            Ok(_) => Probed::Good,
            Err(error) => Probed::Bad(format!("{to}: {error}")),
        };
    }
    panic!("{probe}: this kind of probe is not played here")
}

fn http(pod: &RunningPod<'_>, container: &Value, get: &Value, timeout: u64) -> Probed {
    let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
    let host = get["host"].as_str().filter(|host| !host.is_empty());
    let host = host.map_or_else(|| pod.at.v4.to_string(), str::to_owned);
    let path = get["path"].as_str().unwrap_or("/");
    let url = format!("{scheme}://{host}:{}{path}", port(container, &get["port"]));
    let mut ask: Command = pod.node.command(ROOT_UID, "curl");
    ask.args([
        "-sk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-m",
        &timeout.to_string(),
    ]);
    for header in get["httpHeaders"].as_array().into_iter().flatten() {
        let text = |name: &str| header[name].as_str().unwrap_or_default();
        ask.args(["-H", &format!("{}: {}", text("name"), text("value"))]);
    }
    let output = finish(ask.arg(&url));
    let code = String::from_utf8_lossy(&output.stdout).into_owned();
    match code.parse::<u16>() {
        Ok(200..=399) => Probed::Good,
        _ => Probed::Bad(format!("{url}: {code} (curl: {})", output.status)),
    }
}

/// A number, or the name of a port of the same container.
fn port(container: &Value, port: &Value) -> u16 {
    let number = port.as_u64().or_else(|| {
        let ports = container["ports"].as_array()?;
        let named = ports.iter().find(|listed| listed["name"] == *port)?;
        named["containerPort"].as_u64()
    });
    let number = number.unwrap_or_else(|| panic!("{container}: no port {port}"));
    u16::try_from(number).unwrap()
}
