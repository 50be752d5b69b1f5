use std::path::Path;

use axum::{
    body::{Body, to_bytes},
    http::Method,
};
use tower::ServiceExt;

use super::*;
use crate::{
    admin::Connection as AdminConnection,
    cli::{ConsoleMode, ConsoleSettings},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn console(mode: ConsoleMode, token_file: Option<&Path>) -> Console {
    let token_file = token_file.map(Path::to_owned);
    let hosts = vec!["console.example".to_owned()];
    Console::new(&ConsoleSettings { mode, token_file, hosts }).unwrap().unwrap()
}

/// Sends a request from `localhost`, unless `headers` name another host.
async fn send(console: &Console, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(path).body(Body::from("{}")).unwrap();
    request.headers_mut().insert(header::HOST, "localhost:8080".parse().unwrap());
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        if name == header::HOST {
            request.headers_mut().remove(&name);
        }
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request.extensions_mut().insert(AdminConnection::detached());
    console.router().oneshot(request).await.unwrap()
}

async fn status(console: &Console, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
    send(console, method, path, headers).await.status().as_u16()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

#[test]
fn there_is_no_console_unless_it_is_switched_on() {
    assert!(Console::new(&ConsoleSettings::default()).unwrap().is_none());
}

#[tokio::test]
async fn every_response_confines_the_page() {
    let console = console(ConsoleMode::Read, None);
    for (path, expected) in [
        ("/console/", 200),
        ("/console/app.js", 200),
        ("/console/style.css", 200),
        ("/console", 308),
        ("/console/nothing", 404),
        ("/console/api/live", 503),
        ("/console/api/history", 400),
        ("/console/api/dead-letters?before=x", 400),
    ] {
        let response = send(&console, Method::GET, path, &[]).await;
        assert_eq!(response.status().as_u16(), expected, "{path}");
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
    }
}

#[tokio::test]
async fn every_file_that_the_page_names_exists_and_nothing_is_inline() {
    let console = console(ConsoleMode::Read, None);
    let page = text(send(&console, Method::GET, "/console/", &[]).await).await;
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" on"), "{page}");
    assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    let mut files: Vec<String> = ["icon.svg", "style.css", "app.js"].map(str::to_owned).to_vec();
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        at += 1;
        let response = send(&console, Method::GET, &format!("/console/{file}"), &[]).await;
        assert_eq!(response.status(), 200, "{file}");
        let content = text(response).await;
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!content.contains(sink), "{file} uses {sink}");
        }
        let imported = content.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        for import in imported.filter(|import| !files.iter().any(|file| file == import)).collect::<Vec<_>>() {
            files.push(import.to_owned());
        }
    }
    assert!(files.len() > 8, "{files:?}");
}

#[tokio::test]
async fn requests_to_another_host_are_refused_on_every_path() {
    let console = console(ConsoleMode::Read, None);
    for path in ["/console/", "/console/app.js", "/console/api/dead-letters", "/console/api/live"] {
        for host in ["rebound.example:8080", "localhost.evil.example"] {
            assert_eq!(status(&console, Method::GET, path, &[("host", host)]).await, 403, "{path} {host}");
        }
        let twice = [("host", "localhost"), ("host", "localhost")];
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        for (_, value) in twice {
            request.headers_mut().append(header::HOST, value.parse().unwrap());
        }
        assert_eq!(console.router().oneshot(request).await.unwrap().status(), 403, "{path}: two hosts");
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(console.router().oneshot(request).await.unwrap().status(), 403, "{path}: no host");
    }
    for host in ["console.example", "10.0.0.1:8080", "[::1]:1"] {
        assert_eq!(status(&console, Method::GET, "/console/", &[("host", host)]).await, 200, "{host}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_can_link_to_the_console_and_read_nothing() {
    let console = console(ConsoleMode::Read, None);
    let foreign = [("sec-fetch-site", "cross-site")];
    assert_eq!(status(&console, Method::GET, "/console/", &foreign).await, 200);
    for headers in [&foreign[..], &[("origin", "http://localhost:3000")], &[("origin", "null")]] {
        for path in ["/console/api/live", "/console/api/dead-letters", "/console/api/schema?template=a"] {
            assert_eq!(status(&console, Method::GET, path, headers).await, 403, "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn actions_exist_only_with_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let read = console(ConsoleMode::Read, Some(&file));
    let write = console(ConsoleMode::Write, Some(&file));
    for path in ["/console/api/submit?template=a", "/console/api/cancel?template=a"] {
        assert_eq!(status(&read, Method::POST, path, &headers).await, 404, "{path}");
        // The dispatcher of this test has not started: the caller may act.
        assert_eq!(status(&write, Method::POST, path, &headers).await, 503, "{path}");
        assert_eq!(status(&write, Method::GET, path, &headers).await, 405, "{path}");
    }
}

#[tokio::test]
async fn action_needs_the_token_and_a_content_type_that_no_form_can_send() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let console = console(ConsoleMode::Write, Some(&file));
    let path = "/console/api/submit?template=a";
    let json = ("content-type", "application/json");
    let bearer = format!("Bearer {TOKEN}");
    let (short, long) = (format!("Bearer {}", &TOKEN[1..]), format!("{bearer}x"));
    for wrong in ["", "Bearer ", TOKEN, "Bearer x", short.as_str(), long.as_str(), "Basic abc"] {
        let headers = [("authorization", wrong), json];
        assert_eq!(status(&console, Method::POST, path, &headers).await, 401, "{wrong}");
    }
    assert_eq!(status(&console, Method::POST, path, &[json]).await, 401);
    let good = ("authorization", bearer.as_str());
    assert_eq!(status(&console, Method::POST, path, &[good, good, json]).await, 401, "two tokens");
    for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"] {
        assert_eq!(
            status(&console, Method::POST, path, &[good, ("content-type", form)]).await,
            415,
            "{form}"
        );
    }
    assert_eq!(status(&console, Method::POST, path, &[good]).await, 415);
    let foreign = [good, json, ("origin", "https://evil.example")];
    assert_eq!(status(&console, Method::POST, path, &foreign).await, 403);
    // A rotated token counts from the next action on.
    std::fs::write(&file, TOKEN.replace('0', "9")).unwrap();
    assert_eq!(status(&console, Method::POST, path, &[good, json]).await, 401);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(status(&console, Method::POST, path, &[good, json]).await, 503);
}

#[tokio::test]
async fn body_of_an_action_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let console = console(ConsoleMode::Write, Some(&file));
    let request = Request::post("/console/api/submit?template=a")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("x".repeat(MAX_CALL + 1)));
    assert_eq!(console.router().oneshot(request.unwrap()).await.unwrap().status(), 413);
}
