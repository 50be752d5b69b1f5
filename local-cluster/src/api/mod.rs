//! What the verbs do to the store, each within one hold of its lock.

mod create;
mod delete;
mod garbage;
mod list;
mod namespaces;
mod update;

pub(crate) use create::create;
pub(crate) use delete::{DeleteOptions, Deleted, delete, delete_collection};
pub(crate) use list::{ListOptions, Page, list, parse_version};
pub(crate) use namespaces::seed as seed_namespace;
pub(crate) use update::{Part, apply, bind, patch, replace};
