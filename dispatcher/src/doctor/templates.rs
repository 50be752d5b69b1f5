//! Facts about the templates: files, `JobTemplate` objects, and the objects that they name.

use std::{collections::BTreeMap, fmt::Debug};

use dispatcher_core::{
    doctor::templates::{Exists, Kind, Reference, Sources, references},
    template::{
        Template,
        catalog::{Catalog, Document, Source},
    },
};
use futures::{StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Secret, ServiceAccount},
    scheduling::v1::PriorityClass,
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    cli::Config,
    doctor::kubernetes::DEADLINE,
    kube::call_within,
    templates::{folder::Folder, within_limits},
    watch::job_templates,
};

/// How many calls are in flight.
const CONCURRENT: usize = 8;
/// The most objects that are read.
const MAX_OBJECTS: u32 = 1000;

/// Reads the files, and with a client also the objects.
pub(super) async fn read(config: &Config, client: Option<&Client>) -> Sources {
    let mut folder = Folder::new(config.templates.folder.clone(), config.limits.policy());
    let folder_error = folder.read().err().map(|error| error.to_string());
    let mut documents = folder.documents();
    let job_templates = config.template_objects.job_templates;
    let mut objects_error = None;
    if job_templates {
        match client {
            None => objects_error = Some("the API server does not answer".to_owned()),
            Some(client) => match objects(config, client).await {
                Ok(objects) => documents.extend(objects),
                Err(error) => objects_error = Some(error),
            },
        }
    }
    let (catalog, refused) = Catalog::default().update(&documents);
    Sources { catalog, refused, folder: folder_error, objects: objects_error, job_templates }
}

async fn objects(config: &Config, client: &Client) -> Result<BTreeMap<Source, Document>, String> {
    let api = job_templates::api(client.clone(), &config.namespace);
    let params = ListParams::default().limit(MAX_OBJECTS);
    let found = call_within(DEADLINE, api.list(&params)).await.map_err(|error| error.to_string())?;
    let policy = config.limits.policy();
    let documents = found.items.into_iter().map(|object| {
        let name = object.name_any();
        let spec = object.data.get("spec").unwrap_or(&Value::Null);
        let template = within_limits(Template::of_object(&name, spec), &policy);
        let deleting = object.metadata.deletion_timestamp.is_some();
        (Source::Object(name), Document { template, deleting })
    });
    Ok(documents.collect())
}

/// Looks up the objects that the templates name.
pub(super) async fn look_up(catalog: &Catalog, client: &Client, namespace: &str) -> Vec<Reference> {
    let mut named: BTreeMap<(Kind, String), Vec<String>> = BTreeMap::new();
    for (name, entry) in catalog.entries() {
        for object in references(&entry.template) {
            named.entry(object).or_default().push(name.to_string());
        }
    }
    let references = stream::iter(named).map(|((kind, name), templates)| async move {
        let exists = match kind {
            Kind::ServiceAccount => {
                exists::<ServiceAccount>(Api::namespaced(client.clone(), namespace), &name).await
            }
            Kind::ImagePullSecret => {
                exists::<Secret>(Api::namespaced(client.clone(), namespace), &name).await
            }
            Kind::PriorityClass => exists::<PriorityClass>(Api::all(client.clone()), &name).await,
        };
        Reference { kind, name, templates, exists }
    });
    references.buffered(CONCURRENT).collect().await
}

/// Whether an object exists. Only its metadata is read, never the content of a Secret.
async fn exists<K>(api: Api<K>, name: &str) -> Exists
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match call_within(DEADLINE, api.get_metadata_opt(name)).await {
        Ok(Some(_)) => Exists::Yes,
        Ok(None) => Exists::No,
        Err(error) if error.code() == Some(403) => Exists::Forbidden,
        Err(error) => Exists::Unknown(error.to_string()),
    }
}
