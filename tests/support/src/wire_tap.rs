//! tcpdump on the bridge: what somebody on the network would see.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use rustix::process::Signal;

use crate::eventually::eventually;
use crate::network::{BRIDGE, Network};
use crate::process::Process;

#[derive(Debug)]
pub struct WireTap {
    process: Process,
    file: PathBuf,
}

/// A TCP segment with content.
#[derive(Debug, Clone)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
}

/// Everything that went over the bridge.
#[derive(Debug)]
pub struct Seen {
    pub segments: Vec<Segment>,
    raw: Vec<u8>,
}

impl WireTap {
    pub fn start(network: &Network) -> Self {
        let directory = network.directory("wire-tap", crate::ROOT_UID);
        let file = directory.join("bridge.pcap");
        let mut command = network.node.command(crate::ROOT_UID, "tcpdump");
        command.args([
            "-i",
            BRIDGE,
            "-U",
            "--immediate-mode",
            "-s",
            "0",
            "-B",
            "65536",
        ]);
        command.args(["-Z", "root", "-w"]).arg(&file).arg("tcp");
        let process = Process::start("tcpdump", command, &directory);
        eventually("tcpdump listens", || {
            process
                .output()
                .contains("listening on")
                .then_some(())
                .ok_or_else(|| process.output())
        });
        Self { process, file }
    }

    /// Ends the recording. What was on the wire before this call is in it.
    pub fn stop(mut self) -> Seen {
        self.process.signal(Signal::INT);
        self.process.ended();
        let report = self.process.output();
        assert!(report.contains("0 packets dropped by kernel"), "{report}");
        let raw = fs::read(&self.file).unwrap();
        Seen {
            segments: segments(&raw),
            raw,
        }
    }
}

impl Seen {
    /// Whether the text crossed the bridge readably.
    pub fn shows(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.raw.windows(text.len()).any(|window| window == text)
    }

    /// How many TLS handshakes a server on `port` answered with TLS 1.3.
    pub fn tls13_handshakes(&self, port: u16) -> usize {
        self.segments
            .iter()
            .filter(|segment| {
                segment.source.port() == port && is_tls13_server_hello(&segment.payload)
            })
            .count()
    }

    /// Content between these two addresses, on ports of the first other than those given.
    pub fn content_between(&self, one: IpAddr, other: IpAddr, apart_from: &[u16]) -> Vec<&Segment> {
        let between = |segment: &&Segment| {
            let ends = [segment.source, segment.destination];
            ends.iter().any(|end| end.ip() == one)
                && ends.iter().any(|end| end.ip() == other)
                && !ends.iter().any(|end| apart_from.contains(&end.port()))
        };
        self.segments.iter().filter(between).collect()
    }
}

fn is_tls13_server_hello(payload: &[u8]) -> bool {
    // A handshake record, in it a ServerHello whose supported_versions extension says 1.3.
    let supported_versions = [0x00, 0x2b, 0x00, 0x02, 0x03, 0x04];
    payload.first() == Some(&0x16)
        && payload.get(5) == Some(&0x02)
        && payload
            .windows(supported_versions.len())
            .any(|window| window == supported_versions)
}

/// Reads a capture file of Ethernet frames as tcpdump writes it on this machine.
fn segments(raw: &[u8]) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut rest = raw.get(24..).unwrap_or_default();
    while let Some(header) = rest.get(..16) {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(frame) = rest.get(16..16 + length) else {
            break;
        };
        rest = &rest[16 + length..];
        found.extend(segment(frame));
    }
    found
}

fn segment(frame: &[u8]) -> Option<Segment> {
    let packet = frame.get(14..)?;
    let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let address = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets))
            };
            (
                address(12)?.into(),
                address(16)?.into(),
                packet.get(header..total)?,
            )
        }
        [0x86, 0xdd] => {
            let total = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets))
            };
            (
                address(8)?.into(),
                address(24)?.into(),
                packet.get(40..total)?,
            )
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    (!payload.is_empty()).then_some(Segment {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        payload: payload.to_vec(),
    })
}
