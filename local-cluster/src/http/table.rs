//! The shape of what is answered: objects, or the tables that `kubectl get` prints.

mod columns;

use axum::http::{HeaderMap, header::ACCEPT};
use serde_json::{Value, json};

use super::shown::Shown;
use crate::{api::Page, object::set, resource::Resource};

/// The shape that a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    #[default]
    Objects,
    /// Rows, each with its object, its metadata, or neither.
    Table(Rows),
}

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Object,
    Metadata,
    None,
}

impl Shape {
    /// From the `Accept` header and `includeObject`.
    pub(super) fn of(headers: &HeaderMap, include: Option<&str>) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let first = accept.split(',').next().unwrap_or_default().replace(' ', "");
        match first.contains("as=Table") {
            false => Self::Objects,
            true => Self::Table(match include {
                Some("Object") => Rows::Object,
                Some("None") => Rows::None,
                _ => Rows::Metadata,
            }),
        }
    }

    /// One object.
    pub(super) fn object(self, resource: &Resource, object: &Value) -> Value {
        match self {
            Self::Objects => object.clone(),
            Self::Table(rows) => {
                let version = crate::object::version(object);
                table(resource, vec![row(resource, object, rows)], json!({"resourceVersion": version}))
            }
        }
    }

    /// A page of a list.
    pub(super) fn list(self, resource: &Resource, page: &Page) -> Value {
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if !page.token.is_empty() {
            set(&mut metadata, &[], "continue", page.token.as_str());
            set(&mut metadata, &[], "remainingItemCount", page.remaining);
        }
        match self {
            Self::Objects => {
                json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
                "metadata": metadata, "items": page.items.iter().map(|item| &**item).collect::<Vec<_>>()})
            }
            Self::Table(rows) => {
                let rows = page.items.iter().map(|item| row(resource, item, rows)).collect();
                table(resource, rows, metadata)
            }
        }
    }

    /// The object of a watch's event.
    pub(super) fn event(self, resource: &Resource, shown: &Shown) -> Value {
        match shown.type_ {
            "BOOKMARK" if self != Self::Objects => {
                let version = crate::object::version(&shown.object);
                table(resource, Vec::new(), json!({"resourceVersion": version}))
            }
            _ => self.object(resource, &shown.object),
        }
    }
}

fn table(resource: &Resource, rows: Vec<Value>, metadata: Value) -> Value {
    let columns: Vec<_> = columns::of(resource)
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.type_, "format": column.format(), "description": column.name,
                "priority": column.priority})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns,
        "rows": rows})
}

fn row(resource: &Resource, object: &Value, rows: Rows) -> Value {
    let cells: Vec<_> = columns::of(resource).iter().map(|column| (column.cell)(object)).collect();
    let mut row = json!({"cells": cells});
    let carried = match rows {
        Rows::None => return row,
        Rows::Object => object.clone(),
        Rows::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata")}),
    };
    set(&mut row, &[], "object", carried);
    row
}
