//! The streams are behind a leaf node: the dispatcher selects them by `JetStream` domain or by API
//! prefix.

use async_nats::jetstream;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::nats::{Nats, RawClient, Setup};
use dispatcher_tests::paths::{self, NATS_VERSIONS};
use dispatcher_tests::test_env::{TestEnv, header};
use dispatcher_tests::{Kubernetes, or_skip, ports};

/// A server with the domain `hub`, and a leaf node with a `JetStream` of its own.
struct Servers {
    hub: Nats,
    leaf: Nats,
    _folder: tempfile::TempDir,
}

impl Servers {
    async fn start(version: &'static str) -> Self {
        let (folder, port) = (paths::temp_dir("domains").unwrap(), ports::free());
        let hub = format!("jetstream {{domain: hub}}\nleafnodes {{listen: \"127.0.0.1:{port}\"}}\n");
        let leaf = format!(
            "server_name: leaf\njetstream {{domain: leaf}}\nleafnodes {{remotes: [{{url: \"nats://127.0.0.1:{port}\"}}]}}\n"
        );
        let start = async |name: &str, config: String| {
            let file = folder.path().join(name);
            std::fs::write(&file, config).unwrap();
            let args = vec!["--config".to_owned(), file.display().to_string()];
            Nats::process_of(Setup { args, version: Some(version), ..Setup::default() }).await
        };
        let (hub, leaf) = (start("hub.conf", hub).await, start("leaf.conf", leaf).await);
        Self { hub, leaf, _folder: folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatcher_at_a_leaf_node_uses_the_streams_of_the_domain() {
    for version in NATS_VERSIONS {
        for setting in [("NATS_JS_DOMAIN", "hub"), ("NATS_JS_API_PREFIX", "$JS.hub.API")] {
            let namespace = or_skip!(Kubernetes::shared().await).namespace().await;
            let Servers { hub, leaf, _folder } = Servers::start(version).await;
            let leaf_url = leaf.url.clone();
            let env = TestEnv::new(hub, namespace).await;
            let (_templates, path) = managed_template();
            let dispatcher = env.dispatcher().templates(path).env("NATS_URL", &leaf_url);
            let dispatcher = dispatcher.env(setting.0, setting.1).start().await;
            // The requests and acks of the leaf reach the hub, those built for poison messages too.
            env.request(r#"{"foo":"before"}"#).await;
            let mut raw = RawClient::connect(&env.nats.url).await;
            let ack = raw.publish("jobs.simple.create", b"NATS/1.0\r\nA: b\rc\r\n\r\n", b"{}").await;
            env.request(r#"{"foo":"after"}"#).await;
            let dead_letter = env.dead_letter(ack["seq"].as_u64().unwrap()).await;
            assert_eq!(header(&dead_letter, "Job-Error"), "InvalidHeaders");
            for name in ["before", "after"] {
                env.until_last(&format!("simple-job-{name}"), "ADDED").await;
            }
            env.until_queue_is_empty().await;
            let own = jetstream::new(leaf.client().await);
            assert!(own.get_stream("JOBS").await.is_err(), "{setting:?}: the leaf has streams of its own");
            assert_eq!(dispatcher.terminate().await, Some(0), "{}", dispatcher.log());
        }
    }
}
