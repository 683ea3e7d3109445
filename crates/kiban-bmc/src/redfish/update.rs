//! Sending an image: four methods, chosen from what the BMC offers, each with its makers' habits.
//!
//! Before anything is sent the machine's identity is compared and other people's open work refuses the call; after the
//! image has gone out, whatever is unclear is said to be unclear.

use super::{
    Redfish, Shared,
    json::{at, list_at, text_at},
    transport::{Answer, Content},
    uri,
};
use crate::port::{
    ApplyTime, BmcError, BmcResult, Capabilities, ErrorKind, HostReset, Image, Started, TaskKind,
    TaskOutcome, TaskRef, UpdateMethod, UpdateRequest, Vendor,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use kiban_core::component::ComponentClass;
use reqwest::{Body, Method, header::HeaderValue};
use serde_json::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::io::ReaderStream;

/// How much of an image is read from disk at a time.
const CHUNK: usize = 64 * 1024;

/// The update service as read, with its address.
struct Service {
    path: String,
    body: Value,
}

impl Redfish {
    async fn update_service(&self, doing: &str) -> BmcResult<Service> {
        let (path, body) = self.follow_link(&self.root, &["UpdateService"], doing).await?;
        Ok(Service { path, body })
    }

    pub(crate) async fn read_capabilities(&self) -> BmcResult<Capabilities> {
        let service = self.update_service("read the update service").await?;
        let mut capabilities = self.capabilities_of(&service).await;
        let (_, system) = self.system().await?;
        if let Some(action) = self.host_reset_action(&system).await {
            let all = [
                HostReset::On,
                HostReset::GracefulShutdown,
                HostReset::ForceOff,
                HostReset::GracefulRestart,
                HostReset::ForceRestart,
                HostReset::PowerCycle,
            ];
            capabilities.host_resets = all
                .into_iter()
                .filter(|kind| action.allowed.iter().any(|word| word == kind.as_str()))
                .collect();
        }
        capabilities.ac_cycle = self.ac_action(&system).await?.is_some();
        Ok(capabilities)
    }

    async fn capabilities_of(&self, service: &Service) -> Capabilities {
        let body = &service.body;
        let multipart = text_at(body, &["MultipartHttpPushUri"]).is_some();
        let push = text_at(body, &["HttpPushUri"]).is_some();
        let start = at(body, &["Actions", "#UpdateService.StartUpdate", "target"]).is_some();
        let simple = self
            .action(
                body,
                &["Actions", "#UpdateService.SimpleUpdate"],
                "TransferProtocol",
            )
            .await;
        let mut methods = Vec::new();
        if multipart && start && self.vendor == Vendor::Supermicro {
            methods.push(UpdateMethod::PushThenStart);
        } else if multipart {
            methods.push(UpdateMethod::MultipartPush);
        }
        if simple.is_some() {
            methods.push(UpdateMethod::SimpleUpdate);
        }
        // Dell's HttpPushUri only fills a repository; its multipart upload is everywhere that it is.
        if push && self.vendor != Vendor::Dell {
            methods.push(UpdateMethod::HttpPush);
        }
        let mut apply_times = Vec::new();
        collect_apply_times(body, 0, &mut apply_times);
        Capabilities {
            enabled: at(body, &["ServiceEnabled"])
                .and_then(Value::as_bool)
                .unwrap_or(true),
            methods,
            apply_times,
            max_image_bytes: at(body, &["MaxImageSizeBytes"])
                .and_then(Value::as_u64)
                .filter(|size| *size > 0),
            staging: matches!(
                self.vendor,
                Vendor::Dell | Vendor::Hpe | Vendor::Lenovo | Vendor::OpenBmc | Vendor::Supermicro
            ),
            transfer_protocols: simple.map(|action| action.allowed).unwrap_or_default(),
            host_resets: Vec::new(),
            ac_cycle: false,
        }
    }

    pub(crate) async fn send_update(&self, request: &UpdateRequest) -> BmcResult<Started> {
        let doing = format!("update {} to {}", request.class, request.wanted);
        let until = Instant::now() + request.deadline;
        let _permit = self.begin_change(&doing).await?;
        let service = self.update_service(&doing).await?;
        let capabilities = self.capabilities_of(&service).await;
        let method = choose(request, &capabilities, &doing)?;
        check_image(&request.image, &capabilities, &doing).await?;
        self.refuse_if_busy(&service, &doing).await?;
        let apply = if capabilities.apply_times.contains(&request.apply) {
            request.apply
        } else {
            ApplyTime::Default
        };
        let targets = self.targets_for(request, method).await?;
        let job = Job {
            request,
            service,
            capabilities,
            targets,
            apply,
            until,
            doing,
        };
        match method {
            UpdateMethod::MultipartPush => self.multipart(&job).await,
            UpdateMethod::PushThenStart => self.push_then_start(&job).await,
            UpdateMethod::SimpleUpdate => self.simple_update(&job).await,
            UpdateMethod::HttpPush => self.http_push(&job).await,
        }
    }

    /// Whoever else is at it is named, and nothing is sent.
    async fn refuse_if_busy(&self, service: &Service, doing: &str) -> BmcResult<()> {
        if at(&service.body, &["HttpPushUriTargetsBusy"]).and_then(Value::as_bool) == Some(true) {
            let detail = "someone else has claimed the update service (HttpPushUriTargetsBusy), or left the claim behind";
            return Err(BmcError::new(ErrorKind::Busy, doing, detail));
        }
        if self.vendor == Vendor::Hpe {
            // An entry that waits, expired or failed holds everything behind it until it is deleted, which is a person's decision.
            let foreign = self
                .queue()
                .await?
                .into_iter()
                .find(|entry| entry.progress.outcome != TaskOutcome::Done);
            if let Some(entry) = foreign {
                let detail = format!(
                    "iLO's update queue holds {:?} ({:?}) at {}",
                    entry.name, entry.progress.state, entry.task.uri
                );
                return Err(BmcError::new(ErrorKind::Busy, doing, detail));
            }
            return Ok(());
        }
        let open = self
            .read_pending_work()
            .await?
            .into_iter()
            .find(|work| work.progress.outcome == TaskOutcome::InProgress);
        match open {
            Some(work) => {
                let detail = format!(
                    "another update is under way: {:?} ({:?}) at {}",
                    work.name, work.progress.state, work.task.uri
                );
                Err(BmcError::new(ErrorKind::Busy, doing, detail))
            }
            None => Ok(()),
        }
    }

    /// What to name as targets. Most BMCs go by the package: iDRAC refuses any, XCC wants none.
    async fn targets_for(&self, request: &UpdateRequest, method: UpdateMethod) -> BmcResult<Vec<String>> {
        match self.vendor {
            Vendor::Dell => Ok(Vec::new()),
            Vendor::Lenovo if method == UpdateMethod::MultipartPush => Ok(Vec::new()),
            Vendor::Supermicro => match request.class {
                ComponentClass::Bmc => Ok(vec![uri::normal(&self.manager().await?.0).to_owned()]),
                ComponentClass::Bios => Ok(vec![format!("{}/Bios", uri::normal(&self.system().await?.0))]),
                _ => self.targets_of(&request.components).await,
            },
            _ => self.targets_of(&request.components).await,
        }
    }

    async fn multipart(&self, job: &Job<'_>) -> BmcResult<Started> {
        let answer = self.push_multipart(job, job.apply).await?;
        Ok(self
            .started(job, UpdateMethod::MultipartPush, job.apply, &answer)
            .await)
    }

    async fn push_multipart(&self, job: &Job<'_>, apply: ApplyTime) -> BmcResult<Answer> {
        let path = self.push_uri(job, "MultipartHttpPushUri")?;
        let mut parameters = Map::new();
        parameters.insert("Targets".into(), json!(job.targets));
        if let Some(word) = apply.as_str() {
            parameters.insert("@Redfish.OperationApplyTime".into(), json!(word));
        }
        if job.request.force {
            parameters.insert("ForceUpdate".into(), json!(true));
        }
        match (self.vendor, job.request.class) {
            // iDRAC refuses parameters without this empty object.
            (Vendor::Dell, _) => drop(parameters.insert("Oem".into(), json!({}))),
            // What is not named as preserved is lost.
            (Vendor::Supermicro, ComponentClass::Bmc) => {
                let keep = json!({"Supermicro": {"BMC": {"PreserveCfg": true, "PreserveSdr": true, "PreserveSsl": true}}});
                parameters.insert("Oem".into(), keep);
            }
            (Vendor::Supermicro, ComponentClass::Bios) => {
                let keep = json!({"Supermicro": {"BIOS": {
                    "PreserveME": true, "PreserveNVRAM": true, "PreserveSMBIOS": true, "PreserveOA": true,
                    "PreserveSETUPCONF": true, "PreserveSETUPPWD": true, "PreserveSECBOOTKEY": true, "PreserveBOOTCONF": true,
                }}});
                parameters.insert("Oem".into(), keep);
            }
            _ => {}
        }
        let mut form = Form::new();
        form.field(
            "UpdateParameters",
            Some("application/json"),
            &Value::Object(parameters).to_string(),
        );
        if self.vendor == Vendor::Ami {
            form.field(
                "OemParameters",
                Some("application/json"),
                &json!({"ImageType": ami_image_type(job.request.class)}).to_string(),
            );
        }
        form.file("UpdateFile", &job.request.image.file_name);
        self.upload(&path, job, Some(&form)).await
    }

    /// Supermicro: upload, wait until it is verified, start.
    async fn push_then_start(&self, job: &Job<'_>) -> BmcResult<Started> {
        let start = at(
            &job.service.body,
            &["Actions", "#UpdateService.StartUpdate", "target"],
        )
        .and_then(Value::as_str)
        .and_then(|link| self.resource(link, &job.doing).ok())
        .ok_or_else(|| BmcError::new(ErrorKind::NotSupported, &job.doing, "the BMC has no StartUpdate"))?;
        // Until it is started nothing is written: whatever is lost up to here is not an unknown outcome of a flash.
        let known = |error: BmcError| error.with_outcome_unknown(false);
        let answer = self
            .push_multipart(job, ApplyTime::OnStartUpdateRequest)
            .await
            .map_err(known)?;
        if let Some(task) = self.task_of(&answer).await {
            self.wait_verified(&task, job).await.map_err(known)?;
        }
        let answer = self.shared.change(
            Method::POST,
            &start,
            &|| Content::Json(json!({})),
            self.limits().request_timeout,
            &job.doing,
        );
        let answer = answer.await?;
        Ok(self
            .started(
                job,
                UpdateMethod::PushThenStart,
                ApplyTime::OnStartUpdateRequest,
                &answer,
            )
            .await)
    }

    async fn wait_verified(&self, task: &TaskRef, job: &Job<'_>) -> BmcResult<()> {
        loop {
            match self.read_task(task).await {
                Ok(progress) => match progress.outcome {
                    TaskOutcome::Done | TaskOutcome::Gone => return Ok(()),
                    TaskOutcome::Failed => {
                        let said: Vec<&str> = progress
                            .messages
                            .iter()
                            .map(|message| message.text.as_str())
                            .collect();
                        let detail = format!("the BMC does not accept the image: {}", said.join("; "));
                        return Err(BmcError::new(ErrorKind::Rejected, &job.doing, detail));
                    }
                    TaskOutcome::InProgress | TaskOutcome::AwaitingReset => {}
                },
                Err(error) if error.transient() => {}
                Err(error) => return Err(error),
            }
            let pause = self.limits().poll;
            if job.left() < pause {
                return Err(BmcError::new(
                    ErrorKind::Timeout,
                    &job.doing,
                    "the BMC is still verifying the image; it was not started",
                ));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn simple_update(&self, job: &Job<'_>) -> BmcResult<Started> {
        let Some(url) = &job.request.image_url else {
            return Err(BmcError::new(
                ErrorKind::Invalid,
                &job.doing,
                "no address was given for the BMC to fetch the image from",
            ));
        };
        let target = at(
            &job.service.body,
            &["Actions", "#UpdateService.SimpleUpdate", "target"],
        )
        .and_then(Value::as_str)
        .ok_or_else(|| BmcError::new(ErrorKind::NotSupported, &job.doing, "the BMC has no SimpleUpdate"))?;
        let target = self.resource(target, &job.doing)?;
        let protocol = if url.starts_with("https:") {
            "HTTPS"
        } else {
            "HTTP"
        };
        let mut body = Map::new();
        body.insert("ImageURI".into(), json!(url));
        let protocols = &job.capabilities.transfer_protocols;
        if protocols.iter().any(|known| known == protocol) {
            body.insert("TransferProtocol".into(), json!(protocol));
        } else if !protocols.is_empty() {
            let detail = format!(
                "the BMC fetches by {} only, not by {protocol}",
                protocols.join(", ")
            );
            return Err(BmcError::new(ErrorKind::NotSupported, &job.doing, detail));
        }
        if !job.targets.is_empty() {
            body.insert("Targets".into(), json!(job.targets));
        }
        if let Some(word) = job.apply.as_str() {
            body.insert("@Redfish.OperationApplyTime".into(), json!(word));
        }
        if job.request.force {
            body.insert("ForceUpdate".into(), json!(true));
        }
        let answer = self
            .change(Method::POST, &target, Value::Object(body), &job.doing)
            .await?;
        Ok(self
            .started(job, UpdateMethod::SimpleUpdate, job.apply, &answer)
            .await)
    }

    async fn http_push(&self, job: &Job<'_>) -> BmcResult<Started> {
        let path = self.push_uri(job, "HttpPushUri")?;
        if self.vendor == Vendor::Hpe {
            let answer = self.push_ilo_form(&path, job).await?;
            return Ok(self
                .started(job, UpdateMethod::HttpPush, job.apply, &answer)
                .await);
        }
        let claim = match job.service.body.get("HttpPushUriTargetsBusy") {
            Some(_) => Some(self.claim(job).await?),
            None => None,
        };
        let result = self.push_raw(&path, job).await;
        if let Some(claim) = claim {
            claim.release().await;
        }
        let (answer, apply) = result?;
        Ok(self.started(job, UpdateMethod::HttpPush, apply, &answer).await)
    }

    /// The plain body; on BMCs where the time of applying is one setting for everyone, set before and put back after.
    async fn push_raw(&self, path: &str, job: &Job<'_>) -> BmcResult<(Answer, ApplyTime)> {
        let global = ["HttpPushUriOptions", "HttpPushUriApplyTime", "ApplyTime"];
        let before = text_at(&job.service.body, &global);
        let wanted = job.request.apply.as_str();
        let set = |word: &str| json!({"HttpPushUriOptions": {"HttpPushUriApplyTime": {"ApplyTime": word}}});
        let (apply, restore) = match (before, wanted) {
            (Some(before), Some(word)) if before != word => {
                self.patch(&job.service.path, set(word), &job.doing)
                    .await
                    .map_err(|error| error.with_outcome_unknown(false))?;
                (job.request.apply, Some(before))
            }
            (Some(_), Some(_)) => (job.request.apply, None),
            _ => (ApplyTime::Default, None),
        };
        let answer = self.upload(path, job, None).await;
        if let Some(before) = restore
            && let Err(error) = self
                .patch(&job.service.path, set(&before), "put the apply time back")
                .await
        {
            tracing::warn!(%error, "the BMC's global apply time stays changed");
        }
        Ok((answer?, apply))
    }

    /// iLO takes a web form with the session in it.
    async fn push_ilo_form(&self, path: &str, job: &Job<'_>) -> BmcResult<Answer> {
        let session = self.shared.log_in(None).await?;
        let key = session.token.to_str().unwrap_or_default().to_owned();
        let parameters =
            json!({"UpdateRepository": false, "UpdateTarget": true, "ETag": "kiban", "Section": 0});
        let mut form = Form::new();
        form.field("sessionKey", None, &key);
        form.field("parameters", Some("application/json"), &parameters.to_string());
        form.file("files[]", &job.request.image.file_name);
        self.upload(path, job, Some(&form)).await
    }

    fn push_uri(&self, job: &Job<'_>, name: &str) -> BmcResult<String> {
        let text = job
            .service
            .body
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default();
        uri::push_path(self.shared.transport.base(), text).ok_or_else(|| {
            BmcError::new(
                ErrorKind::Redirected,
                &job.doing,
                format!("{name} points to {text:?}, which is not on this BMC"),
            )
        })
    }

    /// Sends the image, streamed from disk with its length said beforehand.
    async fn upload(&self, path: &str, job: &Job<'_>, form: Option<&Form>) -> BmcResult<Answer> {
        self.open(&job.doing)?;
        let image = &job.request.image;
        // Opened here and not in the stream, so that a missing file is found before anything is sent.
        let missing = |error: std::io::Error| {
            BmcError::new(
                ErrorKind::Invalid,
                &job.doing,
                format!("the image cannot be read: {error}"),
            )
        };
        let file = Arc::new(std::fs::File::open(&image.path).map_err(missing)?);
        let content = || {
            let (head, tail, kind) = match form {
                Some(form) => (form.head(), form.tail(), form.content_type()),
                None => (Bytes::new(), Bytes::new(), "application/octet-stream".to_owned()),
            };
            let length = head.len() as u64 + image.size + tail.len() as u64;
            Content::Stream {
                body: body_of(file.clone(), head, tail),
                length,
                content_type: kind,
            }
        };
        self.shared
            .change(
                Method::POST,
                path,
                &content,
                job.left().max(Duration::from_secs(1)),
                &job.doing,
            )
            .await
    }

    async fn started(
        &self,
        job: &Job<'_>,
        method: UpdateMethod,
        apply: ApplyTime,
        answer: &Answer,
    ) -> Started {
        let mut task = self.task_of(answer).await;
        if task.is_none() && self.vendor == Vendor::Hpe {
            task = Some(TaskRef {
                uri: uri::normal(&job.service.path).to_owned(),
                kind: TaskKind::UpdateService,
            });
        }
        Started {
            task,
            method,
            apply,
            messages: answer.messages(),
        }
    }

    /// Lenovo: claims the upload for us. Whatever happens next, [`Claim`] gives it back.
    async fn claim(&self, job: &Job<'_>) -> BmcResult<Claim> {
        let claim = Claim {
            shared: self.shared.clone(),
            path: job.service.path.clone(),
            held: true,
        };
        match self
            .patch(
                &job.service.path,
                json!({"HttpPushUriTargetsBusy": true}),
                &job.doing,
            )
            .await
        {
            Ok(_) => Ok(claim),
            Err(error) => {
                if error.outcome_unknown() {
                    claim.release().await;
                } else {
                    claim.forget();
                }
                Err(error.with_outcome_unknown(false))
            }
        }
    }
}

/// One update being sent.
struct Job<'a> {
    request: &'a UpdateRequest,
    service: Service,
    capabilities: Capabilities,
    targets: Vec<String>,
    apply: ApplyTime,
    until: Instant,
    doing: String,
}

impl Job<'_> {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// The claim on a Lenovo's upload. Dropped while held (a cancelled call, a panic), it is given back in the background: a
/// leaked claim blocks every later update of that machine.
struct Claim {
    shared: Arc<Shared>,
    path: String,
    held: bool,
}

impl Claim {
    async fn release(mut self) {
        self.held = false;
        release_claim(&self.shared, &self.path).await;
    }

    fn forget(mut self) {
        self.held = false;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let (shared, path) = (self.shared.clone(), std::mem::take(&mut self.path));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { release_claim(&shared, &path).await });
        }
    }
}

/// Gives a claim back, three times if need be. Without an ETag: it is ours, whatever else changed meanwhile.
async fn release_claim(shared: &Shared, path: &str) {
    let doing = "give the upload claim back";
    for _ in 0..3 {
        let content = || Content::Json(json!({"HttpPushUriTargetsBusy": false}));
        let any = vec![(reqwest::header::IF_MATCH, HeaderValue::from_static("*"))];
        for headers in [Vec::new(), any] {
            let answer = shared
                .change_with(Method::PATCH, path, &content, headers, shared.timeout(), doing)
                .await;
            match answer.and_then(|answer| answer.check(doing, true)) {
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "claim not given back yet"),
            }
        }
        tokio::time::sleep(shared.transport.limits().poll).await;
    }
}

fn choose(request: &UpdateRequest, capabilities: &Capabilities, doing: &str) -> BmcResult<UpdateMethod> {
    let fail = |detail: &str| Err(BmcError::new(ErrorKind::NotSupported, doing, detail));
    if !capabilities.enabled {
        return fail("the BMC's update service is disabled");
    }
    let usable = |method: &UpdateMethod| *method != UpdateMethod::SimpleUpdate || request.image_url.is_some();
    match request.method {
        Some(method) if capabilities.methods.contains(&method) => Ok(method),
        // Supermicro's plain multipart push is the same upload, started by itself.
        Some(UpdateMethod::MultipartPush) if capabilities.methods.contains(&UpdateMethod::PushThenStart) => {
            Ok(UpdateMethod::PushThenStart)
        }
        Some(method) => fail(&format!("the BMC has no {method:?}")),
        None => match capabilities.methods.iter().find(|method| usable(method)) {
            Some(method) => Ok(*method),
            None if capabilities.methods.is_empty() => fail("the BMC offers no way to send an image"),
            None => fail("the BMC only fetches images itself, and no address was given"),
        },
    }
}

async fn check_image(image: &Image, capabilities: &Capabilities, doing: &str) -> BmcResult<()> {
    let fail = |detail: String| Err(BmcError::new(ErrorKind::Invalid, doing, detail));
    let length = match tokio::fs::metadata(&image.path).await {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return fail("the image is no file".into()),
        Err(error) => return fail(format!("the image cannot be read: {error}")),
    };
    if length != image.size || length == 0 {
        return fail(format!("the image has {length} bytes, expected {}", image.size));
    }
    if image.file_name.is_empty()
        || image
            .file_name
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\' | '"'))
    {
        return fail(format!("{:?} is no base name for an image", image.file_name));
    }
    match capabilities.max_image_bytes {
        Some(max) if length > max => fail(format!("the image has {length} bytes, the BMC takes {max}")),
        _ => Ok(()),
    }
}

/// Gathers the apply times from wherever a maker lists them.
fn collect_apply_times(value: &Value, depth: usize, found: &mut Vec<ApplyTime>) {
    if depth > 6 {
        return;
    }
    let words = [
        list_at(value, &["@Redfish.OperationApplyTimeSupport", "SupportedValues"]),
        list_at(value, &["ApplyTime@Redfish.AllowableValues"]),
        list_at(value, &["@Redfish.OperationApplyTime@Redfish.AllowableValues"]),
    ];
    for word in words.into_iter().flatten().take(32).filter_map(Value::as_str) {
        let all = [
            ApplyTime::Immediate,
            ApplyTime::OnReset,
            ApplyTime::OnTargetReset,
            ApplyTime::OnStartUpdateRequest,
        ];
        if let Some(time) = all.into_iter().find(|time| time.as_str() == Some(word))
            && !found.contains(&time)
        {
            found.push(time);
        }
    }
    if let Some(object) = value.as_object() {
        object
            .values()
            .filter(|inner| inner.is_object())
            .for_each(|inner| collect_apply_times(inner, depth + 1, found));
    }
}

fn ami_image_type(class: ComponentClass) -> &'static str {
    match class {
        ComponentClass::Bios => "BIOS",
        ComponentClass::Cpld => "CPLD",
        _ => "HPM",
    }
}

/// A multipart form whose one file is streamed.
struct Form {
    boundary: String,
    head: String,
}

impl Form {
    fn new() -> Self {
        // Unguessable, so that no image holds it by accident or by design.
        let mut bytes = [0_u8; 16];
        rand::Rng::fill(&mut rand::rng(), &mut bytes);
        let boundary = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            boundary: format!("kiban-{boundary}"),
            head: String::new(),
        }
    }

    fn field(&mut self, name: &str, kind: Option<&str>, value: &str) {
        let kind = kind
            .map(|kind| format!("Content-Type: {kind}\r\n"))
            .unwrap_or_default();
        let boundary = &self.boundary;
        let part = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{kind}\r\n{value}\r\n"
        );
        self.head.push_str(&part);
    }

    fn file(&mut self, name: &str, file_name: &str) {
        let boundary = &self.boundary;
        let part = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        self.head.push_str(&part);
    }

    fn head(&self) -> Bytes {
        Bytes::from(self.head.clone())
    }

    fn tail(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.boundary))
    }

    fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }
}

fn body_of(file: Arc<std::fs::File>, head: Bytes, tail: Bytes) -> Body {
    // Another handle on the same open file: a second sending after a renewed session begins at its start again.
    let opened = file.try_clone().and_then(|mut file| {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(0))?;
        Ok(tokio::fs::File::from_std(file))
    });
    let before = stream::iter([Ok::<Bytes, std::io::Error>(head)]);
    let after = stream::iter([Ok::<Bytes, std::io::Error>(tail)]);
    match opened {
        Ok(file) => Body::wrap_stream(
            before
                .chain(ReaderStream::with_capacity(file, CHUNK))
                .chain(after),
        ),
        Err(error) => Body::wrap_stream(stream::iter([Err::<Bytes, std::io::Error>(error)])),
    }
}
