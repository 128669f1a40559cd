use std::{io::Write, sync::Mutex, time::SystemTime};

use mesh_lite_proto::tunnel::EncodedAnswer;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    access_log::{AccessLog, ConnectionIds},
    decisions::{Decisions, room},
    metrics::{Metrics, MetricsPrefix},
    socket::{self, Nonblocking},
    tls::fixture::Pair,
};

/// Ten times what anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
    socket::prepare(&dialled).unwrap();
    socket::prepare(&accepted).unwrap();
    (dialled, accepted)
}

/// What came of a connection to one endpoint, and what was told of it.
struct Came {
    ended: Ended,
    open_lines: usize,
    refused: bool,
}

/// The application has sent `early` when the endpoint answers.
async fn answered(status: Status, early: &[u8], may_try_another: bool) -> Came {
    let (mut application, mut application_side) = socket_pair().await;
    let (tunnel, mut accepted) = Pair::new().tunnels(socket_pair().await).await;
    let (memory, metrics) = (
        Memory::default(),
        Metrics::new(&MetricsPrefix::default(), 10),
    );
    let log = AccessLog::write_to(memory.clone(), &metrics).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let decisions = Decisions::new(room(None), epoch, &metrics);
    let account = Account::open(
        ConnectionIds::of_new_run().next_id(),
        Direction::Outbound,
        ([10, 0, 0, 1], 4711).into(),
        (&metrics, &log, &decisions, || SystemTime::UNIX_EPOCH),
    );
    let cut = Cut::default();
    let peer = async {
        application.write_all(early).await.unwrap();
        if !early.is_empty() {
            // until it has been taken from the application and sent
            accepted.socket.readable().await.unwrap();
        }
        accepted.answer(&EncodedAnswer::new(status, None));
        let socket = Nonblocking(&accepted.socket);
        accepted.session.send_records(&mut { socket }).unwrap();
    };
    let forwarding = forward_tunnel(
        &mut application_side,
        tunnel,
        &cut,
        may_try_another,
        &account,
    );
    let (ended, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(forwarding, peer) })
        .await
        .unwrap();
    assert!(log.flush(PATIENCE));
    let lines = memory.0.lock().unwrap().clone();
    let refused = metrics
        .encode(epoch)
        .contains("mesh_lite_refused_total{reason=\"refused_by_peer\"} 1");
    Came {
        ended,
        open_lines: String::from_utf8(lines).unwrap().lines().count(),
        refused,
    }
}

#[tokio::test]
async fn of_an_endpoint_that_goes_away_nothing_is_told_while_another_is_tried() {
    for status in [Status::Draining, Status::Overloaded] {
        let came = answered(status, b"", true).await;
        assert_eq!(came.ended, Ended::TryAnother, "{status:?}");
        assert_eq!((came.open_lines, came.refused), (0, false), "{status:?}");
    }
}

#[tokio::test]
async fn the_last_endpoint_that_goes_away_is_told_once_as_a_refusal() {
    for status in [Status::Draining, Status::Overloaded] {
        let came = answered(status, b"", false).await;
        assert_eq!(came.ended, Ended::Over, "{status:?}");
        assert_eq!((came.open_lines, came.refused), (1, true), "{status:?}");
    }
}

#[tokio::test]
async fn what_has_taken_bytes_is_not_tried_elsewhere_and_told_once() {
    let came = answered(Status::Draining, b"a request", true).await;
    assert_eq!(came.ended, Ended::Over);
    assert_eq!((came.open_lines, came.refused), (1, true));
}

#[tokio::test]
async fn an_endpoint_that_denies_is_final() {
    let came = answered(Status::Denied, b"", true).await;
    assert_eq!(came.ended, Ended::Over);
    assert_eq!(came.open_lines, 1);
}
