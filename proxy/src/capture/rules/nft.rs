//! The rules as nft reads them: one table of our own.

use std::fmt;

use mesh_lite_proto::sidecar::{INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};

use super::{Family, RuleSet, line};

/// No other table is ever touched.
pub const NFT_TABLE: &str = "meshlite";

impl RuleSet {
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
