//! The charts and manifests on a real API server: they lint, render, are taken under the strictest Pod security, grant exactly
//! what the table of rights says, and refuse values that make no sense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops"
)]

use kiban_api::rbac;
use kiban_devcluster::{Cluster, Namespace, shared};
use std::{collections::BTreeSet, path::PathBuf};

fn repository(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
        .display()
        .to_string()
}

/// Everything that can be switched on.
const EVERYTHING: &[&str] = &[
    "--set=replicaCount=2",
    "--set=rbac.gates.workloads=true",
    "--set=podDisruptionBudget.enabled=true",
    "--set=networkPolicy.enabled=true",
    "--set=networkPolicy.apiServerCidrs={10.0.0.1/32}",
    "--set=networkPolicy.bmcCidrs={10.20.0.0/16,fd00::/8}",
    "--set=networkPolicy.gitCidrs={10.30.0.0/16}",
    "--set=imageEndpoint.url=https://images.example:8081",
    "--set=imageEndpoint.tls.secretName=image-tls",
    "--set=webhook.secretName=hook",
    "--set=operator.extraArgs={--plan-interval=30s}",
    "--set=image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "--set=fleetPolicy.create=true",
    "--set=fleetPolicy.spec.maxUnavailable=2%",
    "--set=repository.create=true",
    "--set=repository.spec.url=https://git.example/fleet.git",
    "--set=podLabels.team=base",
    "--set=serviceAccount.annotations.note=x",
    "--set=nodeSelector.zone=a",
    "--set=priorityClassName=system-cluster-critical",
];

/// A namespace with the kinds, in which a Pod that is not restricted is worth a warning.
async fn fleet() -> (Cluster, Namespace) {
    let cluster = shared().await.unwrap();
    cluster
        .apply_crds(&PathBuf::from(repository("crds")))
        .await
        .unwrap();
    let namespace = cluster.namespace("chart").await.unwrap();
    let label = [
        "label",
        "namespace",
        namespace.name(),
        "pod-security.kubernetes.io/warn=restricted",
    ];
    cluster.kubectl(label).await.unwrap();
    (cluster, namespace)
}

async fn render(namespace: &Namespace, values: &[&str]) -> Result<String, String> {
    let chart = repository("charts/kiban");
    let args = ["template", "kiban", chart.as_str()];
    let rendered = namespace.helm(args.iter().chain(values)).await;
    rendered.map_err(|error| format!("{error}: {}", error.stderr().unwrap_or_default()))
}

/// Applies without keeping anything; a warning is an error.
async fn try_out(cluster: &Cluster, namespace: &str, manifests: &str) {
    let args = [
        "-n",
        namespace,
        "apply",
        "--server-side",
        "--dry-run=server",
        "--warnings-as-errors",
        "-f",
        "-",
    ];
    cluster.kubectl_with_input(args, manifests).await.unwrap();
}

#[tokio::test]
async fn both_charts_lint() {
    let cluster = shared().await.unwrap();
    for chart in ["charts/kiban", "charts/kiban-crds"] {
        cluster
            .helm(["lint", "--strict", &repository(chart)])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_chart_is_taken_as_it_is_and_with_everything_on() {
    let (cluster, namespace) = fleet().await;
    for (values, objects) in [(&[] as &[&str], 7), (EVERYTHING, 13)] {
        let rendered = render(&namespace, values).await.unwrap();
        assert_eq!(rendered.matches("\nkind: ").count(), objects, "{rendered}");
        assert!(!rendered.contains("ClusterRole"), "a fleet is one namespace");
        try_out(&cluster, namespace.name(), &rendered).await;
    }
}

/// The operator's crate may be used by nobody but its binary, so that its flags are read from where they are defined.
#[tokio::test]
async fn the_operator_knows_every_flag_and_variable_that_the_chart_sets() {
    let (_, namespace) = fleet().await;
    let config = std::fs::read_to_string(repository("crates/kiban-operator/src/config.rs")).unwrap();
    let rendered = render(&namespace, EVERYTHING).await.unwrap();
    let flags = rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --")?.split('=').next());
    let flags: Vec<&str> = flags.collect();
    assert!(flags.len() > 8, "{flags:?}");
    for flag in flags {
        assert!(
            config.contains(&format!("pub {}: ", flag.replace('-', "_"))),
            "--{flag}"
        );
    }
    for variable in rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- name: KIBAN_"))
    {
        assert!(
            config.contains(&format!("env = \"KIBAN_{variable}\"")),
            "{variable}"
        );
    }
}

#[tokio::test]
async fn the_definitions_are_kept_unless_that_is_switched_off() {
    let cluster = shared().await.unwrap();
    let chart = repository("charts/kiban-crds");
    let kept = cluster.helm(["template", "crds", &chart]).await.unwrap();
    assert_eq!(kept.matches("helm.sh/resource-policy: keep").count(), 9);
    let not_kept = cluster
        .helm(["template", "crds", &chart, "--set=keep=false"])
        .await
        .unwrap();
    assert!(!not_kept.contains("resource-policy"));
    for rendered in [kept, not_kept] {
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--warnings-as-errors",
            "-f",
            "-",
        ];
        cluster.kubectl_with_input(args, &rendered).await.unwrap();
    }
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused() {
    let (_, namespace) = fleet().await;
    for (value, says) in [
        ("replicaCount=-1", "replicaCount"),
        ("replicaCount=two", "replicaCount"),
        ("replicas=2", "replicas"),
        ("image.digest=sha256:short", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("operator.logFormat=xml", "logFormat"),
        ("operator.shards=0", "shards"),
        ("operator.extraArgs={plan-interval}", "extraArgs"),
        ("imageEndpoint.url=ftp://images", "url"),
        ("service.port=70000", "port"),
        ("service.type=ExternalName", "type"),
        ("networkPolicy.bmcCidrs={10.20.0.0}", "bmcCidrs"),
        ("networkPolicy.enabled=true", "apiServerCidrs"),
        ("podDisruptionBudget.enabled=true", "replicaCount 2 or more"),
        ("repository.create=true", "url"),
        ("cache.sizeLimit=lots", "sizeLimit"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
    ] {
        let refused = render(&namespace, &[&format!("--set={value}")])
            .await
            .unwrap_err();
        assert!(refused.contains(says), "{value}: {refused}");
    }
    let keep = [
        "template",
        "crds",
        &repository("charts/kiban-crds"),
        "--set=keep=perhaps",
    ];
    assert!(namespace.helm(keep).await.is_err());
}

/// What the account may do is what the table says, and nothing in another namespace or the cluster.
#[tokio::test]
async fn the_account_has_exactly_the_rights_of_the_table() {
    let (cluster, namespace) = fleet().await;
    let rights =
        ["serviceaccount", "role", "rolebinding"].map(|name| format!("--show-only=templates/{name}.yaml"));
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    namespace
        .apply(&render(&namespace, &rights).await.unwrap())
        .await
        .unwrap();
    let account = namespace.as_service_account("kiban").await.unwrap();

    // What every authenticated account may do, such as asking what it may do, is no business of ours.
    let own = rules(account.cluster(), namespace.name()).await;
    let elsewhere = cluster.namespace("elsewhere").await.unwrap();
    let anyone = rules(account.cluster(), elsewhere.name()).await;
    let given: BTreeSet<_> = own.difference(&anyone).cloned().collect();
    let table: BTreeSet<_> = rbac::granted()
        .into_iter()
        .map(|(group, resource, verb)| (group.to_owned(), resource.to_owned(), verb.to_owned()))
        .collect();
    assert_eq!(given, table);
    assert!(
        anyone.iter().all(|(_, resource, _)| resource.starts_with("self")),
        "{anyone:?}"
    );
}

/// (group, resource, verb) of a SelfSubjectRulesReview.
async fn rules(cluster: &Cluster, namespace: &str) -> BTreeSet<(String, String, String)> {
    let review = format!(
        r#"{{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {{"namespace": "{namespace}"}}}}"#
    );
    let answer = cluster
        .kubectl_with_input(["create", "--validate=false", "-o", "json", "-f", "-"], &review)
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let mut found = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().unwrap() {
        let texts = |field: &str| -> Vec<String> {
            let items = rule[field].as_array().map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .map(|item| item.as_str().unwrap().to_owned())
                .collect()
        };
        for group in texts("apiGroups") {
            for resource in texts("resources") {
                found.extend(
                    texts("verbs")
                        .into_iter()
                        .map(|verb| (group.clone(), resource.clone(), verb)),
                );
            }
        }
    }
    found
}

#[tokio::test]
async fn the_manifests_are_what_the_chart_renders() {
    let cluster = shared().await.unwrap();
    let chart = repository("charts/kiban");
    let rendered = cluster
        .helm(["template", "kiban", &chart, "--namespace", "kiban"])
        .await
        .unwrap();
    let rendered = format!(
        "# Rendered from charts/kiban with its defaults. Change that, not this.\n{}\n",
        rendered.trim_end()
    );
    let definitions = kiban_api::generate::crds_in_one();
    for (name, wanted) in [("kiban.yaml", rendered), ("crds.yaml", definitions)] {
        let path = repository(&format!("manifests/base/{name}"));
        if std::env::var_os("KIBAN_GENERATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "manifests/base/{name} has drifted: KIBAN_GENERATE=1 cargo test -p kiban-tests --test chart manifests"
        );
    }

    // Another test, or another run on this cluster, may have made it.
    let made = cluster.kubectl(["create", "namespace", "kiban"]).await;
    assert!(
        made.is_ok()
            || made
                .unwrap_err()
                .stderr()
                .unwrap_or_default()
                .contains("already exists")
    );
    cluster
        .apply_crds(&PathBuf::from(repository("crds")))
        .await
        .unwrap();
    for folder in ["manifests/base", "manifests/overlays/two-replicas"] {
        let built = cluster.kubectl(["kustomize", &repository(folder)]).await.unwrap();
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--warnings-as-errors",
            "-f",
            "-",
        ];
        cluster.kubectl_with_input(args, &built).await.unwrap();
    }
}

#[tokio::test]
async fn the_sample_fleet_is_taken() {
    let (cluster, namespace) = fleet().await;
    let folder = repository("manifests/sample-fleet");
    let args = [
        "-n",
        namespace.name(),
        "apply",
        "--server-side",
        "--dry-run=server",
        "--warnings-as-errors",
        "-R",
        "-f",
        &folder,
    ];
    let taken = cluster.kubectl(args).await.unwrap();
    assert_eq!(taken.lines().count(), 1 + 4 + 4 + 2 + 16, "{taken}");
}
