use std::{net::SocketAddr, sync::Arc};

use mesh_lite_proto::{authorization::SourceRef, tunnel::EncodedAnswer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::{
    metrics::{ConnectionLabels, Metrics, MetricsPrefix},
    tls::fixture::Pair,
    tunnel::Tunnel,
};

/// application ── forward ══ TLS ══ forward ── server, all on loopback.
struct Line {
    application: TcpStream,
    server: TcpStream,
    dialler: JoinHandle<Result<(), Broken>>,
    accepter: JoinHandle<Result<(), Broken>>,
    cut: Arc<Cut>,
}

fn meter(direction: Direction) -> ConnectionMeter {
    Metrics::new(&MetricsPrefix::default(), 10).connection(&ConnectionLabels {
        direction,
        source: None,
        destination: None,
        mutual_tls: true,
    })
}

async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let (dialled, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
    socket::prepare(&dialled).unwrap();
    socket::prepare(&accepted).unwrap();
    (dialled, accepted)
}

async fn line(status: Option<Status>) -> Line {
    let (application, application_side) = socket_pair().await;
    let (server_side, server) = socket_pair().await;
    // the outermost ends are applications: they have a kernel's defaults
    socket::end_cleanly(&application);
    socket::end_cleanly(&server);
    let (client, mut accepted) = Pair::new().tunnels(socket_pair().await).await;
    let cut = Arc::new(Cut::default());
    let dialler = tokio::spawn(run(
        application_side,
        client,
        Direction::Outbound,
        Arc::clone(&cut),
    ));
    if let Some(status) = status {
        accepted.answer(&EncodedAnswer::new(status, Some(&policy())));
    }
    let accepter = tokio::spawn(run(
        server_side,
        accepted,
        Direction::Inbound,
        Arc::default(),
    ));
    Line {
        application,
        server,
        dialler,
        accepter,
        cut,
    }
}

async fn run(
    application: TcpStream,
    tunnel: Tunnel,
    direction: Direction,
    cut: Arc<Cut>,
) -> Result<(), Broken> {
    let mut answers = Vec::new();
    let ended = run_and_note(application, tunnel, direction, cut, &mut answers).await;
    assert!(answers.len() <= 1, "one answer: {answers:?}");
    ended
}

/// Notes each answer: its status, and what decided.
async fn run_and_note(
    mut application: TcpStream,
    mut tunnel: Tunnel,
    direction: Direction,
    cut: Arc<Cut>,
    answers: &mut Vec<(Status, String)>,
) -> Result<(), Broken> {
    let meter = meter(direction);
    let mut answered = |answer: Answer<'_>| {
        let decided_by = answer.decided_by.map(|named| named.as_str().to_owned());
        answers.push((answer.status, decided_by.unwrap_or_default()));
    };
    let awaited = (direction == Direction::Outbound).then_some(Awaited {
        due: Instant::now() + Duration::from_secs(60),
        answered: &mut answered,
    });
    Forward {
        application: &mut application,
        far: Far::Tunnel {
            socket: &mut tunnel.socket,
            session: &mut tunnel.session,
        },
        count: Count {
            direction,
            meter: &meter,
        },
        cut: &cut,
        early: Vec::new(),
        awaited,
    }
    .run()
    .await
}

fn policy() -> SourceRef {
    SourceRef {
        document: "shop/api-from-web".into(),
        file: "policy.yaml".into(),
        line: 12,
    }
}

/// What a dialler makes of an answer that comes in these pieces, each in a record of its own,
/// and of `after` behind it: what its application read, the answers told, and how it ended.
async fn answered_with(
    pieces: &[&[u8]],
    after: &[u8],
) -> (
    io::Result<Vec<u8>>,
    Vec<(Status, String)>,
    Result<(), Broken>,
) {
    let (mut application, application_side) = socket_pair().await;
    socket::end_cleanly(&application);
    let (client, mut accepted) = Pair::new().tunnels(socket_pair().await).await;
    let mut answers = Vec::new();
    let dialler = run_and_note(
        application_side,
        client,
        Direction::Outbound,
        Arc::default(),
        &mut answers,
    );
    let peer = async {
        for piece in pieces.iter().copied().chain([after]) {
            accepted.session.seal(piece);
            accepted
                .session
                .send_records(&mut Nonblocking(&accepted.socket))?;
            // the dialler's turn: each piece is read by itself
            tokio::task::yield_now().await;
        }
        accepted.session.seal_end();
        accepted
            .session
            .send_records(&mut Nonblocking(&accepted.socket))?;
        application.shutdown().await?;
        read_to_end(&mut application).await
    };
    let (ended, read) = tokio::join!(dialler, peer);
    (read, answers, ended)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

async fn read_to_end(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).await?;
    Ok(all)
}

#[tokio::test]
async fn carries_every_byte_both_ways_at_once_and_ends_cleanly() {
    let line = line(Some(Status::Ok)).await;
    let sent = pattern(5_000_003);
    let (mut from_app, mut to_app) = line.application.into_split();
    let (mut from_server, mut to_server) = line.server.into_split();
    let mut at_server = Vec::new();
    let mut at_app = Vec::new();
    let (a, b, c, d) = tokio::join!(
        async { to_app.write_all(&sent).await.and(to_app.shutdown().await) },
        async {
            to_server
                .write_all(&sent)
                .await
                .and(to_server.shutdown().await)
        },
        from_server.read_to_end(&mut at_server),
        from_app.read_to_end(&mut at_app),
    );
    a.and(b).unwrap();
    c.and(d).unwrap();
    assert!(at_server == sent && at_app == sent);
    line.dialler.await.unwrap().unwrap();
    line.accepter.await.unwrap().unwrap();
}

#[tokio::test]
async fn keeps_the_other_direction_open_after_one_has_ended() {
    let mut line = line(Some(Status::Ok)).await;
    line.application.write_all(b"question").await.unwrap();
    line.application.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut line.server).await.unwrap(), b"question");
    line.server.write_all(b"late answer").await.unwrap();
    line.server.shutdown().await.unwrap();
    assert_eq!(
        read_to_end(&mut line.application).await.unwrap(),
        b"late answer"
    );
    line.dialler.await.unwrap().unwrap();
    line.accepter.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reset_becomes_a_reset_at_the_other_end() {
    let mut line = line(Some(Status::Ok)).await;
    line.application.write_all(b"half a mess").await.unwrap();
    let mut buffer = [0; 11];
    line.server.read_exact(&mut buffer).await.unwrap();
    socket2::SockRef::from(&line.application)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(line.application);
    let error = read_to_end(&mut line.server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(
        line.dialler.await.unwrap(),
        Err(Broken::Application(_))
    ));
}

/// What a killed sidecar leaves behind: TCP ends, TLS does not.
#[tokio::test]
async fn an_end_without_close_notify_is_a_reset_and_never_an_end() {
    let (mut application, application_side) = socket_pair().await;
    let (client, accepted) = Pair::new().tunnels(socket_pair().await).await;
    let mut accepted = accepted;
    accepted.answer(&EncodedAnswer::new(Status::Ok, None));
    accepted.session.seal(b"part");
    accepted
        .session
        .send_records(&mut Nonblocking(&accepted.socket))
        .unwrap();
    let dialler = tokio::spawn(run(
        application_side,
        client,
        Direction::Outbound,
        Arc::default(),
    ));
    let mut part = [0; 4];
    application.read_exact(&mut part).await.unwrap();
    socket::end_cleanly(&accepted.socket);
    drop(accepted);
    let error = read_to_end(&mut application).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(dialler.await.unwrap(), Err(Broken::Truncated)));
}

#[tokio::test]
async fn a_refusal_resets_the_application_and_its_bytes_are_not_shown() {
    let mut line = line(Some(Status::Denied)).await;
    line.server.write_all(b"not for you").await.unwrap();
    assert!(read_to_end(&mut line.application).await.is_err());
    assert!(matches!(
        line.dialler.await.unwrap(),
        Err(Broken::Status(Status::Denied))
    ));
}

#[tokio::test]
async fn an_answer_in_any_two_pieces_is_the_answer_and_what_follows_is_the_applications() {
    let encoded = EncodedAnswer::new(Status::Ok, Some(&policy()));
    let whole = encoded.as_slice();
    let named = vec![(Status::Ok, policy().to_string())];
    for cut in 0..=whole.len() {
        let (first, second) = whole.split_at(cut);
        let (read, answers, ended) = answered_with(&[first, second], b"bytes").await;
        ended.unwrap();
        assert_eq!(read.unwrap(), b"bytes", "cut at {cut}");
        assert_eq!(answers, named, "cut at {cut}");
    }
}

#[tokio::test]
async fn an_answer_byte_by_byte_with_the_applications_bytes_in_its_last_record_is_taken_apart() {
    let longest = SourceRef {
        file: "long/".repeat(80).into(),
        ..policy()
    };
    let encoded = EncodedAnswer::new(Status::Ok, Some(&longest));
    let (last, before) = encoded.as_slice().split_last().unwrap();
    let pieces: Vec<&[u8]> = before.chunks(1).collect();
    let (read, answers, ended) = answered_with(&pieces, &[&[*last], &b"bytes"[..]].concat()).await;
    ended.unwrap();
    assert_eq!(read.unwrap(), b"bytes");
    assert_eq!(answers.len(), 1);
    assert!(answers[0].1.ends_with("long/:12)"), "{answers:?}");
}

#[tokio::test]
async fn a_denial_is_told_with_its_policy_and_shows_no_byte_behind_it() {
    let denied = EncodedAnswer::new(Status::Denied, Some(&policy()));
    let (read, answers, ended) = answered_with(&[denied.as_slice()], b"bytes").await;
    assert!(matches!(ended, Err(Broken::Status(Status::Denied))));
    assert_eq!(answers, [(Status::Denied, policy().to_string())]);
    assert!(read.map_or(true, |read| read.is_empty()));
}

#[tokio::test]
async fn what_is_not_an_answer_resets_and_is_told_to_nobody() {
    let broken: [&[u8]; 6] = [
        &[77],
        &[0, 201],
        b"\0\x08a (b\n:1)",
        b"\0\x08a (\xff\xff:1)",
        b"\0\x04text",
        b"HTTP/1.1 200 OK\r\n",
    ];
    for answer in broken {
        let (read, answers, ended) = answered_with(&[answer], b"bytes").await;
        assert!(
            matches!(ended, Err(Broken::InvalidAnswer(_))),
            "{answer:?}: {ended:?}"
        );
        assert_eq!(answers, []);
        assert!(read.map_or(true, |read| read.is_empty()), "{answer:?}");
    }
}

#[tokio::test]
async fn an_end_within_the_answer_is_no_answer() {
    let encoded = EncodedAnswer::new(Status::Ok, Some(&policy()));
    for length in 0..encoded.as_slice().len() {
        let (read, answers, ended) = answered_with(&[&encoded.as_slice()[..length]], b"").await;
        assert!(matches!(ended, Err(Broken::Truncated)), "{ended:?}");
        assert_eq!(answers, []);
        assert!(read.map_or(true, |read| read.is_empty()));
    }
}

#[tokio::test]
async fn without_an_answer_in_time_the_application_is_reset() {
    let (mut application, mut application_side) = socket_pair().await;
    let (mut client, mut slow) = Pair::new().tunnels(socket_pair().await).await;
    // a part of an answer is none
    slow.session.seal(&[Status::Ok.encode(), 30, b'a']);
    slow.session
        .send_records(&mut Nonblocking(&slow.socket))
        .unwrap();
    let meter = meter(Direction::Outbound);
    let mut answered = |answer: Answer<'_>| panic!("nobody answered {answer:?}");
    let ended = Forward {
        application: &mut application_side,
        far: Far::Tunnel {
            socket: &mut client.socket,
            session: &mut client.session,
        },
        count: Count {
            direction: Direction::Outbound,
            meter: &meter,
        },
        cut: &Cut::default(),
        early: Vec::new(),
        awaited: Some(Awaited {
            due: Instant::now() + Duration::from_millis(20),
            answered: &mut answered,
        }),
    }
    .run()
    .await;
    assert!(matches!(ended, Err(Broken::NoAnswer)));
    drop(application_side);
    assert!(read_to_end(&mut application).await.is_err());
}

#[tokio::test]
async fn a_cut_resets_a_connection_at_rest() {
    let mut line = line(Some(Status::Ok)).await;
    line.application.write_all(b"x").await.unwrap();
    let mut byte = [0];
    line.server.read_exact(&mut byte).await.unwrap();
    line.cut.cut(CutReason::TrustChanged);
    assert!(read_to_end(&mut line.application).await.is_err());
    assert!(read_to_end(&mut line.server).await.is_err());
    assert!(matches!(
        line.dialler.await.unwrap(),
        Err(Broken::Cut(CutReason::TrustChanged))
    ));
}

#[tokio::test]
async fn garbage_in_the_place_of_records_breaks_the_tunnel() {
    let (mut application, application_side) = socket_pair().await;
    let (client, accepted) = Pair::new().tunnels(socket_pair().await).await;
    accepted.socket.writable().await.unwrap();
    accepted.socket.try_write(&[0x17, 3, 3, 0, 40]).unwrap();
    accepted.socket.try_write(&[7; 40]).unwrap();
    let dialler = tokio::spawn(run(
        application_side,
        client,
        Direction::Outbound,
        Arc::default(),
    ));
    assert!(read_to_end(&mut application).await.is_err());
    assert!(matches!(dialler.await.unwrap(), Err(Broken::Records(_))));
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    let line = line(Some(Status::Ok)).await;
    let chunk = pattern(64 * 1024);
    let mut sent = 0_usize;
    let stalled = tokio::time::timeout(Duration::from_secs(30), async {
        // until the kernel's buffers and one buffer of ours at each side are full
        while sent < 256 * 1024 * 1024 {
            line.application.writable().await.unwrap();
            match line.application.try_write(&chunk) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let full = tokio::time::timeout(
                        Duration::from_millis(300),
                        line.application.writable(),
                    );
                    if full.await.is_err() {
                        return;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    stalled.await.unwrap();
    assert!(
        sent < 64 * 1024 * 1024,
        "{sent} bytes were taken and nobody read them"
    );
    let (mut server, mut received) = (line.server, 0_usize);
    let mut buffer = vec![0; 256 * 1024];
    while received < sent {
        received += server.read(&mut buffer).await.unwrap();
    }
    assert_eq!(received, sent);
}
