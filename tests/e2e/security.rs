//! Accounts, permissions and logins: the shipped files of `nats-config/` on a real server, and what each role can do there.

mod certificates;
pub(crate) mod jwt;
mod logins;
pub(crate) mod place;
mod rights;
mod roles;
mod rotation;
mod tenants;
