//! The API over HTTP: from a request to its response, in this process or over a socket.

mod discovery;
mod guard;
mod openapi;
mod pod_log;
mod request;
mod response;
mod server;
mod state;
mod table_view;
mod verbs;
mod watch;
mod watch_event;

use std::{io, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use futures::future::BoxFuture;
use kube::client::Body as KubeBody;
use tower::{Service, service_fn};

pub(crate) use response::{apply_failure, error as error_response};
pub(crate) use server::serve;
pub use state::Options;
pub(crate) use state::State;
pub(crate) use verbs::respond;
pub(crate) use watch_event::encode as encode_event;

/// The service below an in-process client.
pub(crate) fn service(
    state: Arc<State>,
) -> impl Service<
    Request<KubeBody>,
    Response = Response,
    Error = io::Error,
    Future = BoxFuture<'static, io::Result<Response>>,
> + Send
+ 'static {
    service_fn(move |request: Request<KubeBody>| -> BoxFuture<'static, io::Result<Response>> {
        let state = state.clone();
        Box::pin(async move {
            if state.faults.refuses_connections() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            respond(state, request.map(Body::new)).await
        })
    })
}
