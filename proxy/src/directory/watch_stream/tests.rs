use mesh_lite_proto::{sidecar::DIRECTORY_WAIT, workload_directory::OutboundPolicy};

use super::*;
use crate::{
    control::status::{ControlPart, ControlStatus},
    metrics::MetricsPrefix,
};

fn watch_and_handle(
    saved: Option<&wire::DirectoryResponse>,
) -> (DirectoryWatch, Directory, watch::Receiver<ControlStatus>) {
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    let reporter = Reporter::new(&status, ControlPart::Directory, &metrics, crate::clock::now);
    let (watch, directory) = DirectoryWatch::new(saved, reporter, metrics);
    (watch, directory, status.subscribe())
}

fn name(last: u8) -> Name {
    Name::Address([10, 0, 0, last].into())
}

fn outside(name: &Name) -> wire::DirectoryResponse {
    wire::DirectoryResponse {
        answers: vec![Answer::Outside.to_wire(name)],
        ..Default::default()
    }
}

fn subscribed(requests: &[wire::DirectoryRequest]) -> Vec<Name> {
    requests
        .iter()
        .flat_map(|it| &it.subscribe)
        .map(|it| it.try_into().unwrap())
        .collect()
}

/// Resolves in the background, as a connection does.
fn resolve(
    directory: &Directory,
    name: Name,
) -> tokio::task::JoinHandle<Result<Arc<Answer>, DirectoryUnavailable>> {
    let directory = directory.clone();
    tokio::spawn(async move { directory.resolve(&name).await })
}

#[tokio::test(start_paused = true)]
async fn two_connections_to_one_new_name_are_one_question() {
    let (mut watch, directory, _) = watch_and_handle(None);
    let (one, other) = (resolve(&directory, name(1)), resolve(&directory, name(1)));
    let mut asked = Vec::new();
    while asked.is_empty() {
        asked = watch.next_requests().await;
    }
    // the second question may come in its own turn
    tokio::select! {
        biased;
        more = watch.next_requests() => assert!(more.is_empty()),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(subscribed(&asked), [name(1)]);
    watch.received(outside(&name(1)));
    assert_eq!(*one.await.unwrap().unwrap(), Answer::Outside);
    assert_eq!(*other.await.unwrap().unwrap(), Answer::Outside);
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_two_seconds_and_no_longer() {
    let (mut watch, directory, _) = watch_and_handle(None);
    let began = Instant::now();
    let waiting = resolve(&directory, name(1));
    tokio::select! {
        result = waiting => {
            assert_eq!(result.unwrap(), Err(DirectoryUnavailable::NoAnswer { name: name(1) }));
        }
        () = async { loop { watch.next_requests().await; } } => {}
    }
    assert_eq!(began.elapsed(), DIRECTORY_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_asks_for_every_name_again() {
    let (mut watch, directory, _) = watch_and_handle(None);
    let _waiting: Vec<_> = (1..=3)
        .map(|last| resolve(&directory, name(last)))
        .collect();
    let mut asked = Vec::new();
    while asked.len() < 3 {
        asked.extend(subscribed(&watch.next_requests().await));
    }
    watch.received(outside(&name(1)));
    let first = watch.first_requests();
    assert_eq!(first[0].schema, SCHEMA);
    let mut again = subscribed(&first);
    again.sort();
    assert_eq!(again, [name(1), name(2), name(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_a_request_even_without_names() {
    let (mut watch, _directory, _) = watch_and_handle(None);
    assert_eq!(watch.first_requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_table_is_asked_for_in_messages_of_bounded_size() {
    let long = |number: usize| {
        let part = format!("{number:0>253}");
        let name = mesh_lite_proto::workload_directory::ServiceName {
            namespace: part.clone(),
            name: part,
        };
        Name::Service(name)
    };
    let answers = (0..mesh_lite_proto::sidecar::MAX_DIRECTORY_NAMES)
        .map(|number| Answer::Outside.to_wire(&long(number)))
        .collect();
    let saved = wire::DirectoryResponse {
        answers,
        ..Default::default()
    };
    let (mut watch, directory, _) = watch_and_handle(Some(&saved));
    assert_eq!(
        directory.names(),
        mesh_lite_proto::sidecar::MAX_DIRECTORY_NAMES
    );
    let first = watch.first_requests();
    assert!(first.len() <= 32);
    for request in &first {
        assert!(prost::Message::encoded_len(request) < MAX_GRPC_MESSAGE);
    }
}

#[tokio::test(start_paused = true)]
async fn unused_names_are_forgotten_on_both_sides() {
    let (mut watch, directory, _) = watch_and_handle(Some(&outside(&name(1))));
    let mut forgot = Vec::new();
    while forgot.is_empty() {
        let requests = watch.next_requests().await;
        forgot = requests
            .into_iter()
            .flat_map(|request| request.forget)
            .collect();
    }
    assert_eq!(Name::try_from(&forgot[0]).unwrap(), name(1));
    assert!(directory.known(&name(1)).is_none());
    assert!(directory.shared.started.elapsed() >= mesh_lite_proto::sidecar::DIRECTORY_IDLE);
}

#[tokio::test(start_paused = true)]
async fn too_many_new_names_a_second_are_refused_at_once() {
    let (mut watch, directory, _) = watch_and_handle(None);
    let scan: Vec<_> = (0..=255)
        .map(|last| resolve(&directory, name(last)))
        .collect();
    let pump = tokio::spawn(async move {
        loop {
            watch.next_requests().await;
        }
    });
    let mut too_fast = 0;
    for one in scan {
        too_fast += usize::from(matches!(
            one.await.unwrap(),
            Err(DirectoryUnavailable::TooFast { .. })
        ));
    }
    pump.abort();
    assert_eq!(too_fast, 56);
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_read_leave_those_before_and_none_refuse() {
    let (mut watch, directory, status) = watch_and_handle(None);
    assert_eq!(*directory.settings(), MeshSettings::default());
    let open = wire::MeshSettings {
        outbound_policy: wire::OutboundPolicy::AllowAny.into(),
        ..Default::default()
    };
    watch.received(wire::DirectoryResponse {
        mesh: Some(open.clone()),
        ..Default::default()
    });
    assert_eq!(
        directory.settings().outbound_policy,
        OutboundPolicy::AllowAny
    );
    let unreadable = wire::MeshSettings {
        mesh_cidrs: vec!["10.0.0.0/99".to_owned()],
        ..open
    };
    watch.received(wire::DirectoryResponse {
        mesh: Some(unreadable),
        ..Default::default()
    });
    assert!(directory.settings().mesh_cidrs.is_empty());
    assert!(
        status
            .borrow()
            .directory
            .error
            .as_ref()
            .unwrap()
            .contains("10.0.0.0/99")
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_change_makes_the_name_be_asked_for_anew() {
    use mesh_lite_proto::workload_directory::{Service, ServiceName};
    let service = Answer::Service(Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        ports: Vec::new(),
        endpoints: Default::default(),
        session_affinity: false,
    });
    let saved = wire::DirectoryResponse {
        answers: vec![service.to_wire(&name(1))],
        ..Default::default()
    };
    let (mut watch, directory, _) = watch_and_handle(Some(&saved));
    let change = service.to_wire_after(&name(1), Some(&service));
    let change = wire::DirectoryAnswer {
        min_schema: 99,
        ..change
    };
    let requests = watch.received(wire::DirectoryResponse {
        answers: vec![change],
        ..Default::default()
    });
    assert_eq!(requests.len(), 2);
    assert_eq!(Name::try_from(&requests[0].forget[0]).unwrap(), name(1));
    assert_eq!(subscribed(&requests[1..]), [name(1)]);
    assert_eq!(*directory.known(&name(1)).unwrap(), service);
}

#[tokio::test(start_paused = true)]
async fn an_address_in_ipv6_clothes_is_the_same_name() {
    let (_watch, directory, _) = watch_and_handle(Some(&outside(&name(1))));
    let mapped = Name::Address("::ffff:10.0.0.1".parse().unwrap());
    assert!(directory.known(&mapped).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_is_what_is_restored() {
    let (mut watch, directory, _) = watch_and_handle(Some(&outside(&name(1))));
    let mesh = wire::MeshSettings {
        mesh_cidrs: vec!["10.0.0.0/8".to_owned()],
        ..Default::default()
    };
    watch.received(wire::DirectoryResponse {
        mesh: Some(mesh),
        ..Default::default()
    });
    let (changes, _) = directory.changes();
    let (_again, restored, _) = watch_and_handle(Some(&changes.to_wire()));
    assert_eq!(*restored.known(&name(1)).unwrap(), Answer::Outside);
    assert_eq!(restored.settings(), directory.settings());
}
