//! The rules as `iptables-restore` reads them: chains of our own, and jumps into them.
//! Nothing else is ever touched.

use std::collections::BTreeSet;

use mesh_lite_proto::sidecar::{INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};

use super::{Family, RuleSet, line};

/// iptables' multiport match takes no more ports than this in one rule.
const MULTIPORT: usize = 15;

impl RuleSet {
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
