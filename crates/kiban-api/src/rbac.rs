//! What the operator may do in the fleet's namespace, each with its reason. The chart's Role is generated from this
//! table, and the end-to-end tests run the operator with exactly that Role: a verb that is missing fails them, one that
//! is not used has no place here.

use std::{collections::BTreeSet, fmt::Write as _};

/// One rule of the Role.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// API group; empty: the core group.
    pub group: &'static str,
    /// Resources, and subresources as `devices/status`.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What they are for.
    pub reason: &'static str,
}

/// Every kind.
const KINDS: &[&str] = &[
    "approvals",
    "devices",
    "firmwarebaselines",
    "fleetpolicies",
    "fleetrepositories",
    "hardwaremodels",
    "hardwarepools",
    "operations",
    "rollouts",
];
/// Kinds that come from Git.
const WRITTEN: &[&str] = &[
    "devices",
    "firmwarebaselines",
    "fleetpolicies",
    "fleetrepositories",
    "hardwaremodels",
    "hardwarepools",
];
/// Kinds that a commit may remove. A repository is never removed because it is not in itself: it is how it got here.
const PRUNED: &[&str] = &[
    "devices",
    "firmwarebaselines",
    "fleetpolicies",
    "hardwaremodels",
    "hardwarepools",
];
/// Kinds with a status.
const REPORTED: &[&str] = &[
    "devices/status",
    "firmwarebaselines/status",
    "fleetpolicies/status",
    "fleetrepositories/status",
    "hardwarepools/status",
    "operations/status",
    "rollouts/status",
];

/// The rules, in the order of the Role.
pub const RULES: &[Rule] = &[
    Rule {
        group: crate::labels::GROUP,
        resources: KINDS,
        verbs: &["list", "watch"],
        reason: "the world: one watch per kind",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: &["devices", "fleetrepositories", "operations"],
        verbs: &["get"],
        reason: "read live before something irreversible, and after a write that met another",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: WRITTEN,
        verbs: &["create", "patch"],
        reason: "sync: server-side apply of a commit",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: PRUNED,
        verbs: &["delete"],
        reason: "sync: what a commit no longer holds, under the prune guard",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: &["rollouts"],
        verbs: &["create"],
        reason: "planner: one rollout per pool and baseline, kept as the record of the last change",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: &["operations"],
        verbs: &["create", "patch", "delete", "deletecollection"],
        reason: "planner: grants, epochs, withdrawals; ledger: the finalizer, and deletion once history is pushed",
    },
    Rule {
        group: crate::labels::GROUP,
        resources: REPORTED,
        verbs: &["patch"],
        reason: "status; the model has none",
    },
    Rule {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["get", "create", "update"],
        reason: "who plans and who owns which shard; an epoch is read live",
    },
    Rule {
        group: "events.k8s.io",
        resources: &["events"],
        verbs: &["create", "patch"],
        reason: "events on transitions",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        verbs: &["get"],
        reason: "BMC accounts and Git keys, by the names that objects give: never listed, never watched",
    },
];

/// Every (group, resource, verb) that the Role grants.
#[must_use]
pub fn granted() -> BTreeSet<(&'static str, &'static str, &'static str)> {
    let mut granted = BTreeSet::new();
    for rule in RULES {
        for resource in rule.resources {
            granted.extend(rule.verbs.iter().map(|verb| (rule.group, *resource, *verb)));
        }
    }
    granted
}

/// What the Role grants and these requests did not use: after a test in which the operator did everything that it can
/// do, this is empty. A request is (group, resource with its subresource, verb, HTTP status), as an API server's audit log
/// has them.
#[must_use]
pub fn unused<'a>(
    requests: impl IntoIterator<Item = (&'a str, &'a str, &'a str, u16)>,
) -> BTreeSet<(&'static str, &'static str, &'static str)> {
    /// The status of an apply that made the object: one request, for which both rights are asked.
    const CREATED: u16 = 201;
    let mut left = granted();
    for (group, resource, verb, status) in requests {
        left.retain(|grant| *grant != (group, resource, verb));
        if verb == "patch" && status == CREATED {
            left.retain(|grant| *grant != (group, resource, "create"));
        }
    }
    left
}

/// The chart's Role template.
#[must_use]
pub fn role_template() -> String {
    let mut out = String::from(
        "{{- /* Generated from kiban-api's table of rules by `cargo xtask generate`. Change that, not this. */}}\n\
         {{- if .Values.rbac.create }}\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: Role\n\
         metadata:\n  name: {{ include \"kiban.fullname\" . }}\n  \
         labels:\n    {{- include \"kiban.labels\" . | nindent 4 }}\n\
         rules:\n",
    );
    for rule in RULES {
        let list = |words: &[&str]| words.join(", ");
        let _ = write!(
            out,
            "  # {}\n  - apiGroups: [{}]\n    resources: [{}]\n    verbs: [{}]\n",
            rule.reason,
            if rule.group.is_empty() { "\"\"" } else { rule.group },
            list(rule.resources),
            list(rule.verbs),
        );
    }
    out.push_str("{{- end }}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::{KINDS, REPORTED, RULES, granted, role_template, unused};
    use crate::generate;

    #[test]
    fn the_charts_role_is_what_the_table_says() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/kiban/templates/role.yaml");
        if std::env::var_os("KIBAN_GENERATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, role_template()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == role_template(),
            "role.yaml has drifted from the table: run `cargo xtask generate`"
        );
    }

    #[test]
    fn nothing_is_granted_that_could_grant_more() {
        let rules = || {
            RULES
                .iter()
                .flat_map(|rule| rule.resources.iter().chain(rule.verbs))
        };
        for forbidden in [
            "*",
            "escalate",
            "bind",
            "impersonate",
            "pods/exec",
            "pods",
            "roles",
        ] {
            assert!(rules().all(|word| *word != forbidden), "{forbidden}");
        }
        // What people write is deleted one by one, under the prune guard. Operations are the operator's own, and each
        // keeps its finalizer until its history is pushed.
        let many: Vec<_> = granted()
            .into_iter()
            .filter(|(_, _, verb)| *verb == "deletecollection")
            .collect();
        assert_eq!(many, [(crate::labels::GROUP, "operations", "deletecollection")]);
        let secrets: Vec<_> = granted()
            .into_iter()
            .filter(|(_, resource, _)| *resource == "secrets")
            .collect();
        assert_eq!(secrets, [("", "secrets", "get")]);
    }

    #[test]
    fn every_kind_is_watched_and_every_status_written() {
        for definition in generate::definitions() {
            let plural = definition.spec.names.plural.as_str();
            assert!(KINDS.contains(&plural), "{plural}");
            let versions = definition.spec.versions;
            let status = versions[0]
                .subresources
                .as_ref()
                .is_some_and(|sub| sub.status.is_some());
            assert_eq!(
                REPORTED.contains(&format!("{plural}/status").as_str()),
                status,
                "{plural}"
            );
        }
    }

    #[test]
    fn what_was_asked_is_used() {
        let left = unused([
            ("kiban.dev", "devices/status", "patch", 200),
            ("kiban.dev", "hardwarepools", "patch", 201),
            ("kiban.dev", "pods", "get", 403),
        ]);
        assert_eq!(left.len(), granted().len() - 3);
        assert!(!left.contains(&("kiban.dev", "hardwarepools", "create")));
        assert!(left.contains(&("kiban.dev", "hardwarepools", "delete")));
    }

    #[test]
    fn no_grant_stands_twice() {
        let all: usize = RULES
            .iter()
            .map(|rule| rule.resources.len() * rule.verbs.len())
            .sum();
        assert_eq!(all, granted().len());
        assert!(RULES.iter().all(|rule| !rule.reason.is_empty()));
    }
}
