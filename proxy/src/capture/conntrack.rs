//! Makes the kernel forget connections it already tracks in this network namespace.
//!
//! NAT rules are asked only for a connection's first packet. An entry from before the rules
//! would let an application's connection of the same four-tuple go by uncaptured.

use rustix::net::netlink::NETFILTER;

use super::netlink::{self, NetlinkError, Question};

// From linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
/// `nfgenmsg`: any family, version 0, which together mean "all".
const EVERY_CONNECTION: [u8; 4] = [0; 4];

#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel did not forget the connections it tracks (NET_ADMIN and nf_conntrack_netlink \
     are needed)"
)]
pub struct FlushError(#[from] NetlinkError);

/// Forgets every tracked connection of this network namespace. Blocks.
///
/// # Errors
/// The kernel cannot or would not.
pub fn flush() -> Result<(), FlushError> {
    Ok(netlink::command(every_connection())?)
}

fn every_connection() -> Question<'static> {
    Question {
        protocol: NETFILTER,
        kind: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
        body: &EVERY_CONNECTION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_to_delete_connections_of_all_families() {
        let question = every_connection();
        assert_eq!(question.kind, 0x0102);
        assert_eq!(question.body, [0; 4]);
    }
}
