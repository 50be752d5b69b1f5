//! The processes of the testbed's Kubernetes control plane. They listen on loopback only; the API
//! server authenticates by static tokens and authorizes by RBAC.

use std::path::Path;

use dispatcher_tests::helper::Program;
use dispatcher_tests::kubernetes::Options;
use dispatcher_tests::{paths, ports};

use crate::service::Service;

/// The maximum number of restarts of a process that exits because the API server is down.
const MAX_RESTARTS: u32 = 10;

/// The processes in start order. `etcd` is a URL, `api` the port of the API server.
pub(crate) fn all(folder: &Path, options: &Options, etcd: &str, api: u16) -> Result<Vec<Service>, String> {
    Ok(vec![
        etcd_server(folder, etcd)?,
        api_server(folder, options, etcd, api)?,
        controller_manager(folder, options)?.with_restarts(MAX_RESTARTS),
        scheduler(folder, options)?.with_restarts(MAX_RESTARTS),
    ])
}

fn etcd_server(folder: &Path, url: &str) -> Result<Service, String> {
    let peer = format!("http://127.0.0.1:{}", ports::free());
    let args = vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // As kubeadm sets it: an idle watch cache learns the current revision from these messages.
        "--watch-progress-notify-interval=5s".to_owned(),
        // Unsynced writes are lost only if the machine crashes, which ends the tests anyway.
        "--unsafe-no-fsync".to_owned(),
    ];
    let log = folder.join("etcd.log");
    Ok(Service::new(Program {
        name: "etcd".to_owned(),
        path: paths::etcd()?,
        args,
        log,
        ..Program::default()
    }))
}

fn api_server(folder: &Path, options: &Options, etcd: &str, port: u16) -> Result<Service, String> {
    let key = folder.join("pki/sa.key");
    let args = vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", folder.join("pki").display()),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", key.display()),
        format!("--service-account-signing-key-file={}", key.display()),
        format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ];
    component(folder, "apiserver", "kube-apiserver", args, &options.apiserver_args)
}

fn controller_manager(folder: &Path, options: &Options) -> Result<Service, String> {
    let mut args = client_args(folder, options);
    args.push("--use-service-account-credentials=false".to_owned());
    args.push(format!("--service-account-private-key-file={}", folder.join("pki/sa.key").display()));
    args.push(format!("--root-ca-file={}", folder.join("pki/apiserver.crt").display()));
    if options.raised_limits {
        args.push("--concurrent-job-syncs=20".to_owned());
    }
    let more = &options.controller_manager_args;
    component(folder, "controller-manager", "kube-controller-manager", args, more)
}

fn scheduler(folder: &Path, options: &Options) -> Result<Service, String> {
    component(folder, "scheduler", "kube-scheduler", client_args(folder, options), &[])
}

/// The common arguments of the controller manager and the scheduler. `--secure-port=0` turns off
/// their HTTPS endpoints.
fn client_args(folder: &Path, options: &Options) -> Vec<String> {
    let mut args = vec![
        format!("--kubeconfig={}", folder.join("admin.kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    if options.raised_limits {
        args.extend(["--kube-api-qps=1000".to_owned(), "--kube-api-burst=2000".to_owned()]);
    }
    args
}

fn component(
    folder: &Path,
    name: &str,
    program: &str,
    args: Vec<String>,
    more: &[String],
) -> Result<Service, String> {
    // The field `managedBy` of the tests' Jobs is off by default before 1.32.
    let managed_by = paths::is_oldest_kubernetes().then(|| "--feature-gates=JobManagedBy=true".to_owned());
    let args = [program.to_owned()].into_iter().chain(args).chain(managed_by);
    let args = args.chain(more.iter().cloned()).collect();
    let log = folder.join(format!("{name}.log"));
    let path = paths::kubernetes()?;
    Ok(Service::new(Program { name: name.to_owned(), path, args, log, ..Program::default() }))
}
