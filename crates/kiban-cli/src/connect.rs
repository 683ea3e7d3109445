//! The way to the cluster, with the user's own rights.

use crate::{cli::Global, failure::Failure};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, time::Duration};

/// A connection to the API server, and the fleet's namespace.
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The fleet.
    pub namespace: String,
}

/// Connects as kubectl would.
pub async fn connect(global: &Global) -> Result<Connection, Failure> {
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &global.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| {
                Failure::from_error(&format!("read kubeconfig {}", file.display()), &error)
            })?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None if std::env::var_os("KUBECONFIG").is_none() && options.context.is_none() => {
            return in_any_way(global).await;
        }
        None => Config::from_kubeconfig(&options).await,
    }
    .map_err(|error| {
        Failure::from_error("read the kubeconfig", &error)
            .hint("`kubectl config get-contexts` lists the contexts there are; choose one with --context")
    })?;
    finish(&mut config, global)
}

async fn in_any_way(global: &Global) -> Result<Connection, Failure> {
    let mut config = Config::infer().await.map_err(|error| {
        Failure::from_error("find a cluster", &error)
            .hint("give --kubeconfig FILE, or set KUBECONFIG, as for kubectl")
    })?;
    finish(&mut config, global)
}

fn finish(config: &mut Config, global: &Global) -> Result<Connection, Failure> {
    // A person waits at the terminal: better to say that the cluster is away than to hang.
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(60));
    let namespace = global
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config.clone())
        .map_err(|error| Failure::from_error("connect to the cluster", &error))?;
    Ok(Connection { client, namespace })
}

impl Connection {
    /// Every object of a kind in the fleet, in pages. An object that does not decode is left out and said.
    pub async fn list<K>(&self) -> Result<Vec<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut items = Vec::new();
        let mut params = ListParams::default().limit(500);
        loop {
            let page = api
                .list(&params)
                .await
                .map_err(|error| self.explain_error::<K>("list", &error))?;
            let token = page.metadata.continue_.clone();
            items.extend(page.items);
            match token {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => return Ok(items),
            }
        }
    }

    /// One object, if it exists.
    pub async fn get<K>(&self, name: &str) -> Result<Option<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get_opt(name)
            .await
            .map_err(|error| self.explain_error::<K>("get", &error))
    }

    /// What an error of the API server means to the person at the terminal.
    pub fn explain_error<K>(&self, verb: &str, error: &kube::Error) -> Failure
    where
        K: Resource<DynamicType = ()>,
    {
        let plural = K::plural(&());
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                Failure::new(format!("you may not {verb} {plural}.kiban.dev in namespace {}", self.namespace)).hint(format!(
                    "ask for a Role with the verb `{verb}` on `{plural}` in the group kiban.dev; `kubectl auth can-i {verb} {plural}.kiban.dev -n {}` checks it",
                    self.namespace
                ))
            }
            kube::Error::Api(status) if status.code == 401 => {
                Failure::new("the API server does not know you").hint("your credentials may have expired: try `kubectl auth whoami`")
            }
            kube::Error::Api(status) if status.code == 404 => {
                Failure::new(format!("the cluster has no {plural}.kiban.dev"))
                    .hint("Kiban's CRDs are not installed there, or the context is another cluster's: `kubectl config current-context` tells; `helm install kiban-crds charts/kiban-crds` installs them")
            }
            kube::Error::Api(status) => Failure::new(format!("{verb} {plural}: {}", status.message)),
            kube::Error::SerdeError(error) => Failure::new(format!("{verb} {plural}: {error}"))
                .hint("the CRDs in the cluster are of another version than this kubectl-kiban; compare `kubectl kiban --version` with the operator's"),
            other => Failure::from_error("reach the cluster", other)
                .hint("`kubectl cluster-info` shows where it is looked for; is it running, and is the context right?"),
        }
    }
}
