//! Default gateways of the own network namespace, from `/proc/net`.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Of a table. A pod's has a handful of lines of some 150 bytes; of a longer one the rest is not
/// read, which only makes fewer gateways known.
const MAX_TABLE: u64 = 64 * 1024;
/// Of each family.
const MAX_GATEWAYS: usize = 8;
/// From linux/route.h: the route is usable, and goes to a gateway.
const UP_BY_GATEWAY: u32 = 0x0003;
const REJECT: u32 = 0x0200;

/// None where a table can't be read: fewer may have a hook run then, never more.
pub(super) fn read() -> Vec<IpAddr> {
    let v4 = table("/proc/net/route");
    let v6 = table("/proc/net/ipv6_route");
    let v4 = v4.lines().filter_map(gateway_v4).map(IpAddr::V4);
    let v6 = v6.lines().filter_map(gateway_v6).map(IpAddr::V6);
    v4.take(MAX_GATEWAYS)
        .chain(v6.take(MAX_GATEWAYS))
        .map(|gateway| gateway.to_canonical())
        .collect()
}

fn table(path: &str) -> String {
    let read = || -> io::Result<String> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_TABLE).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| {
        // without IPv6 there is no such file
        tracing::debug!(path, %error, "default gateways are not known");
        String::new()
    })
}

/// Interface, destination, gateway, flags, three counts, mask, …: numbers as they are in memory.
fn gateway_v4(line: &str) -> Option<Ipv4Addr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (destination, gateway, flags) = (fields.next()?, fields.next()?, fields.next()?);
    let mask = fields.nth(3)?;
    let is_default = number(destination, 8)? == 0 && number(mask, 8)? == 0;
    let gateway = Ipv4Addr::from(number(gateway, 8)?.to_ne_bytes());
    (is_default && leads_to_gateway(flags)? && !gateway.is_unspecified()).then_some(gateway)
}

/// Destination, its length, source, its length, gateway, metric, two counts, flags, interface.
fn gateway_v6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [
        destination,
        destination_length,
        _,
        source_length,
        gateway,
        _,
        _,
        _,
        flags,
        _,
    ] = fields.as_slice()
    else {
        return None;
    };
    let is_default = address_v6(destination)?.is_unspecified()
        && number(destination_length, 2)? == 0
        && number(source_length, 2)? == 0;
    let gateway = address_v6(gateway)?;
    (is_default && leads_to_gateway(flags)? && !gateway.is_unspecified()).then_some(gateway)
}

fn leads_to_gateway(flags: &str) -> Option<bool> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    Some(flags & UP_BY_GATEWAY == UP_BY_GATEWAY && flags & REJECT == 0)
}

/// Hexadecimal of so many digits: a line that was cut is none.
fn number(digits: &str, length: usize) -> Option<u32> {
    let whole = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

fn address_v6(digits: &str) -> Option<Ipv6Addr> {
    let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole
        .then(|| u128::from_str_radix(digits, 16).ok())
        .flatten()
        .map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn only_a_default_route_by_a_gateway_names_one() {
        let line = "eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(gateway_v4(line), Some([10, 244, 0, 1].into()));
        for line in [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
            "eth0\t0000F40A\t0100F40A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0",
            // half of the world, as VPNs have it
            "eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000080\t0\t0\t0",
            "eth0\t00000000\t0100F40A\t0001\t0\t0\t0\t00000000\t0\t0\t0",
            "eth0\t00000000\t0100F40A\t0002\t0\t0\t0\t00000000\t0\t0\t0",
            "eth0\t00000000\t0100F40A\t0203\t0\t0\t0\t00000000\t0\t0\t0",
            "eth0\t00000000\t00000000\t0003\t0\t0\t0\t00000000\t0\t0\t0",
            "eth0\t00000000\t0100F4\t0003\t0\t0\t0\t00000000\t0\t0\t0",
            "eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t0000",
            "eth0\t00000000\t0100F40A\t0003",
            "eth0\t+0000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0",
            "",
        ] {
            assert_eq!(gateway_v4(line), None, "{line}");
        }
    }

    #[test]
    fn an_ipv6_default_route_by_a_gateway_names_one() {
        let none = "0".repeat(32);
        let gateway = "fd00000a024400000000000000000001";
        let line = |to: &str, length: &str, by: &str, flags: &str| {
            format!("{to} {length} {none} 00 {by} 00000400 00000001 00000000 {flags} eth0")
        };
        assert_eq!(
            gateway_v6(&line(&none, "00", gateway, "00000003")),
            Some("fd00:a:244::1".parse().unwrap())
        );
        for line in [
            // the kernel's own: nothing goes anywhere
            line(&none, "00", &none, "00200200"),
            line(&none, "00", &none, "00000003"),
            line(&none, "00", gateway, "00000001"),
            line(&none, "00", gateway, "00000203"),
            line(&none, "40", gateway, "00000003"),
            line(gateway, "00", gateway, "00000003"),
            line(&none, "00", "fd00", "00000003"),
            line(&none, "00", gateway, "00000003")
                .trim_end_matches(" eth0")
                .to_owned(),
            String::new(),
        ] {
            assert_eq!(gateway_v6(&line), None, "{line}");
        }
    }
}
