use super::*;

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

// As a kernel of x86-64 prints them: addresses in little-endian words.
const LOOPBACK_8080: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41001 1 ffff 100 0 0 10 0\n";
const ANY_8080: &str = "   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41002 1 ffff 100 0 0 10 0\n";
const POD_8080: &str = "   2: 0A004D0A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 41003 1 ffff 100 0 0 10 0\n";
const ESTABLISHED_8080: &str = "   3: 0A004D0A:1F90 0B004D0A:C350 01 00000000:00000000 02:00000AA8 00000000     0        0 41004 2 ffff 20 4 30 10 -1\n";
const V6_ANY_8080: &str = "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41005 1 ffff 100 0 0 10 0\n";
const V6_LOOPBACK_8080: &str = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41006 1 ffff 100 0 0 10 0\n";
const V6_MAPPED_LOOPBACK_8080: &str = "   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41007 1 ffff 100 0 0 10 0\n";

fn table(family: Family, lines: &[&str]) -> Result<Vec<ListeningSocket>, ListeningError> {
    let text = format!("{HEADING}{}", lines.concat());
    parse("table", family, text.as_bytes())
}

#[cfg(target_endian = "little")]
mod on_little_endian {
    use super::*;

    #[test]
    fn listeners_are_read_with_address_port_and_owner() {
        let sockets = table(Family::V4, &[LOOPBACK_8080, ANY_8080, POD_8080]).unwrap();
        let read: Vec<_> = sockets
            .iter()
            .map(|socket| (socket.address.to_string(), socket.uid))
            .collect();
        assert_eq!(
            read,
            [
                ("127.0.0.1:8080".to_owned(), 1000),
                ("0.0.0.0:8080".to_owned(), 1000),
                ("10.77.0.10:8080".to_owned(), 33),
            ]
        );
    }

    #[test]
    fn ipv6_listeners_are_read_and_mapped_ones_count_as_ipv4() {
        let lines = [V6_ANY_8080, V6_LOOPBACK_8080, V6_MAPPED_LOOPBACK_8080];
        let sockets = table(Family::V6, &lines).unwrap();
        let read: Vec<_> = sockets
            .iter()
            .map(|socket| socket.address.to_string())
            .collect();
        assert_eq!(read, ["[::]:8080", "[::1]:8080", "127.0.0.1:8080"]);
    }
}

#[test]
fn a_connection_is_no_listener() {
    assert_eq!(table(Family::V4, &[ESTABLISHED_8080]).unwrap(), []);
}

#[test]
fn an_empty_table_has_no_listener() {
    assert_eq!(table(Family::V4, &[]).unwrap(), []);
    assert_eq!(parse("table", Family::V4, &b""[..]).unwrap(), []);
}

#[test]
fn a_line_that_is_not_understood_is_an_error_not_an_absence() {
    for bad in [
        "\n",
        "garbage\n",
        "   0: 0100007F:1F90 00000000:0000\n",
        "   0: 0100007F1F90 00000000:0000 0A 0:0 0:0 0 1000 0 1\n",
        "   0: 0100007F:1F900 00000000:0000 0A 0:0 0:0 0 1000 0 1\n",
        "   0: 0100007G:1F90 00000000:0000 0A 0:0 0:0 0 1000 0 1\n",
        "   0: +100007F:1F90 00000000:0000 0A 0:0 0:0 0 1000 0 1\n",
        "   0: 0100007F:1F90 00000000:0000 A 0:0 0:0 0 1000 0 1\n",
        "   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 root 0 1\n",
        "   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 -1 0 1\n",
    ] {
        let refused = table(Family::V4, &[LOOPBACK_8080, bad]).unwrap_err();
        assert!(
            matches!(refused, ListeningError::Line { line: 3, .. }),
            "{bad:?}: {refused}"
        );
    }
}

#[test]
fn a_line_of_the_other_family_is_refused() {
    table(Family::V6, &[LOOPBACK_8080]).unwrap_err();
    table(Family::V4, &[V6_ANY_8080]).unwrap_err();
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut bytes = HEADING.as_bytes().to_vec();
    bytes.extend([0xff, 0xfe, b'\n']);
    parse("table", Family::V4, &bytes[..]).unwrap_err();
}

#[test]
fn an_endless_table_is_cut_and_nothing_is_concluded() {
    let endless = io::repeat(b'x');
    let error = parse("table", Family::V4, endless).unwrap_err();
    assert!(matches!(error, ListeningError::TooLong { .. }), "{error}");
}
