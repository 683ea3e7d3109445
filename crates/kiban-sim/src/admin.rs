//! The admin endpoint: plain HTTP on loopback, to watch the fleet and to hurt it from outside the process.
//!
//! ```text
//! GET    /machines                       state of all machines
//! GET    /machines/{name}                state of one
//! POST   /machines/{name}/{action}       a change beside the network, see [`Action`]
//! GET    /record?since=N&limit=M         the log after position N
//! GET    /flashes                        every flash, and which were double
//! GET    /faults        POST /faults     the rules; adds one
//! DELETE /faults        DELETE /faults/{id}
//! GET    /ca.pem        GET /metrics     the certificate authority; counts
//! ```

use crate::{
    fault::Rule,
    fleet::{FaultHandle, FleetError, MachineState, Shared, Stats, by_hand, machine_state, stats},
    model::Class,
    record::{Entry, Flash},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc};

/// What a `POST` to a machine can do, by the last part of its path; the body gives what is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Action {
    class: Option<Class>,
    version: Option<String>,
    serial: Option<String>,
    uuid: Option<uuid::Uuid>,
    reset: Option<String>,
    password: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
    #[serde(default = "page")]
    limit: usize,
}

fn page() -> usize {
    10_000
}

/// The flashes of the fleet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flashes {
    #[serde(skip_deserializing)]
    all: Vec<Flash>,
    #[serde(skip_deserializing)]
    double: Vec<Flash>,
    peak_disrupted: usize,
}

pub(crate) async fn serve(shared: Arc<Shared>, address: SocketAddr) -> Result<SocketAddr, FleetError> {
    let failed = |source| FleetError::Listen {
        machine: "the admin endpoint".into(),
        address,
        source,
    };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/machines", get(machines))
        .route("/machines/{name}", get(machine))
        .route("/machines/{name}/{action}", post(act))
        .route("/record", get(record))
        .route("/flashes", get(flashes))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/ca.pem", get(ca))
        .route("/metrics", get(metrics))
        .with_state(shared.clone());
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin endpoint stopped");
        }
    });
    Ok(address)
}

async fn machines(State(shared): State<Arc<Shared>>) -> Json<Vec<MachineState>> {
    Json(
        shared
            .machines
            .iter()
            .map(|m| machine_state(&shared, m))
            .collect(),
    )
}

async fn machine(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Json<MachineState>, StatusCode> {
    let machine = shared.find(&name).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(machine_state(&shared, machine)))
}

async fn record(State(shared): State<Arc<Shared>>, Query(q): Query<Since>) -> Json<Vec<Entry>> {
    Json(shared.record.since(q.since, q.limit))
}

async fn flashes(State(shared): State<Arc<Shared>>) -> Json<Flashes> {
    let record = &shared.record;
    Json(Flashes {
        all: record.all_flashes(),
        double: record.double_flashes(),
        peak_disrupted: record.peak_disrupted(),
    })
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Vec<Rule>> {
    Json(shared.faults.list())
}

async fn add_fault(State(shared): State<Arc<Shared>>, Json(rule): Json<Rule>) -> (StatusCode, Json<u64>) {
    (StatusCode::CREATED, Json(FaultHandle { shared }.add(rule)))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    FaultHandle { shared }.clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    let removed = FaultHandle { shared }.remove(id);
    if removed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn ca(State(shared): State<Arc<Shared>>) -> String {
    shared.ca_pem().to_owned()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(stats(&shared))
}

async fn act(
    State(shared): State<Arc<Shared>>,
    Path((name, action)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let wants = |what: &str| bad(format!("{action} needs {what}"));
    let machine = shared
        .find(&name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("no machine {name}")))?;
    let with: Action = if body.is_empty() {
        Action::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?
    };
    match action.as_str() {
        "set-version" => {
            let class = with.class.ok_or_else(|| wants("class"))?;
            let version = with.version.ok_or_else(|| wants("version"))?;
            by_hand(&shared, machine, &format!("set {class} to {version}"), |turn| {
                for slot in turn.machine.model.of_class(class).collect::<Vec<_>>() {
                    turn.flash_by_hand(slot, &version);
                }
            });
        }
        "set-serial" => {
            let serial = with.serial.ok_or_else(|| wants("serial"))?;
            by_hand(&shared, machine, "swap serial", |turn| {
                turn.st.serial = serial.into();
            });
        }
        "set-uuid" => {
            let uuid = with.uuid.ok_or_else(|| wants("uuid"))?;
            by_hand(&shared, machine, "swap uuid", |turn| turn.st.uuid = uuid);
        }
        "set-password" => {
            let password = with.password.ok_or_else(|| wants("password"))?;
            by_hand(&shared, machine, "set password", |turn| {
                turn.st.extra().password = Some(password);
            });
        }
        "reset-host" => {
            let kind = with.reset.ok_or_else(|| wants("reset"))?;
            by_hand(&shared, machine, &kind, |turn| {
                let _ = turn.reset_host(&kind);
            });
        }
        "reset-bmc" => by_hand(&shared, machine, "reset the BMC", |turn| {
            turn.reset_bmc("by hand");
        }),
        "ac-cycle" => by_hand(&shared, machine, "AC cycle", |turn| turn.ac_cycle("by hand")),
        "end-sessions" => by_hand(&shared, machine, "end sessions", |turn| turn.st.sessions.clear()),
        _ => return Err((StatusCode::NOT_FOUND, format!("no action {action}"))),
    }
    Ok(StatusCode::NO_CONTENT)
}
