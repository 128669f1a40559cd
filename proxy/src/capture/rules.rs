//! What is captured, and the same in the language of nft and of iptables. Pure text.
//!
//! Order inside a chain is meaning: whoever returns first is not captured.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_lite_proto::sidecar::{FORBIDDEN_UIDS, OWN_PORTS, SIDECAR_UID, UNCAPTURED_INBOUND_PORTS};

pub use self::{
    iptables::{Jump, JumpsPresent, Table},
    nft::NFT_TABLE,
};
pub use mesh_lite_proto::sidecar::{MAX_EXCLUSIONS, UNROUTED_V4, UNROUTED_V6};

mod iptables;
mod nft;

/// What the operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Ports of this pod that the network reaches without the sidecar.
    pub inbound_ports: Vec<u16>,
    /// Ports that applications of this pod reach without the sidecar.
    pub outbound_ports: Vec<u16>,
    /// Destinations that applications of this pod reach without the sidecar.
    pub subnets: Vec<IpNet>,
}

/// A checked rule set: the same settings always give the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    proxy_uid: u32,
    skip_inbound: BTreeSet<u16>,
    skip_outbound: BTreeSet<u16>,
    skip_subnets: Vec<IpNet>,
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRule {
    #[error(
        "--proxy-uid {0} cannot be exempted from capture: it is root's or another mesh's user; \
         run the sidecar as {SIDECAR_UID}"
    )]
    ForbiddenUid(u32),
    #[error("{setting}: port 0 names no port; leave it out")]
    PortZero { setting: &'static str },
    #[error(
        "{setting}: {port} is one of the sidecar's own ports ({OWN_PORTS:?}); excluding it would \
         open it to the network unchecked; leave it out"
    )]
    OwnPort { setting: &'static str, port: u16 },
    #[error(
        "{setting}: {count} entries, at most {MAX_EXCLUSIONS} are taken; name fewer, or a range as one subnet"
    )]
    TooMany { setting: &'static str, count: usize },
    #[error(
        "--skip-subnets: {0} excludes every address, which is no capture at all; name what is to be left out"
    )]
    EverySubnet(IpNet),
    #[error(
        "--skip-subnets: {subnet} contains {probe}, to which capture is proved; leave that address in"
    )]
    ProbeExcluded { subnet: IpNet, probe: IpAddr },
}

/// Everything that is wrong with the settings, so that one run names it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRules(pub Vec<InvalidRule>);

impl fmt::Display for InvalidRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidRules {}

/// Address family of an iptables text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// An address of this family that no network routes.
    pub fn unrouted(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(UNROUTED_V4),
            Self::V6 => IpAddr::V6(UNROUTED_V6),
        }
    }

    fn holds(self, subnet: &IpNet) -> bool {
        match subnet {
            IpNet::V4(_) => self == Self::V4,
            IpNet::V6(_) => self == Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl RuleSet {
    /// # Errors
    /// Names every setting that would leave a hole or cannot be expressed.
    pub fn new(proxy_uid: u32, exclusions: &Exclusions) -> Result<Self, InvalidRules> {
        let mut problems = Vec::new();
        if FORBIDDEN_UIDS.contains(&proxy_uid) {
            problems.push(InvalidRule::ForbiddenUid(proxy_uid));
        }
        check_ports(
            "--skip-inbound-ports",
            &exclusions.inbound_ports,
            &mut problems,
        );
        check_ports(
            "--skip-outbound-ports",
            &exclusions.outbound_ports,
            &mut problems,
        );
        check_subnets(&exclusions.subnets, &mut problems);
        if !problems.is_empty() {
            return Err(InvalidRules(problems));
        }
        let own = UNCAPTURED_INBOUND_PORTS.iter().copied();
        let mut skip_subnets = IpNet::aggregate(&exclusions.subnets);
        skip_subnets.sort();
        Ok(Self {
            proxy_uid,
            skip_inbound: exclusions
                .inbound_ports
                .iter()
                .copied()
                .chain(own)
                .collect(),
            skip_outbound: exclusions.outbound_ports.iter().copied().collect(),
            skip_subnets,
        })
    }

    /// The user whose connections are not captured.
    pub fn proxy_uid(&self) -> u32 {
        self.proxy_uid
    }

    /// A port to which outbound connections are captured, for the proof.
    pub fn captured_outbound_port(&self) -> u16 {
        (1..=u16::MAX)
            .find(|port| !self.skip_outbound.contains(port))
            .unwrap_or(1)
    }

    fn subnets(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.skip_subnets
            .iter()
            .filter(move |subnet| family.holds(subnet))
    }
}

fn check_ports(setting: &'static str, ports: &[u16], problems: &mut Vec<InvalidRule>) {
    if ports.len() > MAX_EXCLUSIONS {
        problems.push(InvalidRule::TooMany {
            setting,
            count: ports.len(),
        });
    }
    if ports.contains(&0) {
        problems.push(InvalidRule::PortZero { setting });
    }
    let reachable_by_design = |port: &u16| UNCAPTURED_INBOUND_PORTS.contains(port);
    for &port in OWN_PORTS.iter().filter(|port| ports.contains(port)) {
        if !reachable_by_design(&port) {
            problems.push(InvalidRule::OwnPort { setting, port });
        }
    }
}

fn check_subnets(subnets: &[IpNet], problems: &mut Vec<InvalidRule>) {
    if subnets.len() > MAX_EXCLUSIONS {
        problems.push(InvalidRule::TooMany {
            setting: "--skip-subnets",
            count: subnets.len(),
        });
    }
    for &subnet in subnets {
        if subnet.prefix_len() == 0 {
            problems.push(InvalidRule::EverySubnet(subnet));
            continue;
        }
        for probe in Family::BOTH.map(Family::unrouted) {
            if subnet.contains(&probe) {
                problems.push(InvalidRule::ProbeExcluded { subnet, probe });
            }
        }
    }
}

fn line(text: &mut String, content: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests;
