//! The verbs of the API. Each runs under one lock of the store.

mod create;
mod delete;
mod delete_options;
mod list;
mod namespaces;
mod update;

pub(crate) use create::{create, create_namespace};
pub(crate) use delete::{DeleteResult, delete, delete_collection};
pub(crate) use delete_options::DeleteOptions;
pub(crate) use list::{ListOptions, Page, list, parse_version};
pub(crate) use update::{Part, apply, bind, patch, replace};
