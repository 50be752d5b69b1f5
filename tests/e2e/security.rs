//! Accounts, permissions and logins: the shipped files of `nats-config/` on a real server, and what each role can do there.

mod certificates;
mod jwt;
mod logins;
mod place;
mod rights;
mod roles;
mod rotation;
mod tenants;
