use std::net::IpAddr;

use mesh_lite_proto::{
    wire::mesh_lite::v1::{
        DirectoryName, DirectoryRequest, DirectoryResponse, OutboundPolicy, OutboundUnmeshed,
        workload_directory_client::WorkloadDirectoryClient,
    },
    workload_directory::{Answer, Name, ServiceName},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::running::{Directories, Running, WORKLOADS, in_time};

struct Stream {
    requests: mpsc::Sender<DirectoryRequest>,
    responses: Streaming<DirectoryResponse>,
}

fn address(text: &str) -> Name {
    Name::Address(text.parse::<IpAddr>().unwrap())
}

fn service(namespace: &str, name: &str) -> Name {
    Name::Service(ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn subscribe(names: &[Name]) -> DirectoryRequest {
    DirectoryRequest {
        schema: 1,
        subscribe: names.iter().map(DirectoryName::from).collect(),
        forget: Vec::new(),
    }
}

impl Stream {
    async fn open(channel: Channel, first: DirectoryRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let mut client = WorkloadDirectoryClient::new(channel);
        let opening = client.watch(ReceiverStream::new(receiver));
        let responses = in_time("the stream opens", opening).await?.into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn next(&mut self) -> Result<DirectoryResponse, Status> {
        let next = in_time("a response", self.responses.message()).await;
        next.map(|response| response.expect("the stream ended without a status"))
    }

    /// The answer to one name, as a sidecar that knew `before` reads it.
    async fn answer(&mut self, name: &Name, before: Option<&Answer>) -> Answer {
        let response = self.next().await.unwrap();
        let answer = response
            .answers
            .iter()
            .find(|answer| Name::try_from(answer.name.as_ref().unwrap()).unwrap() == *name)
            .unwrap_or_else(|| panic!("no answer to {name} in {response:?}"));
        Answer::from_wire(answer, before).unwrap()
    }
}

#[tokio::test]
async fn answers_addresses_services_and_strangers() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let api = address("10.0.0.2");
    let names = [
        api.clone(),
        address("fd00::2"),
        address("::ffff:10.0.0.2"),
        address("10.96.0.1"),
        service("shop", "api"),
        address("10.99.99.99"),
        address("93.184.216.34"),
        service("shop", "nothing"),
    ];
    let mut stream = Stream::open(channel, subscribe(&names)).await.unwrap();
    let response = stream.next().await.unwrap();
    let settings = response.mesh.unwrap();
    assert_eq!(settings.outbound_unmeshed(), OutboundUnmeshed::Refuse);
    assert_eq!(settings.outbound_policy(), OutboundPolicy::RegistryOnly);
    let answer = |name: &Name| {
        let found = response
            .answers
            .iter()
            .find(|answer| Name::try_from(answer.name.as_ref().unwrap()).unwrap() == *name);
        Answer::from_wire(found.unwrap(), None).unwrap()
    };
    let Answer::Endpoint(endpoint) = answer(&api) else {
        panic!("{:?}", answer(&api))
    };
    let meshed = endpoint.meshed.clone().unwrap();
    assert_eq!(meshed.id.as_str(), "spiffe://mesh.test/ns/shop/sa/api");
    assert_eq!((meshed.tunnel_port, endpoint.name.as_str()), (25008, "api"));
    assert_eq!(answer(&names[2]), Answer::Endpoint(endpoint.clone()));
    for name in &names[3..5] {
        let Answer::Service(found) = answer(name) else {
            panic!("{:?}", answer(name))
        };
        assert_eq!(
            found
                .ports
                .first()
                .map(|port| (port.port, port.target_port)),
            Some((80, 8080))
        );
        assert_eq!(found.endpoints.len(), 2);
        assert_eq!(found.endpoints[&endpoint.address], endpoint);
    }
    assert!(matches!(answer(&names[5]), Answer::Unknown { .. }));
    assert_eq!(answer(&names[6]), Answer::Outside);
    assert!(matches!(answer(&names[7]), Answer::Unknown { .. }));
}

#[tokio::test]
async fn sends_what_changed_and_a_service_as_its_change() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let (api, web) = (service("shop", "api"), address("10.0.0.1"));
    let mut stream = Stream::open(channel, subscribe(&[api.clone(), web]))
        .await
        .unwrap();
    let before = stream.answer(&api, None).await;
    running.directories.write(
        "more.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
         metadata: {name: api-2, namespace: shop, labels: {app: api}}\n\
         spec: {serviceAccount: api, addresses: [10.0.0.3], meshed: false}\n",
    );
    let response = stream.next().await.unwrap();
    assert_eq!(
        response.answers.len(),
        1,
        "only the service changed: {response:?}"
    );
    let change = &response.answers[0];
    let after = Answer::from_wire(change, Some(&before)).unwrap();
    let Answer::Service(after) = after else {
        panic!("{after:?}")
    };
    assert_eq!(after.endpoints.len(), 3);
    let unmeshed = &after.endpoints[&"10.0.0.3".parse::<IpAddr>().unwrap()];
    assert_eq!(unmeshed.meshed, None);
    // it can only be read as a change
    assert!(Answer::from_wire(change, None).is_err());

    running.directories.remove("more.yaml");
    let again = stream.answer(&api, Some(&Answer::Service(after))).await;
    assert_eq!(again, before);
}

#[tokio::test]
async fn answers_nobody_for_an_address_with_two_claimants_and_the_rest_as_before() {
    let directories = Directories::new();
    directories.write(
        "impostor.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: evil, namespace: evil}\n\
         spec: {serviceAccount: evil, addresses: [10.0.0.2]}\n",
    );
    let running = Running::start_in(directories).await;
    let channel = running.workload("shop/web").await;
    let names = [address("10.0.0.2"), service("shop", "api")];
    let mut stream = Stream::open(channel, subscribe(&names)).await.unwrap();
    let response = stream.next().await.unwrap();
    let mut answers: Vec<Answer> = response
        .answers
        .iter()
        .map(|answer| Answer::from_wire(answer, None).unwrap())
        .collect();
    let Some(Answer::Service(service)) = answers.pop() else {
        panic!("{response:?}")
    };
    let addresses: Vec<IpAddr> = service.endpoints.into_keys().collect();
    assert_eq!(addresses, ["fd00::2".parse::<IpAddr>().unwrap()]);
    let Some(Answer::Unknown { reason }) = answers.pop() else {
        panic!("{response:?}")
    };
    assert!(
        reason.contains("Workload evil/evil and by Workload shop/api"),
        "{reason}"
    );
}

#[tokio::test]
async fn keeps_the_last_good_workload_when_its_document_or_its_file_breaks() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let api = address("10.0.0.2");
    let mut stream = Stream::open(channel, subscribe(std::slice::from_ref(&api)))
        .await
        .unwrap();
    let before = stream.answer(&api, None).await;
    for broken in [
        WORKLOADS.replace("tunnelPort: 25008", "tunnelPort: 0"),
        "}{".to_owned(),
    ] {
        running.directories.write("workloads.yaml", &broken);
        super::running::eventually("the fault is seen", async || {
            (running.get("/readyz").await.1 != "ok\n").then_some(())
        })
        .await;
        running.directories.write("workloads.yaml", WORKLOADS);
        super::running::eventually("the repair is seen", async || {
            (running.get("/readyz").await.1 == "ok\n").then_some(())
        })
        .await;
    }
    running
        .directories
        .write("workloads.yaml", &WORKLOADS.replace("25008", "25009"));
    // nothing was sent in between: this is the next message
    let Answer::Endpoint(after) = stream.answer(&api, Some(&before)).await else {
        panic!()
    };
    assert_eq!(after.meshed.unwrap().tunnel_port, 25009);
}

#[tokio::test]
async fn answers_again_after_forgetting_and_sends_a_service_whole_then() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let api = service("shop", "api");
    let mut stream = Stream::open(channel, subscribe(std::slice::from_ref(&api)))
        .await
        .unwrap();
    let before = stream.answer(&api, None).await;
    let forget = DirectoryRequest {
        forget: vec![(&api).into()],
        ..DirectoryRequest::default()
    };
    stream.requests.send(forget).await.unwrap();
    stream
        .requests
        .send(subscribe(std::slice::from_ref(&api)))
        .await
        .unwrap();
    assert_eq!(stream.answer(&api, None).await, before);
}

/// `count` workloads of one label, in files of a thousand, and the service that selects them.
fn write_large_service(directories: &Directories, count: u16) {
    use std::fmt::Write;
    let mut texts: Vec<String> = Vec::new();
    for number in 0..count {
        if number % 1000 == 0 {
            texts.push(String::new());
        }
        let [high, low] = number.to_be_bytes();
        writeln!(
            texts.last_mut().unwrap(),
            "---\napiVersion: mesh-lite.io/v1\nkind: Workload\n\
             metadata: {{name: w{number}, namespace: big, labels: {{app: big}}}}\n\
             spec: {{serviceAccount: w, addresses: [10.100.{high}.{low}]}}"
        )
        .unwrap();
    }
    texts.push(
        "apiVersion: mesh-lite.io/v1\nkind: Service\nmetadata: {name: big, namespace: big}\n\
         spec: {ports: [{port: 80}], selector: {app: big}}"
            .to_owned(),
    );
    for (number, text) in texts.iter().enumerate() {
        directories.write(&format!("big-{number}.yaml"), text);
    }
}

#[tokio::test]
async fn sends_a_service_with_very_many_endpoints_in_parts() {
    let directories = Directories::new();
    write_large_service(&directories, 2500);
    let running = Running::start_in(directories).await;
    let channel = running.workload("shop/web").await;
    let big = service("big", "big");
    let mut stream = Stream::open(channel, subscribe(std::slice::from_ref(&big)))
        .await
        .unwrap();
    let first = stream.answer(&big, None).await;
    let Answer::Service(part) = &first else {
        panic!("{first:?}")
    };
    assert_eq!(part.endpoints.len(), 2048);
    let Answer::Service(whole) = stream.answer(&big, Some(&first)).await else {
        panic!()
    };
    assert_eq!(whole.endpoints.len(), 2500);
}

fn addresses(count: usize) -> Vec<Name> {
    let numbered = |number: usize| {
        let [.., b, c, d] = number.to_be_bytes();
        address(&format!("10.{b}.{c}.{d}"))
    };
    (0..count).map(numbered).collect()
}

#[tokio::test]
async fn ends_streams_that_name_too_much_at_once_or_too_fast() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let many = addresses(8193);
    let mut stream = Stream::open(channel.clone(), subscribe(&many))
        .await
        .unwrap();
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::ResourceExhausted
    );

    let mut stream = Stream::open(channel.clone(), subscribe(&many[..8000]))
        .await
        .unwrap();
    stream.next().await.unwrap();
    // far more than 200 a second, although never more than 8192 at once
    for chunk in many[..8000].chunks(1000) {
        let forget = chunk.iter().map(DirectoryName::from).collect();
        let request = DirectoryRequest {
            forget,
            ..subscribe(chunk)
        };
        let _ = stream.requests.send(request).await;
    }
    let status = loop {
        if let Err(status) = stream.next().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("200 new names a second"),
        "{status}"
    );
}

#[tokio::test]
async fn ends_streams_that_name_nothing_readable_and_opens_none_for_strangers() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    for bad in [
        DirectoryName { name: None },
        DirectoryName::from(&service("", "x")),
    ] {
        let request = DirectoryRequest {
            schema: 1,
            subscribe: vec![bad],
            forget: Vec::new(),
        };
        let mut stream = Stream::open(channel.clone(), request).await.unwrap();
        assert_eq!(
            stream.next().await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let refused = Stream::open(running.anonymous().await, subscribe(&[]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn tells_each_namespace_its_own_rule_for_plaintext() {
    use mesh_lite_proto::workload_directory::OutboundUnmeshed as Rule;
    let directories = Directories::new();
    let mut settings = directories.settings();
    settings
        .outbound
        .unmeshed_by_namespace
        .insert("shop".to_owned(), Rule::Allow);
    settings.outbound.mesh_cidrs = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let running = Running::start_with(directories, settings).await;
    running.directories.write(
        "other.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: x, namespace: other}\n\
         spec: {serviceAccount: x, addresses: [10.7.0.1]}\n",
    );
    running
        .wait_for_metric("mesh_lite_control_plane_facts{kind=\"workloads\"}", 3.0)
        .await;
    for (workload, expected) in [
        ("shop/web", OutboundUnmeshed::Allow),
        ("other/x", OutboundUnmeshed::Refuse),
    ] {
        let channel = running.workload(workload).await;
        let mut stream = Stream::open(channel, subscribe(&[])).await.unwrap();
        let settings = stream.next().await.unwrap().mesh.unwrap();
        assert_eq!(settings.outbound_unmeshed(), expected);
        assert_eq!(settings.mesh_cidrs, ["10.0.0.0/8", "fd00::/8"]);
    }
}
