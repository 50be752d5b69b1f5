//! Tests the permissions in NATS without a write.
//!
//! The server checks a permission before anything else, and reports a violation to the client. So
//! each test is a message that has no effect if it is allowed: a call of the `JetStream` API that cannot
//! be parsed or is about a consumer that does not exist, a message that expects another stream, or a
//! subject without a receiver. Permissions without such a message are not tested.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Client, HeaderMap, header::NATS_EXPECTED_STREAM};
use dispatcher_core::{
    contract::{names::TemplateName, nats_names::NatsNames},
    doctor::permissions::{Direction, Needed, Permission, Test},
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    cli::Nats,
    doctor::nats::{Connection, DEADLINE, round_trip},
    micro::api::Verb,
    retry::with_deadline,
};

/// No call of the `JetStream` API can be parsed from it.
const UNPARSABLE: &str = "dispatcher doctor tests a permission";
/// The client library reports a violation by another task, a moment after it has read it.
const REPORTING: Duration = Duration::from_millis(200);

/// A permission, and the payload of its test.
struct Tested {
    permission: Permission,
    payload: &'static str,
}

/// The list of permissions, as it grows.
struct List {
    /// The prefix of the `JetStream` API.
    api: String,
    /// A name that nothing has.
    nobody: String,
    all: Vec<Tested>,
}

impl List {
    fn add(
        &mut self,
        direction: Direction,
        subject: String,
        needed: Needed,
        test: Test,
        payload: &'static str,
    ) {
        self.all.push(Tested { permission: Permission { direction, subject, needed, test }, payload });
    }

    /// A subject without its wildcards.
    fn literal(&self, pattern: &str) -> String {
        pattern.replace(['*', '>'], &self.nobody)
    }

    fn publish(&mut self, pattern: &str, needed: Needed, payload: &'static str) {
        let test = Test::By(self.literal(pattern));
        self.add(Direction::Publish, pattern.to_owned(), needed, test, payload);
    }

    /// A call of the `JetStream` API that reads, or is about a consumer that does not exist.
    fn read(&mut self, call: &str) {
        self.publish(&format!("{}.{call}", self.api), Needed::Always, "");
    }

    /// A call that writes, so that its test cannot be parsed.
    fn write(&mut self, call: &str, needed: Needed) {
        self.publish(&format!("{}.{call}", self.api), needed, UNPARSABLE);
    }

    fn subscribe(&mut self, pattern: &str, subject: String) {
        self.add(Direction::Subscribe, pattern.to_owned(), Needed::Always, Test::By(subject), "");
    }
}

/// The permissions of `nats-config/roles/dispatcher.conf`. A test compares them. `template` is a
/// template in use: a role may permit the subjects of single templates only.
fn permissions(settings: &Nats, template: Option<&TemplateName>) -> Vec<Tested> {
    let nobody = format!("doctor-{}", Uuid::new_v4().simple());
    let template = template.map_or(nobody.clone(), ToString::to_string);
    let names = &settings.naming.names;
    let (jobs, job_status, job_cancels) = (names.jobs(), names.job_status(), names.job_cancels());
    let mut list = List { api: settings.api_prefix(), nobody, all: vec![] };
    for stream in names.streams() {
        list.read(&format!("STREAM.INFO.{stream}"));
        list.read(&format!("STREAM.MSG.GET.{stream}"));
        list.write(&format!("STREAM.CREATE.{stream}"), Needed::ToProvision(stream.to_owned()));
    }
    for stream in [jobs, job_status] {
        list.write(&format!("STREAM.UPDATE.{stream}"), Needed::ToProvision(stream.to_owned()));
    }
    // Requests.
    list.read(&format!("CONSUMER.INFO.{jobs}.*"));
    list.read(&format!("CONSUMER.MSG.NEXT.{jobs}.*"));
    list.write(&format!("CONSUMER.CREATE.{jobs}.>"), Needed::ToProvision(jobs.to_owned()));
    list.write(&format!("CONSUMER.DELETE.{jobs}.*"), Needed::ToProvision(jobs.to_owned()));
    list.publish(&format!("$JS.ACK.{jobs}.>"), Needed::Always, "");
    let flagged = Needed::Better("acks fail on servers with `feature_flags { js_ack_fc_v2: true }`");
    list.publish(&format!("$JS.ACK.*.*.{jobs}.>"), flagged, "");
    // Scans.
    for stream in [job_status, job_cancels] {
        list.write(&format!("CONSUMER.CREATE.{stream}"), Needed::Always);
        list.write(&format!("CONSUMER.DELETE.{stream}.*"), Needed::Always);
        list.read(&format!("CONSUMER.MSG.NEXT.{stream}.*"));
        list.read(&format!("CONSUMER.INFO.{stream}.*"));
    }
    // nats-server 2.10.26 purges the whole stream if it cannot parse the filter.
    let purge = format!("{}.STREAM.PURGE.{job_cancels}", list.api);
    let purges = "is not tested: the call would purge the stream";
    list.add(Direction::Publish, purge, Needed::Always, Test::Impossible(purges), "");
    let others = format!("{}.STREAM.NAMES", list.api);
    list.publish(&others, Needed::Better("other streams on the subjects of status events are not found"), "");
    // Messages.
    let (events, _) = names.event_transform();
    list.publish(&events, Needed::Always, "");
    list.publish(&names.cancel_subject(">"), Needed::Always, "");
    add_notices(&mut list, names);
    let create = any_template(|template| names.create_subject(template));
    let test = Test::By(create.replace('*', &template));
    list.add(Direction::Publish, create, Needed::Always, test, "");
    list.publish("_INBOX.>", Needed::Always, "");
    list.publish("_R_.>", Needed::Better("clients of other accounts get no answers"), "");
    // Subscriptions.
    let inbox = format!("{}.>", settings.inbox_prefix());
    let own = list.literal(&inbox);
    list.subscribe(&inbox, own);
    for verb in Verb::ALL {
        let verb = verb.as_str();
        list.subscribe(&names.call_subject("*", verb), names.call_subject(&template, verb));
    }
    list.subscribe("$SRV.>", "$SRV.PING".to_owned());
    list.subscribe(&names.status_subjects(), names.status_subjects());
    list.all
}

/// Rejections reach plain subscribers, so that a test would be a visible message.
fn add_notices(list: &mut List, names: &NatsNames) {
    let visible = "is not tested: subscribers would receive the message";
    let notice = any_template(|template| names.rejected_notice_subject(template));
    for subject in [names.dead_letter_subjects(), notice] {
        list.add(Direction::Publish, subject, Needed::Always, Test::Impossible(visible), "");
    }
}

/// The pattern of a subject of all templates.
fn any_template(subject: impl Fn(&TemplateName) -> String) -> String {
    const PLACEHOLDER: &str = "any-template";
    let template = TemplateName::try_from(PLACEHOLDER).map(|template| subject(&template)).unwrap_or_default();
    template.replace(PLACEHOLDER, "*")
}

/// Tests every permission; returns them and the subjects that the server denies.
///
/// # Errors
/// If the connection does not answer.
pub(super) async fn test(
    connection: &Connection,
    settings: &Nats,
    template: Option<&TemplateName>,
) -> Result<(Vec<Permission>, BTreeSet<(Direction, String)>), String> {
    let tested = permissions(settings, template);
    let sent = with_deadline(DEADLINE, send(&connection.client, &tested)).await;
    sent.map_err(|error| error.to_string())??;
    if round_trip(&connection.client).await.is_none() {
        return Err("a message to the own inbox does not arrive".to_owned());
    }
    sleep(REPORTING).await;
    Ok((tested.into_iter().map(|tested| tested.permission).collect(), connection.denied.subjects()))
}

async fn send(client: &Client, tested: &[Tested]) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    // No stream has this name, so each refuses the message.
    headers.insert(NATS_EXPECTED_STREAM, Uuid::new_v4().simple().to_string().as_str());
    for Tested { permission, payload } in tested {
        let Test::By(subject) = &permission.test else { continue };
        match permission.direction {
            Direction::Publish => {
                let sent = client.publish_with_headers(subject.clone(), headers.clone(), (*payload).into());
                sent.await.map_err(|error| error.to_string())?;
            }
            // Dropping it unsubscribes.
            Direction::Subscribe => {
                drop(client.subscribe(subject.clone()).await.map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings() -> Nats {
        settings_of(&[])
    }

    fn settings_of(args: &[&str]) -> Nats {
        match Cli::parse_from([&["dispatcher", "run"], args].concat()).command {
            Command::Run(config) => config.nats,
            other => panic!("{other:?}"),
        }
    }

    /// The lines of a shipped role.
    fn shipped(role: &str) -> BTreeSet<(Direction, String)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats-config/roles");
        lines(&std::fs::read_to_string(folder.join(format!("{role}.conf"))).unwrap())
    }

    fn lines(text: &str) -> BTreeSet<(Direction, String)> {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let text = lines.join("\n");
        let (publish, subscribe) = text.split_once("\nsubscribe:").unwrap();
        let subjects = |direction, text: &str| -> Vec<_> {
            text.split('"').skip(1).step_by(2).map(|subject| (direction, subject.to_owned())).collect()
        };
        let all = [subjects(Direction::Publish, publish), subjects(Direction::Subscribe, subscribe)];
        all.concat().into_iter().collect()
    }

    #[test]
    fn tested_permissions_are_those_of_the_shipped_roles() {
        let all = permissions(&settings(), None);
        let line = |tested: &Tested| (tested.permission.direction, tested.permission.subject.clone());
        let to_provision = |tested: &&Tested| matches!(tested.permission.needed, Needed::ToProvision(_));
        assert_eq!(all.iter().map(line).collect::<BTreeSet<_>>(), shipped("dispatcher"));
        let others = all.iter().filter(|tested| !to_provision(tested)).map(line);
        assert_eq!(others.collect::<BTreeSet<_>>(), shipped("dispatcher-no-provision"));
    }

    #[test]
    fn tested_permissions_of_a_prefix_are_those_of_its_roles() {
        let settings = settings_of(&["--prefix", "blue"]);
        let files = crate::nats::roles::files(&settings.naming.names);
        let (_, role) = files.into_iter().find(|(name, _)| *name == "dispatcher.conf").unwrap();
        let all = permissions(&settings, None);
        let line = |tested: &Tested| (tested.permission.direction, tested.permission.subject.clone());
        assert_eq!(all.iter().map(line).collect::<BTreeSet<_>>(), lines(&role));
    }

    /// Neither a request of a template nor a call that changes a stream.
    #[test]
    fn no_test_can_have_an_effect() {
        let template = TemplateName::try_from("simple").unwrap();
        for tested in permissions(&settings(), Some(&template)) {
            let Test::By(subject) = &tested.permission.test else { continue };
            let writes = ["CREATE", "UPDATE", "DELETE"].iter().any(|verb| subject.contains(verb));
            assert!(!subject.contains("PURGE"), "{subject}");
            assert_eq!(tested.payload, if writes { UNPARSABLE } else { "" }, "{subject}");
            assert!(serde_json::from_str::<serde_json::Value>(tested.payload).is_err(), "{subject}");
            assert!(
                !subject.contains('*') || tested.permission.direction == Direction::Subscribe,
                "{subject}"
            );
        }
    }

    #[test]
    fn subjects_of_a_template_in_use_are_tested() {
        let template = TemplateName::try_from("simple").unwrap();
        let all = permissions(&settings(), Some(&template));
        let tests =
            |subject: &str| all.iter().any(|tested| tested.permission.test == Test::By(subject.to_owned()));
        assert!(tests("jobs.simple.create") && tests("jobs.simple.submit"));
    }
}
