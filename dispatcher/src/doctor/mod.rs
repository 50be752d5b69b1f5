//! `dispatcher doctor`: checks a set-up with the settings of `dispatcher run`, and prints what to do.
//!
//! ```text
//! settings ─┬─▶ servers ──────────────────▶ streams, permissions ─┬─▶ rules (dispatcher-core) ─▶ report
//!           └─▶ API server ─▶ namespace, RBAC, templates ─────────┘
//! ```
//! It changes nothing. Each call has a deadline, so a part that does not answer hides no other one.

mod kubernetes;
mod nats;
mod nats_permissions;
mod output;
mod streams;
mod templates;
mod variables;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use dispatcher_core::{
    doctor::{
        Finding, Report, Section, account, clock, cluster, configuration, consumers, lease,
        nats as nats_rules, permissions, rbac, streams as stream_rules, templates as template_rules,
    },
    template::{API_VERSION, catalog::Catalog},
};
use time::OffsetDateTime;

use self::{
    kubernetes::Cluster,
    nats::Connection,
    streams::{Expected, Streams},
};
use crate::{
    cli::{Config, DoctorSettings, StartError},
    retry::with_deadline,
    telemetry::spans::Spans,
};

pub use self::{output::text, variables::without_wrong_variables};

/// The deadline of all checks of one part: of the cluster or of NATS. A run takes two of them at most.
const PART: Duration = Duration::from_secs(14);

/// Checks everything. `variables` are the names of the environment, `problems` those of settings that
/// `main` has found.
pub async fn examine(
    settings: &DoctorSettings,
    variables: impl IntoIterator<Item = String>,
    problems: Vec<StartError>,
) -> Report {
    let config = &settings.config;
    let unknown = variables::unknown(variables);
    let problems =
        settings.problems.iter().cloned().chain(problems).chain(unknown).chain(setting_problems(config));
    let problem = |error: StartError| configuration::Problem {
        setting: error.setting().to_owned(),
        message: error.message().to_owned(),
    };
    let problems: Vec<_> = problems.map(problem).collect();
    let unusable = configuration::Unusable::of(&problems);
    let mut findings = configuration::findings(&problems);
    let (kubernetes, nats) = tokio::join!(
        unless(unusable.kubernetes, kubernetes(config)),
        unless(unusable.nats, nats::connect_to_each(&config.nats)),
    );
    let cluster = kubernetes.unwrap_or_else(|reason| KubernetesFacts::unknown(&reason));
    let catalog = cluster.catalog.clone();
    let namespace_uid = cluster.uid.clone();
    findings.extend(cluster.findings);
    let mut clocks = vec![reading("the API server", cluster.clock, HTTP_RESOLUTION)];
    match nats {
        Err(reason) => findings.extend(not_checked(&NATS_SECTIONS, &reason)),
        Ok((servers, connection)) => {
            findings.extend(nats_rules::findings(&servers, &config.nats.inbox_prefix()));
            let facts = match connection {
                None => Err("there is no connection to NATS".to_owned()),
                Some(connection) => {
                    in_time(on_connection(config, &connection, &catalog, namespace_uid)).await
                }
            };
            match facts {
                Err(reason) => findings.extend(not_checked(&NATS_SECTIONS[1..], &reason)),
                Ok((found, clock)) => {
                    findings.extend(found);
                    clocks.push(reading("NATS", clock, NATS_RESOLUTION));
                }
            }
        }
    }
    findings.extend(clock_findings(&clocks));
    Report::new(findings)
}

/// The sections that need NATS.
const NATS_SECTIONS: [Section; 3] = [Section::Nats, Section::Streams, Section::NatsPermissions];
/// The sections that need the API server.
const KUBERNETES_SECTIONS: [Section; 1] = [Section::KubernetesPermissions];

fn not_checked(sections: &[Section], reason: &str) -> Vec<Finding> {
    sections.iter().map(|section| section.skipped("all checks", format!("not checked: {reason}"))).collect()
}

/// The facts, unless the settings of this part are wrong.
async fn unless<T>(unusable: bool, facts: impl Future<Output = T>) -> Result<T, String> {
    match unusable {
        true => Err("its settings are wrong".to_owned()),
        false => in_time_of(facts).await,
    }
}

async fn in_time_of<T>(facts: impl Future<Output = T>) -> Result<T, String> {
    with_deadline(PART, facts).await.map_err(|error| error.to_string())
}

async fn in_time<T>(facts: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    in_time_of(facts).await?
}

/// The settings whose files or combinations end a start.
fn setting_problems(config: &Config) -> Vec<StartError> {
    let submitters = config.submitters.load().err();
    let console = config.console.writer().err();
    submitters.into_iter().chain(console).chain(Spans::from_env().err()).collect()
}

/// What the cluster showed.
struct KubernetesFacts {
    findings: Vec<Finding>,
    uid: Option<String>,
    clock: kubernetes::Clock,
    catalog: Catalog,
}

impl KubernetesFacts {
    fn unknown(reason: &str) -> Self {
        let sections = [&KUBERNETES_SECTIONS[..], &[Section::Kubernetes, Section::Templates]].concat();
        Self { findings: not_checked(&sections, reason), uid: None, clock: None, catalog: Catalog::default() }
    }
}

async fn kubernetes(config: &Config) -> KubernetesFacts {
    let (server, clock, client) = kubernetes::connect(config.kubeconfig.as_deref()).await;
    let sources = templates::read(config, client.as_ref()).await;
    let mut findings = vec![cluster::server(&server)];
    findings.extend(template_rules::findings(&sources));
    let catalog = sources.catalog;
    let Some(client) = client else {
        findings.extend(not_checked(&KUBERNETES_SECTIONS, "the API server does not answer"));
        return KubernetesFacts { findings, uid: None, clock, catalog };
    };
    let place = rbac::Place {
        namespace: config.namespace.clone(),
        lease_namespace: config.lease.namespace.clone().unwrap_or_else(|| config.namespace.clone()),
        lease: config.lease.name.clone(),
        job_templates: config.template_objects.job_templates,
        kueue: config.kueue,
    };
    let references = async {
        if server.is_local_cluster() {
            let reason = "the cluster of `dispatcher dev` runs Jobs without them";
            return vec![Section::Templates.skipped("referenced objects", reason)];
        }
        let found = templates::look_up(&catalog, &client, &config.namespace).await;
        template_rules::reference_findings(&found, &config.namespace)
    };
    let (facts, references) = tokio::join!(Cluster::read(&client, &place, clock), references);
    let uid = facts.uid.clone();
    findings.extend(cluster_findings(facts, &place));
    findings.extend(references);
    KubernetesFacts { findings, uid, clock, catalog }
}

fn cluster_findings(facts: Cluster, place: &rbac::Place) -> Vec<Finding> {
    let mut findings = vec![
        cluster::namespace(&facts.namespace, &place.namespace),
        lease::finding(&facts.lease, &place.lease, &place.lease_namespace),
    ];
    findings.extend(facts.crd.map(|crd| cluster::crd(&crd, API_VERSION)));
    findings.push(cluster::admission(&facts.admission));
    findings.extend(cluster::quotas(&facts.quotas, &place.namespace));
    findings.extend(rbac::findings(&facts.access));
    findings.extend(match facts.rules {
        Ok(rules) => rbac::excess(&rules),
        Err(error) => vec![Section::KubernetesPermissions.skipped("excess permissions", error)],
    });
    findings
}

/// The checks that need a connection to NATS, and the time of the server.
async fn on_connection(
    config: &Config,
    connection: &Connection,
    catalog: &Catalog,
    namespace_uid: Option<String>,
) -> Result<(Vec<Finding>, kubernetes::Clock), String> {
    let state = connection.jetstream_state().await;
    let mut findings = vec![nats_rules::jetstream(&state, &config.nats.api_prefix())];
    let first = catalog.entries().next().map(|(name, _)| name.clone());
    let tested = nats_permissions::test(connection, &config.nats, first.as_ref());
    if state != nats_rules::JetStream::Answers {
        findings.extend(not_checked(&[Section::Streams], "JetStream does not answer"));
        findings.extend(permission_findings(tested.await, &[], config.no_provision));
        return Ok((findings, None));
    }
    let templates: BTreeMap<_, _> =
        catalog.entries().map(|(name, entry)| (name.clone(), Arc::clone(&entry.template))).collect();
    let expected = Expected {
        names: config.nats.naming.names.clone(),
        templates,
        namespace_uid,
        verify_only: config.no_provision,
        adopt: config.adopt,
        connection,
    };
    let (streams, tested) = tokio::join!(expected.read(), tested);
    let account = connection.account(streams.replicas).await;
    findings.extend(account::findings(&account, &streams.missing, expected.templates.len()));
    let missing: Vec<_> = streams.missing.iter().map(|stream| stream.name.clone()).collect();
    findings.extend(permission_findings(tested, &missing, config.no_provision));
    findings.extend(stream_findings(&streams, &expected));
    Ok((findings, streams.clock))
}

type TestedPermissions =
    (Vec<permissions::Permission>, std::collections::BTreeSet<(permissions::Direction, String)>);

fn permission_findings(
    tested: Result<TestedPermissions, String>,
    missing: &[String],
    verify_only: bool,
) -> Vec<Finding> {
    match tested {
        Ok((all, denied)) => permissions::findings(&all, &denied, missing, verify_only),
        Err(reason) => not_checked(&[Section::NatsPermissions], &reason),
    }
}

fn stream_findings(streams: &Streams, expected: &Expected<'_>) -> Vec<Finding> {
    let context = expected.context();
    let mut findings: Vec<_> =
        streams.streams.iter().flat_map(|stream| stream_rules::findings(stream, context)).collect();
    findings.extend(stream_rules::overlaps(&streams.overlaps));
    if let Some(reason) = &streams.overlaps_unknown {
        let reason = format!("streams on the dispatcher's subjects are not listed: {reason}");
        findings.push(Section::Streams.skipped("other streams", reason));
    }
    if expected.namespace_uid.is_none() {
        let reason = "the owner of the status events is not checked: the uid of the namespace is unknown";
        findings.push(Section::Streams.skipped("owner", reason));
    }
    findings.extend(streams.dead_letters.map(stream_rules::dead_letters));
    findings.extend(streams.queues.iter().flat_map(|queue| consumers::findings(queue, context.verify_only)));
    let jobs = expected.names.jobs();
    findings.extend(consumers::leftovers(jobs, &streams.leftovers, streams.other_consumers));
    findings
}

/// The `Date` of an HTTP answer has no fractions, and an answer takes some time.
const HTTP_RESOLUTION: Duration = Duration::from_secs(2);
/// An answer takes some time.
const NATS_RESOLUTION: Duration = Duration::from_secs(1);

type Reading = (&'static str, Option<clock::Reading>);

fn reading(of: &'static str, times: kubernetes::Clock, uncertainty: Duration) -> Reading {
    let reading =
        |(time, here): (OffsetDateTime, OffsetDateTime)| clock::Reading { of, time, here, uncertainty };
    (of, times.map(reading))
}

fn clock_findings(readings: &[Reading]) -> Vec<Finding> {
    let read: Vec<_> = readings.iter().filter_map(|(_, reading)| reading.clone()).collect();
    let unread: Vec<_> =
        readings.iter().filter(|(_, reading)| reading.is_none()).map(|(of, _)| *of).collect();
    clock::findings(&read, &unread)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use dispatcher_core::doctor::links;

    /// The anchor of a heading, as GitHub and mdBook make it.
    fn anchor(heading: &str) -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    }

    #[test]
    fn every_page_that_findings_refer_to_exists() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for link in links::ALL {
            let (file, expected) = link.split_once('#').unwrap_or((link, ""));
            let text = fs::read_to_string(repository.join(file)).unwrap_or_else(|e| panic!("{link}: {e}"));
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            assert!(expected.is_empty() || headings.any(|line| anchor(line) == expected), "{link}");
        }
    }
}
