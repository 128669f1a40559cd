//! A SPIFFE Workload API for one caller on a Unix socket: the least that lets another project's
//! client take what we issued. Not a part of the product.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use mesh_lite_proto::trust_bundle::TrustBundle;
use prost::Message;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;

use super::client::Svid;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SvidRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<OneSvid>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OneSvid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// DER one after the other, as the Workload API has chains and bundles.
pub(super) fn joined(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates
        .iter()
        .flat_map(|certificate| certificate.to_vec())
        .collect()
}

/// Serves until dropped.
pub(super) struct WorkloadApi {
    directory: TempDir,
    task: JoinHandle<()>,
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WorkloadApi {
    pub(super) fn serve(svid: &Svid, bundle: &TrustBundle) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixListener::bind(directory.path().join("socket")).unwrap();
        let svid = OneSvid {
            spiffe_id: svid.facts.id.to_string(),
            chain: joined(&svid.chain),
            key: svid.key.serialize_der(),
            bundle: joined(bundle.authorities()),
        };
        let answer = Answer(SvidResponse { svids: vec![svid] });
        let serving = tonic::transport::Server::builder()
            .add_service(answer)
            .serve_with_incoming(UnixListenerStream::new(socket));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { directory, task }
    }

    pub(super) fn endpoint(&self) -> String {
        let socket: PathBuf = self.directory.path().join("socket");
        format!("unix://{}", socket.display())
    }
}

#[derive(Clone)]
struct Answer(SvidResponse);

impl NamedService for Answer {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tower::Service<http::Request<Body>> for Answer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.clone();
        Box::pin(async move {
            if !request.uri().path().ends_with("/FetchX509SVID") {
                return Ok(Status::unimplemented("FetchX509SVID alone is served").into_http());
            }
            let codec = ProstCodec::<SvidResponse, SvidRequest>::default();
            Ok(Grpc::new(codec).server_streaming(answer, request).await)
        })
    }
}

impl ServerStreamingService<SvidRequest> for Answer {
    type Response = SvidResponse;
    type ResponseStream = Pin<Box<dyn futures::Stream<Item = Result<SvidResponse, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    /// One answer; the stream stays open, as an agent's does.
    fn call(&mut self, _: Request<SvidRequest>) -> Self::Future {
        let first = tokio_stream::once(Ok(self.0.clone()));
        ready(Ok(Response::new(Box::pin(
            first.chain(tokio_stream::pending()),
        ))))
    }
}
