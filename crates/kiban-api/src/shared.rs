//! Types that several kinds share, and the patterns and bounds of their fields.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A count or a share: `3`, or `5%`. A percentage is of the devices concerned, rounded up; `0%` is none.
pub type Amount = IntOrString;

/// Name of an object (RFC 1123 subdomain), as references give it.
pub const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// As [`NAME`], or empty.
pub const NAME_OR_EMPTY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";
/// A duration: days, hours, minutes, seconds, in this order, each at most once. The digits allowed bound it to three
/// years, so that no sum of times can overflow.
pub const DURATION: &str =
    r"^(0s|([1-9][0-9]{0,2}d)?([1-9][0-9]{0,3}h)?([1-9][0-9]{0,4}m)?([1-9][0-9]{0,6}s)?)$";
/// A percentage from `0%` to `100%`.
pub const PERCENT: &str = r"^([0-9]|[1-9][0-9]|100)%$";
/// SHA-256 as 64 hex digits.
pub const SHA256: &str = r"^[0-9a-fA-F]{64}$";
/// SHA-256 as 64 hex digits, or as 32 pairs with colons, as openssl prints a fingerprint.
pub const FINGERPRINT: &str = r"^([0-9a-fA-F]{64}|([0-9a-fA-F]{2}:){31}[0-9a-fA-F]{2})$";
/// Name of something inside an object (RFC 1123 label).
pub const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// An http or https address without an account, a query or a fragment in the host's place.
pub const PROBE_URL: &str = r"^https?://[A-Za-z0-9._:\[\]-]+(/[!-~]*)?$";
/// Host and port.
pub const HOST_PORT: &str = r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$";
/// A comparison with a number: `> 0.99`.
pub const NUMBER_CONDITION: &str =
    r"^(>=|<=|==|!=|>|<) ?-?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?$";
/// The type of a Kubernetes condition.
pub const CONDITION_TYPE: &str = r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$";
/// An https address without an account in it.
pub const HTTPS_URL: &str = r"^https://[A-Za-z0-9._:\[\]-]+(/[!-~]*)?$";
/// Where an image is: https, or `file:///` for tests and the demo.
pub const IMAGE_URL: &str = r"^(https://[A-Za-z0-9._:\[\]-]+/[!-~]+|file:///[!-~]+)$";
/// A firmware version as vendors write it: printable ASCII, blanks inside only.
pub const VERSION: &str = r"^[!-~]([ -~]*[!-~])?$";
/// One line of text: no control characters, so that nothing that a terminal would obey gets through.
pub const LINE: &str = r"^[^\x00-\x1f\x7f]*$";
/// A calendar date.
pub const DATE: &str = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$";
/// A UUID.
pub const UUID: &str = r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$";
/// A serial number as labels carry it.
pub const SERIAL: &str = r"^[A-Za-z0-9]([A-Za-z0-9 ._/:-]*[A-Za-z0-9])?$";
/// Git branch, without what Git or a command line would read otherwise.
pub const BRANCH: &str = r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$";

/// Which of a device's components an entry speaks of. All given patterns must match; `*` stands for any text, and
/// upper and lower case are the same. Give at least one; leave `match` out to mean all components of the class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.manufacturer) || has(self.model) || has(self.name)")
    .message("match must give manufacturer, model or name; leave match out to mean all components of the class"))]
pub struct ComponentMatch {
    /// Pattern for the manufacturer as Redfish reports it. Example: `Mellanox*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub manufacturer: Option<String>,
    /// Pattern for the model as Redfish reports it. Example: `ConnectX-6*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub model: Option<String>,
    /// Pattern for the inventory entry's name. Example: `Integrated NIC*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub name: Option<String>,
}

/// A component's class, by what it does in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ComponentClass {
    BMC,
    BIOS,
    NIC,
    StorageController,
    Drive,
    PSU,
    CPLD,
    GPU,
    Other,
}

/// A Secret in the same namespace. References never cross a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// Name of the Secret, in the same namespace. Example: `git-deploy-key`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
}

/// Conditions, one per type.
pub type Conditions = Vec<Condition>;

/// Schema of an [`Amount`] with its bounds: the derived one says only that it is an integer or a string.
pub(crate) fn amount(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": PERCENT,
        "minimum": 0,
        "maximum": 1_000_000,
    })
}

/// Makes a derived schema one that an API server reads without a warning, for what people write: no null anywhere
/// (in Git an empty value is a line to delete, never a meaning), and the rest of [`plain`].
pub(crate) fn written(schema: &mut Schema) {
    without_null(schema.ensure_object());
    plain(schema);
}

/// Most characters of a text in a status: a few sentences. What is longer is cut by [`crate::bounds::fit`].
const STATUS_TEXT: u64 = 1024;
/// Most items of a list in a status: a chassis with its drives. Longer lists are in the ledger.
const STATUS_ITEMS: u64 = 128;

/// As [`plain`], for a status: every text and list in it that has no bound of its own gets one, because what a BMC
/// or a Git server says ends up there, and must not fill etcd.
pub(crate) fn observed(schema: &mut Schema) {
    plain(schema);
    bounded(schema);
}

fn bounded(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut bounded, schema);
    let object = schema.ensure_object();
    let is = |name: &str| match object.get("type") {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(types)) => types.iter().any(|one| one == name),
        _ => false,
    };
    let (text, list) = (is("string"), is("array"));
    if text && !object.contains_key("format") && !object.contains_key("enum") {
        object.entry("maxLength").or_insert(json!(STATUS_TEXT));
    }
    if list {
        object.entry("maxItems").or_insert(json!(STATUS_ITEMS));
    }
}

/// Makes a derived schema one that an API server reads without a warning: integer formats that OpenAPI does not
/// know become bounds, conditions become a list keyed by type, and doc comments become paragraphs.
pub(crate) fn plain(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut plain, schema);
    let object = schema.ensure_object();
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = paragraphs(text);
    }
    // What `deny_unknown_fields` becomes. A structural schema may not have it beside properties; the API server
    // knows unknown fields by itself.
    if object.contains_key("properties") {
        object.remove("additionalProperties");
    }
    let largest = match object.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(u64::from(u8::MAX)),
        Some("uint16") => Some(u64::from(u16::MAX)),
        Some("uint32") => Some(u64::from(u32::MAX)),
        _ => None,
    };
    if let Some(largest) = largest {
        object.remove("format");
        object.entry("minimum").or_insert(json!(0));
        object.entry("maximum").or_insert(json!(largest));
    }
    let conditions = object
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("conditions"));
    if let Some(Value::Object(conditions)) = conditions {
        conditions.insert("x-kubernetes-list-type".into(), json!("map"));
        conditions.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
        conditions.insert("maxItems".into(), json!(16));
    }
}

fn without_null(object: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if types.len() == 1 {
            let only = types.remove(0);
            object.insert("type".into(), only);
        }
    }
    let null = json!({"type": "null"});
    if let Some(Value::Array(choices)) = object.get_mut("anyOf")
        && choices.contains(&null)
    {
        choices.retain(|choice| *choice != null);
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    for value in object.values_mut() {
        match value {
            Value::Object(inner) => without_null(inner),
            Value::Array(items) => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    without_null(item);
                }
            }
            _ => {}
        }
    }
}

/// Joins the lines of each paragraph: a terminal wraps better than a source file does.
fn paragraphs(text: &str) -> String {
    let joined = |paragraph: &str| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(joined).collect::<Vec<_>>().join("\n\n")
}
