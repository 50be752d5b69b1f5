//! The API over HTTP: from a request to its answer, in this process or over a socket.

mod answer;
mod call;
mod discovery;
mod log;
mod serve;
mod shown;
mod table;
mod verbs;
mod verdict;
mod watch;

use std::{convert::Infallible, io, sync::Arc};

use axum::{Router, body::Body, extract::Request, response::Response};
use futures::future::BoxFuture;
use kube::client::Body as KubeBody;
use tower::{Service, service_fn};

pub(crate) use answer::error as error_answer;
pub use call::Call;
pub(crate) use serve::serve;
pub(crate) use verdict::carry_out;
pub(crate) use watch::{is_asked_for, line};

use crate::{Faults, Options, api, logs::Registered, store::Store};

/// All that a cluster is.
pub(crate) struct State {
    pub(crate) store: Arc<Store>,
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) logs: Arc<Registered>,
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let store = Arc::new(Store::new(options.history));
        for namespace in &options.namespaces {
            if let Err(error) = store.write(|inner| api::seed_namespace(inner, namespace)) {
                tracing::warn!(namespace, %error, "a namespace is left out");
            }
        }
        Self { faults: Faults::new(store.clone()), store, options, logs: Arc::default() }
    }
}

impl State {
    /// The same cluster, by a way on which nothing goes wrong.
    pub(crate) fn without_faults(&self) -> Self {
        let (store, logs) = (self.store.clone(), self.logs.clone());
        Self { faults: Faults::new(store.clone()), store, options: self.options.clone(), logs }
    }
}

/// The service below a client in this process.
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
            if state.faults.refuses() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            respond(state, request.map(Body::new)).await
        })
    })
}

/// The API as a router; where there is to be no answer the body ends in an error.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new().fallback_service(service_fn(move |request: Request| {
        let state = state.clone();
        async move {
            let answer = respond(state, request).await.unwrap_or_else(|error| {
                Response::new(Body::from_stream(futures::stream::once(async {
                    Err::<bytes::Bytes, _>(error)
                })))
            });
            Ok::<_, Infallible>(answer)
        }
    }))
}

/// The answer to a request; an error where the connection is to break instead.
pub(crate) async fn respond(state: Arc<State>, request: Request) -> io::Result<Response> {
    verbs::respond(&state, request).await
}
