//! The Helm chart in `deploy/chart`: its objects, its values, and its life in a cluster.

mod installed;
mod objects;
mod values;

use std::path::Path;

use dispatcher_tests::manifests::{Helm, chart, comparable, example_values, kustomize};
use dispatcher_tests::{or_skip, paths};
use serde_json::{Value, json};

/// The object of a kind and a name.
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// The objects of a release with values of JSON.
async fn rendered(helm: &Helm, values: &Value) -> Result<Vec<Value>, String> {
    let folder = paths::temp_dir("values").unwrap();
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string()).unwrap();
    helm.template(&["--values", &file.display().to_string()]).await
}

/// The pod template of the Deployment.
fn pod(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "dispatcher").unwrap()["spec"]["template"]
}

/// The variables of the container, by name.
fn environment(objects: &[Value]) -> serde_json::Map<String, Value> {
    let variables = pod(objects)["spec"]["containers"][0]["env"].as_array().unwrap().iter();
    variables.map(|it| (it["name"].as_str().unwrap().to_owned(), it["value"].clone())).collect()
}

/// The arguments of `helm` for the objects of `kubectl kustomize deploy`, with further values.
fn arguments(examples: &[&str]) -> Vec<String> {
    let files = [&["kustomize"], examples].concat();
    files.into_iter().flat_map(|name| ["--values".to_owned(), example_values(name)]).collect()
}

/// Both render the same objects. [`comparable`] lists the differences that do not count.
async fn assert_equal(helm: &Helm, overlay: &Path, arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let charted = comparable(helm.template(&arguments).await.unwrap());
    let kustomized = comparable(kustomize(overlay).await.unwrap());
    let names: Vec<_> = charted.keys().collect();
    assert_eq!(names, kustomized.keys().collect::<Vec<_>>(), "{}", overlay.display());
    for (name, object) in &charted {
        assert_eq!(object, &kustomized[name], "{}: {name}", overlay.display());
    }
    assert!(charted.len() >= 16, "{names:?}");
}

#[tokio::test]
async fn chart_and_kustomize_give_the_same_objects() {
    let helm = or_skip!(Helm::offline());
    let deploy = paths::workspace().join("deploy");
    for (overlay, examples) in [(".", &[][..]), ("ha", &["ha"]), ("nats-tls", &["nats-tls"])] {
        assert_equal(&helm, &deploy.join(overlay), &arguments(examples)).await;
    }
    let report = deploy.join("examples/my-template/report.yaml");
    let report = ["--set-file".to_owned(), format!(r"templates.report\.yaml={}", report.display())];
    let with_report = [arguments(&["my-template"]), report.to_vec()].concat();
    assert_equal(&helm, &deploy.join("examples/my-template"), &with_report).await;
    for (components, example) in
        [(&["observability", "observability/operator"][..], "observability"), (&["kueue"], "kueue")]
    {
        let overlay = overlay_with(components);
        assert_equal(&helm, overlay.path(), &arguments(&[example])).await;
    }
}

/// An overlay of `deploy` with components of it.
fn overlay_with(components: &[&str]) -> tempfile::TempDir {
    // Inside the workspace, since kustomize refuses absolute paths.
    let parent = paths::workspace().join("target/overlays");
    std::fs::create_dir_all(&parent).unwrap();
    let folder = tempfile::tempdir_in(parent).unwrap();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["../../../deploy"],
        "components": components.iter().map(|name| format!("../../../deploy/{name}")).collect::<Vec<_>>(),
    });
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    folder
}

#[tokio::test]
async fn checked_in_manifests_are_what_the_chart_renders() {
    or_skip!(Helm::offline());
    let output = paths::temp_dir("manifests").unwrap();
    let mut command = tokio::process::Command::new(paths::workspace().join("tests/manifests"));
    let result = command.arg(output.path()).output().await.unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let generated = files(output.path());
    assert!(generated.len() >= 12, "{generated:?}");
    for file in generated {
        let [new, old] = [output.path(), &paths::workspace().join("deploy")]
            .map(|folder| std::fs::read_to_string(folder.join(&file)).unwrap_or_default());
        assert_eq!(new, old, "deploy/{file} is stale: run `make manifests`");
    }
    // A file that the script no longer copies is stale, too.
    let copies = |folder: &Path| files(&folder.join("chart/files"));
    assert_eq!(copies(&paths::workspace().join("deploy")), copies(output.path()));
}

/// The files below a folder, in order.
fn files(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => found.push(entry.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn lint_finds_nothing() {
    let helm = or_skip!(Helm::offline());
    let folder = chart().display().to_string();
    let all = ["ha", "nats-tls", "observability", "kueue", "my-template"];
    for examples in [&[][..], &all] {
        let lint = vec!["lint".to_owned(), "--strict".to_owned(), folder.clone()];
        let linted = helm.run(&[lint, arguments(examples)].concat()).await.unwrap();
        assert!(linted.contains("1 chart(s) linted, 0 chart(s) failed"), "{linted}");
        assert!(!linted.contains("[WARNING]") && !linted.contains("[ERROR]"), "{linted}");
    }
}

#[tokio::test]
async fn package_has_the_version_of_the_dispatcher() {
    let helm = or_skip!(Helm::offline());
    let shown = helm.run(&["show", "chart", &chart().display().to_string()]).await.unwrap();
    let shown: Value = serde_saphyr::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["version"], &shown["appVersion"]),
        (&json!(env!("CARGO_PKG_VERSION")), &shown["version"])
    );
}

#[tokio::test]
async fn values_in_the_documentation_are_valid() {
    let helm = or_skip!(Helm::offline());
    let page = std::fs::read_to_string(paths::workspace().join("docs/install.md")).unwrap();
    let section = page.split("\n## Helm\n").nth(1).unwrap();
    let values = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = paths::temp_dir("values").unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values).unwrap();
    let objects = helm.template(&["--values", &file.display().to_string()]).await.unwrap();
    assert!(json!(objects).to_string().contains("registry.example.com/dispatcher:0.1.0"));
}
