//! What is captured, and the same in the language of nft and of iptables. Pure text.
//!
//! Order inside a chain is meaning: whoever returns first is not captured.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_lite_proto::sidecar::{
    FORBIDDEN_UIDS, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, OWN_PORTS, SIDECAR_UID,
    UNCAPTURED_INBOUND_PORTS,
};

pub use mesh_lite_proto::sidecar::{MAX_EXCLUSIONS, UNROUTED_V4, UNROUTED_V6};

/// iptables' multiport match takes no more ports than this in one rule.
const MULTIPORT: usize = 15;

/// The own nft table and the own chains of iptables: nothing else is ever touched.
pub const NFT_TABLE: &str = "meshlite";

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

    /// One transaction that replaces the own table, whether it is there or not.
    pub fn nft(&self) -> String {
        let mut text = format!(
            "table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\ntable inet {NFT_TABLE} {{\n"
        );
        self.push_nft_sets(&mut text);
        self.push_nft_redirects(&mut text);
        self.push_nft_guards(&mut text);
        text.push_str("}\n");
        text
    }

    fn push_nft_sets(&self, text: &mut String) {
        push_set(text, "skip_in", "inet_service", &self.skip_inbound);
        push_set(text, "skip_out", "inet_service", &self.skip_outbound);
        push_set(
            text,
            "skip_net4",
            "ipv4_addr; flags interval",
            self.subnets(Family::V4),
        );
        push_set(
            text,
            "skip_net6",
            "ipv6_addr; flags interval",
            self.subnets(Family::V6),
        );
    }

    fn push_nft_redirects(&self, text: &mut String) {
        let uid = self.proxy_uid;
        push_chain(
            text,
            "out",
            "nat hook output priority -100",
            &[
                &format!("meta skuid {uid} return"),
                "oifname \"lo\" return",
                "tcp dport @skip_out return",
                "ip daddr @skip_net4 return",
                "ip6 daddr @skip_net6 return",
                &format!("meta l4proto tcp redirect to :{OUTBOUND_PORT}"),
            ],
        );
        push_chain(
            text,
            "in",
            "nat hook prerouting priority -100",
            &[
                "iifname \"lo\" return",
                "tcp dport @skip_in return",
                &format!(
                    "tcp flags & (fin|syn|rst|ack) == syn redirect to :{INBOUND_PLAINTEXT_PORT}"
                ),
            ],
        );
    }

    /// What a redirect should have taken and did not is reset.
    fn push_nft_guards(&self, text: &mut String) {
        let uid = self.proxy_uid;
        push_chain(
            text,
            "guard_out",
            "filter hook output priority 0",
            &[
                "tcp flags & (fin|syn|rst|ack) != syn accept",
                "oifname \"lo\" accept",
                &format!("meta skuid {uid} accept"),
                "tcp dport @skip_out accept",
                "ip daddr @skip_net4 accept",
                "ip6 daddr @skip_net6 accept",
                "ct status dnat accept",
                "meta l4proto tcp reject with tcp reset",
            ],
        );
        push_chain(
            text,
            "guard_in",
            "filter hook input priority 0",
            &[
                "tcp flags & (fin|syn|rst|ack) != syn accept",
                "iifname \"lo\" accept",
                "tcp dport @skip_in accept",
                "ct status dnat accept",
                "meta l4proto tcp reject with tcp reset",
            ],
        );
    }

    /// Text for `{iptables,ip6tables}-restore --noflush`. Chains of ours are emptied and filled;
    /// a jump that is there already is taken out and put back first, in the same transaction.
    pub fn iptables(&self, family: Family, jumps_present: JumpsPresent) -> String {
        let mut nat = Vec::new();
        nat.extend(self.outbound_returns("ML_OUT", family));
        nat.push(format!(
            "-A ML_OUT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"
        ));
        nat.push("-A ML_IN -i lo -j RETURN".to_owned());
        nat.extend(port_returns("ML_IN", &self.skip_inbound));
        nat.push(format!(
            "-A ML_IN -p tcp --syn -j REDIRECT --to-ports {INBOUND_PLAINTEXT_PORT}"
        ));

        let mut filter = Vec::new();
        filter.extend(self.outbound_returns("ML_GOUT", family));
        filter.push("-A ML_GOUT -m conntrack --ctstate DNAT -j RETURN".to_owned());
        filter.push("-A ML_GOUT -p tcp -j REJECT --reject-with tcp-reset".to_owned());
        filter.push("-A ML_GIN -i lo -j RETURN".to_owned());
        filter.extend(port_returns("ML_GIN", &self.skip_inbound));
        filter.push("-A ML_GIN -m conntrack --ctstate DNAT -j RETURN".to_owned());
        filter.push("-A ML_GIN -p tcp -j REJECT --reject-with tcp-reset".to_owned());

        // The guard comes first: between the two commits a connection is refused, not let out.
        let mut text = String::new();
        for (table, rules) in [(Table::Filter, filter), (Table::Nat, nat)] {
            push_table(&mut text, table, &rules, jumps_present);
        }
        text
    }

    fn outbound_returns(&self, chain: &str, family: Family) -> Vec<String> {
        // The user comes first in both languages: the sidecar's own packets are the many.
        let mut rules = vec![
            format!(
                "-A {chain} -m owner --uid-owner {} -j RETURN",
                self.proxy_uid
            ),
            format!("-A {chain} -o lo -j RETURN"),
        ];
        rules.extend(port_returns(chain, &self.skip_outbound));
        rules.extend(
            self.subnets(family)
                .map(|subnet| format!("-A {chain} -d {subnet} -j RETURN")),
        );
        rules
    }

    fn subnets(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.skip_subnets
            .iter()
            .filter(move |subnet| family.holds(subnet))
    }
}

/// Tables of iptables in which we have chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Filter,
    Nat,
}

/// A jump from a built-in chain into one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub table: &'static str,
    /// As iptables writes it behind `-A`, `-C` or `-D`.
    pub rule: &'static str,
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }

    pub fn chains(self) -> [&'static str; 2] {
        match self {
            Self::Filter => ["ML_GOUT", "ML_GIN"],
            Self::Nat => ["ML_OUT", "ML_IN"],
        }
    }

    pub fn jumps(self) -> [Jump; 2] {
        let table = self.name();
        match self {
            Self::Filter => [
                Jump {
                    table,
                    rule: "OUTPUT -p tcp --syn -j ML_GOUT",
                },
                Jump {
                    table,
                    rule: "INPUT -p tcp --syn -j ML_GIN",
                },
            ],
            Self::Nat => [
                Jump {
                    table,
                    rule: "OUTPUT -p tcp -j ML_OUT",
                },
                Jump {
                    table,
                    rule: "PREROUTING -p tcp -j ML_IN",
                },
            ],
        }
    }
}

/// Which of our jumps the kernel has already, in the order filter out, in, nat out, in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JumpsPresent {
    pub filter: [bool; 2],
    pub nat: [bool; 2],
}

impl JumpsPresent {
    fn of(self, table: Table) -> [bool; 2] {
        match table {
            Table::Filter => self.filter,
            Table::Nat => self.nat,
        }
    }

    /// Whether capture was there before, whole or in part.
    pub fn any(self) -> bool {
        self.filter
            .into_iter()
            .chain(self.nat)
            .any(|present| present)
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

fn push_set<T: fmt::Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    elements: impl IntoIterator<Item = T>,
) {
    let elements: Vec<String> = elements
        .into_iter()
        .map(|element| element.to_string())
        .collect();
    line(text, format_args!("\tset {name} {{"));
    line(text, format_args!("\t\ttype {kind}"));
    // nft refuses an empty list.
    if !elements.is_empty() {
        line(
            text,
            format_args!("\t\telements = {{ {} }}", elements.join(", ")),
        );
    }
    line(text, format_args!("\t}}"));
}

fn push_chain(text: &mut String, name: &str, hook: &str, rules: &[&str]) {
    line(text, format_args!("\tchain {name} {{"));
    line(text, format_args!("\t\ttype {hook}; policy accept;"));
    for rule in rules {
        line(text, format_args!("\t\t{rule}"));
    }
    line(text, format_args!("\t}}"));
}

fn push_table(text: &mut String, table: Table, rules: &[String], present: JumpsPresent) {
    line(text, format_args!("*{}", table.name()));
    for chain in table.chains() {
        line(text, format_args!(":{chain} - [0:0]"));
    }
    for (jump, present) in table.jumps().iter().zip(present.of(table)) {
        if present {
            line(text, format_args!("-D {}", jump.rule));
        }
    }
    for rule in rules {
        line(text, format_args!("{rule}"));
    }
    // First in the built-in chain: somebody's earlier ACCEPT must not be a way past us.
    for jump in table.jumps() {
        line(text, format_args!("-I {}", jump.rule));
    }
    line(text, format_args!("COMMIT"));
}

fn port_returns(chain: &str, ports: &BTreeSet<u16>) -> Vec<String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports
        .chunks(MULTIPORT)
        .map(|some| {
            format!(
                "-A {chain} -p tcp -m multiport --dports {} -j RETURN",
                some.join(",")
            )
        })
        .collect()
}

fn line(text: &mut String, content: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests;
