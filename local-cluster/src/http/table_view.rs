//! The representation of objects in a response: plain objects, or the tables of `kubectl get`.

mod columns;

use axum::http::{HeaderMap, header::ACCEPT};
use serde_json::{Value, json};

use super::watch_event::WatchEvent;
use crate::{
    api::Page,
    object::{set, version},
    resource::Resource,
};

/// The representation that a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Objects,
    Table(RowObject),
}

/// The object that a table row carries in addition to its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowObject {
    Object,
    Metadata,
    None,
}

impl View {
    /// Selects the view from the `Accept` header and the parameter `includeObject`.
    pub(super) fn from_headers(headers: &HeaderMap, include: Option<&str>) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let first = accept.split(',').next().unwrap_or_default().replace(' ', "");
        match first.contains("as=Table") {
            false => Self::Objects,
            true => Self::Table(match include {
                Some("Object") => RowObject::Object,
                Some("None") => RowObject::None,
                _ => RowObject::Metadata,
            }),
        }
    }

    /// Formats one object.
    pub(super) fn object(self, resource: &Resource, object: &Value) -> Value {
        match self {
            Self::Objects => object.clone(),
            Self::Table(rows) => {
                let metadata = json!({"resourceVersion": version(object)});
                table(resource, vec![row(resource, object, rows)], metadata)
            }
        }
    }

    /// Formats a page of a list.
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

    /// Formats the object of a watch event.
    pub(super) fn event(self, resource: &Resource, event: &WatchEvent) -> Value {
        match event.type_ {
            "BOOKMARK" if self != Self::Objects => {
                let metadata = json!({"resourceVersion": version(&event.object)});
                table(resource, Vec::new(), metadata)
            }
            _ => self.object(resource, &event.object),
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

fn row(resource: &Resource, object: &Value, rows: RowObject) -> Value {
    let cells: Vec<_> = columns::of(resource).iter().map(|column| (column.cell)(object)).collect();
    let mut row = json!({"cells": cells});
    let row_object = match rows {
        RowObject::None => return row,
        RowObject::Object => object.clone(),
        RowObject::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata")}),
    };
    set(&mut row, &[], "object", row_object);
    row
}
