//! NATS accounts, permissions and authentication, with the shipped files of `nats-config/` on a
//! real server.

mod admission;
mod certificates;
pub(crate) mod config_folder;
mod installations;
pub(crate) mod jwt;
mod logins;
mod manifests;
mod permissions;
mod roles;
mod rotation;
mod submitters;
mod tenants;
