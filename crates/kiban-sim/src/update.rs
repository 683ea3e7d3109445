//! Updates with images: multipart push, raw push, iLO's form, and `SimpleUpdate`, for which the BMC fetches.

use crate::{
    fleet::Shared,
    image::{ImageHeader, MAX_HEADER_BYTES, hex},
    record::Summary,
    request::Reply,
    state::{ApplyTime, Machine, UpdateRequest},
};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// BMCs have little memory; emulated ones refuse larger images as real ones do.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// An image as it streams by: its digest, its size, and the beginning, where the header is.
#[derive(Default)]
struct Intake {
    hasher: Sha256,
    size: u64,
    head: Vec<u8>,
}

impl Intake {
    fn take(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.size += chunk.len() as u64;
        if self.size > MAX_IMAGE_BYTES {
            return Err(format!("larger than {MAX_IMAGE_BYTES} bytes"));
        }
        self.hasher.update(chunk);
        let room = (MAX_HEADER_BYTES + 64).saturating_sub(self.head.len());
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        Ok(())
    }

    fn end(self) -> (Result<ImageHeader, String>, String, u64) {
        (
            ImageHeader::parse(&self.head).map_err(|e| e.to_string()),
            hex(&self.hasher.finalize()),
            self.size,
        )
    }
}

fn note(summary: &mut Summary, header: &Result<ImageHeader, String>, digest: &str, size: u64) {
    summary.digest = Some(digest.to_owned());
    summary.size = Some(size);
    if let Ok(h) = header {
        summary.class = Some(h.class);
        summary.version = Some(h.version.clone());
    }
}

/// Whether an upload is posted here, and in which form.
pub(crate) fn push_form(machine: &Machine, path: &str) -> Option<Form> {
    let vendor = machine.vendor();
    if vendor.multipart_uri() == Some(path) {
        return Some(Form::Multipart);
    }
    (vendor.http_push_uri() == Some(path)).then_some(match machine.model.persona {
        crate::model::Persona::Hpe => Form::Ilo,
        _ => Form::Raw,
    })
}

/// The forms of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `UpdateParameters` as JSON, then `UpdateFile`.
    Multipart,
    /// The image is the body.
    Raw,
    /// iLO's form: `sessionKey`, `parameters`, then the file.
    Ilo,
}

/// Takes an upload to its end and begins the update.
pub(crate) async fn push<B>(
    shared: &Shared,
    machine: &Machine,
    form: Form,
    content_type: Option<&str>,
    client: &str,
    body: B,
    summary: &mut Summary,
) -> Reply
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    if let Err(reply) = shared.with(machine, |turn| turn.machine.vendor().admit_update(turn, client)) {
        return reply;
    }
    let (parameters, session, intake) = match form {
        Form::Raw => (Value::Null, String::new(), raw(body).await),
        Form::Multipart | Form::Ilo => match multipart(content_type, body).await {
            Ok((parameters, session, intake)) => (parameters, session, Ok(intake)),
            Err(text) => return Reply::error(400, "Base.1.12.MalformedJSON", &text),
        },
    };
    let intake = match intake {
        Ok(intake) => intake,
        Err(text) => return Reply::error(413, "Base.1.12.PayloadTooLarge", &text),
    };
    let (header, digest, size) = intake.end();
    note(summary, &header, &digest, size);
    if form == Form::Multipart
        && machine.model.persona == crate::model::Persona::Dell
        && !parameters["Oem"].is_object()
    {
        let text = "The object UpdateParameters needs the property Oem.";
        return Reply::error(400, "Base.1.12.PropertyMissing", text);
    }
    if form == Form::Ilo {
        // The form carries the session itself; basic authentication alone does not open it.
        let known = shared.with(machine, |turn| {
            let timeout = turn.machine.vendor().session_timeout() * 1000;
            turn.st.sessions.touch(&session, turn.t, timeout).is_some()
        });
        if !known {
            return Reply::error(
                401,
                "Base.1.4.NoValidSession",
                "The form's sessionKey is not a session.",
            );
        }
    }
    let targets = strings(&parameters["Targets"]);
    summary.targets.clone_from(&targets);
    summary.apply_time = parameters["@Redfish.OperationApplyTime"]
        .as_str()
        .map(str::to_owned);
    shared.with(machine, |turn| {
        let Some(apply) = apply_time(
            turn.machine,
            &parameters,
            turn.st.extra.as_ref().is_some_and(|e| e.on_reset),
        ) else {
            return Reply::bad_value("@Redfish.OperationApplyTime");
        };
        let vendor = turn.machine.vendor();
        match turn.push_update(UpdateRequest {
            header,
            digest,
            targets,
            apply,
        }) {
            Ok(task) => vendor.accepted(turn, task),
            Err(refusal) => vendor.refused(refusal),
        }
    })
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .map(|l| l.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect())
        .unwrap_or_default()
}

fn apply_time(machine: &Machine, parameters: &Value, on_reset: bool) -> Option<ApplyTime> {
    use crate::model::Persona;
    match (
        parameters["@Redfish.OperationApplyTime"].as_str(),
        machine.model.persona,
    ) {
        // X12 always verifies first and waits to be started.
        (None | Some("OnStartUpdateRequest"), Persona::Supermicro) => Some(ApplyTime::OnStartUpdateRequest),
        (Some("Immediate"), _) => Some(ApplyTime::Immediate),
        (Some("OnReset"), _) => Some(ApplyTime::OnReset),
        (Some("OnStartUpdateRequest"), Persona::Dell) => Some(ApplyTime::OnStartUpdateRequest),
        (Some(_), _) => None,
        (None, _) => Some(if on_reset {
            ApplyTime::OnReset
        } else {
            ApplyTime::Immediate
        }),
    }
}

async fn raw<B>(mut body: B) -> Result<Intake, String>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::error::Error,
{
    let mut intake = Intake::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| e.to_string())?;
        if let Some(chunk) = frame.data_ref() {
            intake.take(chunk)?;
        }
    }
    Ok(intake)
}

async fn multipart<B>(content_type: Option<&str>, body: B) -> Result<(Value, String, Intake), String>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// Parameters are a few lines of JSON.
    const MAX_PARAMETERS: usize = 64 << 10;
    let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|e| e.to_string())?;
    let stream = body.into_data_stream();
    let mut parts = multer::Multipart::new(stream, boundary);
    let (mut parameters, mut session, mut intake) = (Value::Null, String::new(), None);
    while let Some(mut part) = parts.next_field().await.map_err(|e| e.to_string())? {
        let name = part.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "UpdateFile" | "file" | "files[]" => {
                if part.file_name().is_none() {
                    return Err("the part UpdateFile needs a file name".into());
                }
                let mut taken = Intake::default();
                while let Some(chunk) = part.chunk().await.map_err(|e| e.to_string())? {
                    taken.take(&chunk)?;
                }
                intake = Some(taken);
            }
            _ => {
                let text = part.bytes().await.map_err(|e| e.to_string())?;
                if text.len() > MAX_PARAMETERS {
                    return Err(format!("the part {name} is too long"));
                }
                if name == "UpdateParameters" || name == "parameters" {
                    parameters =
                        serde_json::from_slice(&text).map_err(|e| format!("the part {name}: {e}"))?;
                } else if name == "sessionKey" {
                    session = String::from_utf8_lossy(&text).into_owned();
                }
            }
        }
    }
    intake
        .map(|i| (parameters, session, i))
        .ok_or_else(|| "the part UpdateFile is missing".into())
}

/// `UpdateService.SimpleUpdate`: answers, then fetches.
pub(crate) fn simple(
    shared: &Arc<Shared>,
    machine: &Machine,
    client: &str,
    body: &Value,
    summary: &mut Summary,
) -> Reply {
    let Some(uri) = body["ImageURI"].as_str() else {
        return Reply::error(
            400,
            "Base.1.12.ActionParameterMissing",
            "The parameter ImageURI is missing.",
        );
    };
    let url = match body["TransferProtocol"].as_str() {
        _ if uri.contains("://") => uri.to_owned(),
        Some(protocol) => format!("{}://{uri}", protocol.to_lowercase()),
        None => return Reply::bad_value("ImageURI"),
    };
    let targets = strings(&body["Targets"]);
    summary.targets.clone_from(&targets);
    let on_start = body["@Redfish.OperationApplyTime"].is_null();
    let (reply, task) = shared.with(machine, |turn| {
        let vendor = turn.machine.vendor();
        if let Err(reply) = vendor.admit_update(turn, client) {
            return (reply, None);
        }
        let global = turn.st.extra.as_ref().is_some_and(|e| e.on_reset);
        let Some(apply) = apply_time(turn.machine, body, global) else {
            return (Reply::bad_value("@Redfish.OperationApplyTime"), None);
        };
        // Only an upload waits for StartUpdate; what the BMC fetched goes straight on.
        let apply = if on_start && apply == ApplyTime::OnStartUpdateRequest {
            ApplyTime::Immediate
        } else {
            apply
        };
        match turn.pull_update(targets, apply) {
            Ok(task) => {
                let mut reply = vendor.accepted(turn, task);
                // Where the body hides the task, as for uploads, SimpleUpdate's answer still has the header.
                if turn.machine.model.persona == crate::model::Persona::Supermicro {
                    reply = reply.header("Location", crate::persona::task_path(turn, task));
                }
                (reply, Some(task))
            }
            Err(refusal) => (vendor.refused(refusal), None),
        }
    });
    if let Some(task) = task {
        let (shared, index) = (shared.clone(), machine.index as usize);
        shared.clone().tasks.spawn(async move {
            let fetched = tokio::select! {
                fetched = fetch(&shared, &url) => fetched,
                () = shared.stop.cancelled() => return,
            };
            let (header, digest) = match fetched {
                Ok(intake) => {
                    let (header, digest, _) = intake.end();
                    (header, digest)
                }
                Err(text) => (Err(text), String::new()),
            };
            shared.with(&shared.machines[index], |turn| {
                turn.downloaded(task, header, digest);
            });
        });
    }
    reply
}

/// Fetches an image. Emulated BMCs reach loopback and nothing else.
async fn fetch(shared: &Shared, url: &str) -> Result<Intake, String> {
    let url = reqwest::Url::parse(url).map_err(|e| e.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {} is not supported", url.scheme()));
    }
    let port = url.port_or_known_default().unwrap_or(80);
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let mut found = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|e| e.to_string())?;
    if !found.all(|a| a.ip().is_loopback()) {
        return Err(format!("{host} is not on this machine"));
    }
    let answer = shared
        .client
        .get(url)
        .send()
        .await
        .map_err(|e| e.without_url().to_string())?;
    if !answer.status().is_success() {
        return Err(format!("the server answered {}", answer.status()));
    }
    let mut intake = Intake::default();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        intake.take(&chunk.map_err(|e| e.without_url().to_string())?)?;
    }
    Ok(intake)
}

/// The paths on which an image may come, for the record.
pub(crate) fn is_simple_update(path: &str) -> bool {
    path == "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate"
}
