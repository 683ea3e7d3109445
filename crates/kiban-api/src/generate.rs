//! What is generated from the kinds: the CRDs as YAML, plain and as templates of the chart, and the reference page.
//!
//! Deterministic: the same kinds give the same bytes, so that a test can tell when a committed file has drifted.

use crate::{
    Approval, Device, FirmwareBaseline, FleetPolicy, FleetRepository, HardwareModel, HardwarePool, Operation,
    Rollout,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::OnceLock};

mod reference;

pub use reference::reference;

/// Every kind's definition, in the order in which documentation names them. These are what is installed.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = derived();
    for version in definitions
        .iter_mut()
        .flat_map(|definition| &mut definition.spec.versions)
    {
        let schema = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            without_nullable_amounts(schema);
        }
    }
    definitions
}

/// The derive takes a schema without a type for one that takes null; an amount has no type, and takes none.
fn without_nullable_amounts(schema: &mut JSONSchemaProps) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.nullable = None;
    }
    schema
        .properties
        .iter_mut()
        .flatten()
        .for_each(|(_, inner)| without_nullable_amounts(inner));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_nullable_amounts(items);
    }
}

fn derived() -> Vec<CustomResourceDefinition> {
    vec![
        FleetPolicy::crd(),
        FleetRepository::crd(),
        HardwareModel::crd(),
        Device::crd(),
        HardwarePool::crd(),
        FirmwareBaseline::crd(),
        Rollout::crd(),
        Operation::crd(),
        Approval::crd(),
    ]
}

/// The OpenAPI schema of a kind, as its CRD carries it. None: not a kind of ours.
#[must_use]
pub fn schema(kind: &str) -> Option<&'static Value> {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| {
        let of = |definition: CustomResourceDefinition| {
            let version = definition.spec.versions.into_iter().next()?;
            let schema = serde_json::to_value(version.schema?.open_api_v3_schema?).ok()?;
            Some((definition.spec.names.kind, sorted(schema)))
        };
        definitions().into_iter().filter_map(of).collect()
    });
    schemas.get(kind)
}

/// The CRDs: file name (`kiban.dev_devices.yaml`) and content, sorted by file name.
#[must_use]
pub fn crds() -> Vec<(String, String)> {
    files(|definition| format!("{HEADER}{}", yaml(&definition)))
}

/// The CRDs as templates of the chart `kiban-crds`: the same, kept by Helm on uninstall where the chart's value
/// `keep` says so, because removing a CRD removes every object of its kind.
#[must_use]
pub fn crd_templates() -> Vec<(String, String)> {
    files(|mut definition| {
        // Stands in for the annotations until the text is there: Helm's braces are no YAML.
        definition.metadata.annotations = Some([(MARK.to_owned(), String::new())].into());
        let text = yaml(&definition).replace("{{", "{{`{{`}}");
        let mut out = String::from(HEADER);
        for line in text.lines() {
            if line.trim_start().starts_with(MARK) {
                continue;
            }
            if line.trim() == "annotations:" {
                out.push_str("  {{- if .Values.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n");
                out.push_str("  labels:\n    {{- include \"kiban-crds.labels\" . | nindent 4 }}\n");
                continue;
            }
            out.push_str(line);
            out.push('\n');
        }
        out
    })
}

/// The CRDs in one file, for Kustomize, which takes no files from outside its folder.
#[must_use]
pub fn crds_in_one() -> String {
    let documents = crds()
        .into_iter()
        .map(|(_, text)| text.replacen(HEADER, "---\n", 1));
    std::iter::once(HEADER.to_owned()).chain(documents).collect()
}

const HEADER: &str = "# Generated from the Rust types by `cargo xtask generate`. Change those, not this.\n";
const MARK: &str = "kiban.dev/annotations-go-here";

fn files(content: impl Fn(CustomResourceDefinition) -> String) -> Vec<(String, String)> {
    let mut files: Vec<_> = definitions()
        .into_iter()
        .map(|definition| {
            let name = format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural);
            (name, content(definition))
        })
        .collect();
    files.sort();
    files
}

fn yaml(definition: &CustomResourceDefinition) -> String {
    let value = sorted(serde_json::to_value(definition).unwrap_or_default());
    serde_saphyr::to_string(&value).unwrap_or_default()
}

/// Keys in alphabetical order, whether or not some other crate of the build has asked serde_json to keep theirs.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().collect();
            Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        // Bounds are floating-point numbers in the API's types; all of ours are whole.
        Value::Number(number) => match number.as_f64() {
            Some(whole) if !number.is_i64() && !number.is_u64() && whole.fract() == 0.0 => {
                Value::from(whole as i64) // at most 2^34, see the bounds in the kinds
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;
