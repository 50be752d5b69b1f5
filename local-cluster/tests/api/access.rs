//! Who may call the API over a socket: programs that know the token, and no web page.

use axum::http::{Request, StatusCode};
use kube::{Client, client::Body};
use local_cluster::faults::Calls;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::cluster::{Cluster, TIMEOUT, config, job};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

/// The answer to a request that would create a Job.
async fn create(client: &Client, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let mut request = Request::post(JOBS);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = serde_json::to_vec(&job("a")).unwrap();
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect_bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn job_count(cluster: &Cluster) -> usize {
    cluster.jobs().list(&kube::api::ListParams::default()).await.unwrap().items.len()
}

fn without_token(cluster: &Cluster) -> Client {
    let mut config = cluster.config.clone();
    config.auth_info.token = None;
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn every_path_needs_the_token() {
    let cluster = Cluster::new().await;
    let stranger = without_token(&cluster);
    for path in ["/", "/version", "/readyz", "/api", "/apis/batch/v1", "/openapi/v3", JOBS, "/unknown"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = stranger.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let (status, body) = create(&stranger, &[("content-type", "application/json")]).await;
    assert_eq!((status.as_u16(), body["reason"].as_str()), (401, Some("Unauthorized")));
    assert_eq!(job_count(&cluster).await, 0);
}

#[tokio::test]
async fn credentials_of_another_server_are_refused() {
    let (cluster, other) = (Cluster::new().await, Cluster::new().await);
    let config = config(&other.credentials.kubeconfig(cluster.port, "default")).await;
    let version = Client::try_from(config.clone()).unwrap().apiserver_version().await;
    assert!(version.is_err(), "the certificate of another server is trusted");
    let mut stranger = config;
    stranger.accept_invalid_certs = true;
    let (status, _) = create(&Client::try_from(stranger).unwrap(), &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn refused_requests_change_nothing() {
    let cluster = Cluster::new().await;
    let client = cluster.remote();
    let json = ("content-type", "application/json");
    let other_host = format!("evil.example:{}", cluster.port);
    for (headers, code) in [
        (vec![json, ("origin", "https://evil.example")], 403),
        (vec![json, ("origin", "null")], 403),
        (vec![json, ("sec-fetch-site", "cross-site")], 403),
        (vec![json, ("sec-fetch-site", "same-site")], 403),
        (vec![json, ("host", other_host.as_str())], 403),
        (vec![("content-type", "text/plain")], 415),
        (vec![], 415),
    ] {
        let (status, body) = create(&client, &headers).await;
        assert_eq!(status.as_u16(), code, "{headers:?}");
        assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(code)), "{headers:?}");
    }
    assert_eq!(job_count(&cluster).await, 0);
    assert_eq!(create(&client, &[json]).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn refused_request_uses_up_no_fault() {
    let cluster = Cluster::new().await;
    cluster.faults.fail(Calls::of("list", "jobs"), 1, local_cluster::faults::Failure::Code(500));
    let request = Request::get(JOBS).body(Body::empty()).unwrap();
    assert_eq!(without_token(&cluster).send(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(cluster.jobs().list(&kube::api::ListParams::default()).await.is_err());
}

#[tokio::test]
async fn plain_http_gets_no_answer_of_the_api() {
    let cluster = Cluster::new().await;
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port)).await.unwrap();
    let request = format!("GET /version HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", cluster.port);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(TIMEOUT, read).await.expect("the connection stays open");
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}
