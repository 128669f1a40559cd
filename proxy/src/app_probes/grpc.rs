//! `grpc.health.v1.Health/Check`, without TLS, as the kubelet asks.

use std::{io, net::SocketAddr};

use http::{StatusCode, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use mesh_lite_proto::app_probes::GrpcProbe;
use tokio::time::Instant;
use tonic::{
    Code, Request,
    client::Grpc,
    transport::{Endpoint, Uri},
};
use tonic_prost::ProstCodec;

use super::{Failure, Outcome, connect, good};
use crate::control_plane_client::in_words;

const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const SERVING: i32 = 1;
/// An answer is one number.
const MAX_ANSWER: usize = 4096;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn check(
    probe: &GrpcProbe,
    target: SocketAddr,
    deadline: Instant,
) -> Result<Outcome, Failure> {
    let (socket, _own) = connect(target, deadline).await?.into_parts();
    let said = |error: &dyn std::fmt::Display| Failure::Said(format!("{target}: {error}"));
    let uri: Uri = format!("http://{target}")
        .parse()
        .map_err(|error| said(&error))?;
    let mut socket = Some(socket);
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.take().map(TokioIo::new);
        // one connection is one try
        std::future::ready(socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from(uri)
        .user_agent("kube-probe/mesh-lite")
        .map_err(|error| said(&error))?
        .connect_with_connector(connector)
        .await
        .map_err(|error| said(&error))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    client.ready().await.map_err(|error| said(&error))?;
    let request = Request::new(HealthCheckRequest {
        service: probe.service().to_owned(),
    });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    match client.unary(request, CHECK, codec).await {
        Ok(answer) => Ok(judged(answer.get_ref().status, target)),
        Err(status) if status.code() == Code::Unimplemented => Err(Failure::Said(format!(
            "{target} does not implement grpc.health.v1.Health"
        ))),
        Err(status) => Err(said(&in_words(&status))),
    }
}

fn judged(status: i32, target: SocketAddr) -> Outcome {
    let name = match status {
        SERVING => return good(format!("{target} is SERVING")),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "of no known status",
    };
    Outcome {
        status: StatusCode::SERVICE_UNAVAILABLE,
        words: format!("{target} is {name}"),
    }
}
