//! What clients asked of the API server, from its own audit log: the ground truth for "how many writes does this cost"
//! and "which of the granted verbs are used".

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked, such as `system:serviceaccount:fleet:kiban`.
    pub user: String,
    /// The client's own name for itself.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// API group; empty for the core group and for paths that are no resource.
    pub group: String,
    /// Plural resource, with its subresource where there is one: `devices/status`.
    pub resource: String,
    /// Namespace; empty where there is none.
    pub namespace: String,
    /// Object; empty for lists, watches and creations.
    pub name: String,
    /// Whose fields it writes (`fieldManager`); empty where the request names nobody.
    pub manager: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

impl Request {
    /// True where it changed, or tried to change, something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        // A watch is logged when it begins and again when it ends: count it once, and before it ends.
        let stage = event["stage"].as_str()?;
        let verb = event["verb"].as_str()?;
        if stage
            != (if verb == "watch" {
                "ResponseStarted"
            } else {
                "ResponseComplete"
            })
        {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        Some(Self {
            user: text(&event["user"]["username"]),
            user_agent: text(&event["userAgent"]),
            verb: verb.to_owned(),
            group: text(&object["apiGroup"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            manager: query(event["requestURI"].as_str().unwrap_or_default(), "fieldManager"),
            code: event["responseStatus"]["code"]
                .as_u64()
                .and_then(|code| u16::try_from(code).ok())
                .unwrap_or_default(),
        })
    }
}

/// The value of a parameter of a URI's query. Managers' names need no decoding.
fn query(uri: &str, key: &str) -> String {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| *name == key)
        .map_or_else(String::new, |(_, value)| value.to_owned())
}

/// Reads the audit log as far as it is written.
pub(crate) fn read(path: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| Error::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text.lines().filter_map(Request::parse).collect())
}
