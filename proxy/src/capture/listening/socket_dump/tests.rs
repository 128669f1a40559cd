use super::*;

const MINE: u32 = 1000;

/// `inet_diag_msg` without attributes.
fn body(family: u8, state: u8, address: &[u8], port: u16) -> Vec<u8> {
    let mut body = vec![family, state, 0, 0];
    body.extend(port.to_be_bytes());
    body.extend([0; 2]);
    body.extend(address);
    body.resize(64, 0);
    body.extend(MINE.to_ne_bytes());
    body.extend([0; 4]);
    body
}

fn read_one(family: Family, body: &[u8]) -> Option<ListeningSocket> {
    let kind = SOCK_DIAG_BY_FAMILY;
    understand(family, Message { kind, body })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

#[test]
fn asks_for_tcp_sockets_in_state_listen_and_no_others() {
    let body = request(Family::V6);
    assert_eq!(body.len(), 56);
    assert_eq!(body[..4], [10, 6, 0, 0]);
    assert_eq!(body[4..8], 0x400_u32.to_ne_bytes());
    assert!(body[8..].iter().all(|byte| *byte == 0));
    assert_eq!(request(Family::V4)[0], 2);
}

// As Linux 6.18 on x86-64 sent them, with its attributes.
#[cfg(target_endian = "little")]
#[test]
fn what_a_kernel_sent_is_read() {
    let v4 = bytes(
        "020a0000ad9300007f00000100000000000000000000000000000000000000000000000000000000\
         00000000110000000000000000000000000000008000000000000000d62320000500080000000000\
         08000f00000000000c00150001000000000000000600160052000000",
    );
    let v6 = bytes(
        "0a0a0000dddd00000000000000000000000000000000000000000000000000000000000000000000\
         00000000210000000000000000000000000000008000000000000000d523200005000800000000000\
         5000b000000000008000f00000000000c00150001000000000000000600160012000000",
    );
    let read = |family, body: &[u8]| read_one(family, body).unwrap();
    assert_eq!(
        read(Family::V4, &v4),
        ListeningSocket {
            address: "127.0.0.1:44435".parse().unwrap(),
            uid: 0
        }
    );
    assert_eq!(read(Family::V6, &v6).address.to_string(), "[::]:56797");
}

#[test]
fn address_port_and_owner_are_read() {
    let read = read_one(Family::V4, &body(2, TCP_LISTEN, &[10, 77, 0, 10], 8080)).unwrap();
    assert_eq!(read.address.to_string(), "10.77.0.10:8080");
    assert_eq!(read.uid, MINE);
}

#[test]
fn an_ipv4_address_mapped_into_ipv6_counts_as_ipv4() {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    let read = read_one(Family::V6, &body(10, TCP_LISTEN, &mapped, 8080)).unwrap();
    assert_eq!(read.address.to_string(), "127.0.0.1:8080");
}

#[test]
fn a_socket_of_another_family_is_not_understood() {
    let v4 = body(2, TCP_LISTEN, &[0; 4], 8080);
    let v6 = body(10, TCP_LISTEN, &[0; 16], 8080);
    assert_eq!(read_one(Family::V6, &v4), None);
    assert_eq!(read_one(Family::V4, &v6), None);
    for unknown in [0, 1, 3, 16, 255] {
        let body = body(unknown, TCP_LISTEN, &[0; 16], 8080);
        assert_eq!(read_one(Family::V4, &body), None);
        assert_eq!(read_one(Family::V6, &body), None);
    }
}

#[test]
fn a_socket_that_does_not_listen_is_not_understood() {
    for state in (0..=u8::MAX).filter(|state| *state != TCP_LISTEN) {
        assert_eq!(read_one(Family::V4, &body(2, state, &[0; 4], 8080)), None);
    }
}

#[test]
fn a_socket_cut_anywhere_is_not_understood() {
    let whole = body(10, TCP_LISTEN, &[0; 16], 8080);
    assert_eq!(whole.len(), 72);
    assert!(read_one(Family::V6, &whole).is_some());
    for length in 0..whole.len() {
        assert_eq!(read_one(Family::V6, &whole[..length]), None, "{length}");
    }
}

#[test]
fn a_message_of_another_kind_is_not_understood() {
    let body = body(2, TCP_LISTEN, &[0; 4], 8080);
    for kind in [0, 1, 16, 18, 19, 21, 22, u16::MAX] {
        let message = Message { kind, body: &body };
        assert_eq!(understand(Family::V4, message), None);
    }
}
