use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use super::*;

fn listener(address: &str) -> ListeningSocket {
    ListeningSocket {
        address: address.parse().unwrap(),
        uid: 1000,
    }
}

#[test]
fn a_listener_on_every_address_is_exposed_and_named() {
    let sockets = [listener("127.0.0.1:8080"), listener("0.0.0.0:8080")];
    let found = exposed(&sockets, &[9090, 8080]).unwrap();
    assert_eq!(
        found.to_string(),
        "inbound port 8080 is open to the network without the sidecar: a process of user \
         1000 listens on 0.0.0.0:8080; make it listen on 127.0.0.1"
    );
}

#[test]
fn a_listener_on_every_ipv6_address_is_exposed() {
    let sockets = [listener("[::1]:8080"), listener("[::]:8080")];
    let found = exposed(&sockets, &[8080]).unwrap();
    assert_eq!(found.address.to_string(), "[::]:8080");
}

#[test]
fn a_listener_on_loopback_is_not_exposed() {
    let sockets = [listener("127.0.0.1:8080"), listener("[::1]:8080")];
    assert_eq!(exposed(&sockets, &[8080]), None);
}

#[test]
fn a_listener_on_another_port_is_not_our_business() {
    assert_eq!(exposed(&[listener("10.77.0.10:8080")], &[8081]), None);
}

#[tokio::test]
async fn finds_a_real_listener_of_this_process() {
    for open in [
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap(),
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
    ] {
        let port = open.local_addr().unwrap().port();
        let refused = confined(&[port]).await.unwrap_err();
        assert!(
            matches!(&refused, NotConfined::Exposed(exposed) if exposed.port == port),
            "{open:?}: {refused}"
        );
    }
    let confined_one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    confined(&[confined_one.local_addr().unwrap().port()])
        .await
        .unwrap();
}

#[test]
fn the_kernels_list_and_its_tables_tell_the_same() {
    let mine = [
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap(),
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
        TcpListener::bind((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0)).unwrap(),
    ];
    let dumped = socket_dump::read().unwrap();
    let printed = proc_table::read().unwrap();
    for one in mine {
        let mut address = one.local_addr().unwrap();
        address.set_ip(address.ip().to_canonical());
        let of = |sockets: &[ListeningSocket]| -> Vec<ListeningSocket> {
            let same = |socket: &&ListeningSocket| socket.address == address;
            sockets.iter().filter(same).copied().collect()
        };
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(of(&dumped), [ListeningSocket { address, uid }]);
        assert_eq!(of(&dumped), of(&printed));
    }
}

#[test]
fn a_connection_from_a_listeners_own_address_is_not_listed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    let (served, _) = listener.accept().unwrap();
    assert_eq!(served.local_addr().unwrap(), address);
    let sockets = listening_sockets().unwrap();
    let same = |socket: &&ListeningSocket| socket.address == address;
    assert_eq!(sockets.iter().filter(same).count(), 1);
}

#[test]
fn a_kernel_without_such_a_list_has_its_tables_read() {
    let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let address = open.local_addr().unwrap();
    for absent in [
        NetlinkError::Ask(rustix::io::Errno::PROTONOSUPPORT.into()),
        NetlinkError::Refused(rustix::io::Errno::NOENT.into()),
    ] {
        let sockets = or_from_proc(Err(absent)).unwrap();
        assert!(sockets.iter().any(|socket| socket.address == address));
    }
}

#[test]
fn any_other_failure_is_not_made_up_for_by_the_tables() {
    for failure in [
        NetlinkError::Ask(rustix::io::Errno::ACCESS.into()),
        NetlinkError::Ask(rustix::io::Errno::NOENT.into()),
        NetlinkError::Ask(rustix::io::Errno::NOBUFS.into()),
        NetlinkError::Refused(rustix::io::Errno::PERM.into()),
        NetlinkError::Refused(rustix::io::Errno::PROTONOSUPPORT.into()),
        NetlinkError::NoAnswer,
        NetlinkError::TooLong,
        NetlinkError::Changed,
        NetlinkError::Garbled(vec![]),
    ] {
        let refused = or_from_proc(Err(failure)).unwrap_err();
        assert!(matches!(refused, ListeningError::Dump(_)), "{refused}");
    }
}
