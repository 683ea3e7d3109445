//! Following tasks and jobs, as BMCs really keep them: named in six places, gone when done, moved, or dead with the BMC.

use super::{
    Redfish, classify,
    json::{Findings, at, link_at, list_at, text_at},
    transport::{Answer, health, messages},
    uri,
};
use crate::{
    port::{
        BmcResult, ErrorKind, Health, PendingWork, TaskKind, TaskMessage, TaskOutcome, TaskProgress, TaskRef,
        TaskState, Vendor,
    },
    text::clean,
};
use serde_json::Value;

/// The most tasks, jobs or queue entries that are looked at: BMCs keep tens to a few hundred.
const MAX_WORK: usize = 256;
/// Words in a message that say: nothing happens before a reset.
const WANTS_RESET: [&str; 10] = [
    "AwaitToActivate",
    "AwaitingReset",
    "SystemResetRequired",
    "ResetRequired",
    "RebootRequired",
    "JCP001",
    "RED014",
    "PendingReboot",
    "reboot is required",
    "SystemReboot",
];

impl Redfish {
    /// The task that an answer to an update names, wherever it names it. What points elsewhere is no task.
    pub(crate) async fn task_of(&self, answer: &Answer) -> Option<TaskRef> {
        let body = &answer.body;
        let is_task = text_at(body, &["@odata.type"])
            .is_some_and(|kind| kind.starts_with("#Task.") || kind.contains("Job."));
        let own = body
            .get("@odata.id")
            .and_then(Value::as_str)
            .filter(|_| is_task || body.get("TaskState").is_some());
        let inner = link_at(body, &["Task"]);
        let location = answer.location.as_deref();
        let monitor = body.get("TaskMonitor").and_then(Value::as_str);
        let lists = [
            &["Accepted", "@Message.ExtendedInfo"][..],
            &["@Message.ExtendedInfo"],
            &["error", "@Message.ExtendedInfo"],
        ];
        let named: Vec<&str> = lists
            .iter()
            .flat_map(|path| list_at(body, path))
            .take(16)
            .flat_map(|message| list_at(message, &["MessageArgs"]))
            .filter_map(Value::as_str)
            .filter(|text| text.starts_with("/redfish/") || text.contains("://"))
            .collect();
        for text in [own, inner, location, monitor].into_iter().flatten().chain(named) {
            if let Some(path) = uri::task_path(self.shared.transport.base(), text) {
                return Some(self.task_behind(path).await);
            }
        }
        None
    }

    /// Turns a monitor's address into the task's: reading a monitor can delete the finished task (Lenovo), or answer the
    /// finished request's own answer instead of a task (HPE).
    async fn task_behind(&self, path: String) -> TaskRef {
        let path = uri::normal(&path).to_owned();
        if let Some(task) = path.strip_suffix("/Monitor") {
            return task_ref(task.to_owned());
        }
        if !path.contains("TaskMonitor") {
            return task_ref(path);
        }
        // The task itself says which monitor is its own; where that cannot be read, the number is the same on all that are known.
        if let Ok(tasks) = self.raw_tasks().await {
            let found = tasks.into_iter().find(|(_, task)| {
                task.get("TaskMonitor").and_then(Value::as_str).map(uri::normal) == Some(path.as_str())
            });
            if let Some((task, _)) = found {
                return task_ref(task);
            }
        }
        task_ref(format!("/redfish/v1/TaskService/Tasks/{}", uri::tail(&path)))
    }

    pub(crate) async fn read_task(&self, task: &TaskRef) -> BmcResult<TaskProgress> {
        let doing = "follow the task";
        if task.kind == TaskKind::UpdateService {
            return self.read_update_state().await;
        }
        let Some(path) = uri::task_path(self.shared.transport.base(), &task.uri) else {
            let detail = format!("{:?} is no task on this BMC", task.uri);
            return Err(crate::port::BmcError::new(ErrorKind::Redirected, doing, detail));
        };
        let path = path.trim_end_matches("/Monitor").to_owned();
        let answer = self.shared.look(&path, doing).await?;
        if matches!(answer.status.as_u16(), 404 | 410) {
            return match self.twin_job(&path).await? {
                Some(progress) => Ok(progress),
                None => Ok(gone(answer.messages())),
            };
        }
        // A finished monitor's answer is an error envelope that says Success (HPE), with a status of its own.
        if answer.body.get("TaskState").is_none() && answer.body.get("JobState").is_none() {
            let said = answer.messages();
            if !said.is_empty() && answer.status.as_u16() < 500 && answer.status.as_u16() != 401 {
                let good = said.iter().any(|message| {
                    message.id.ends_with("Success") || message.id.ends_with("TaskCompletedOK")
                });
                let (state, outcome) = if good {
                    (TaskState::Completed, TaskOutcome::Done)
                } else {
                    (TaskState::Exception, TaskOutcome::Failed)
                };
                return Ok(TaskProgress {
                    state,
                    outcome,
                    percent: None,
                    messages: said,
                    gone: false,
                    moved_to: None,
                });
            }
        }
        let body = answer.check(doing, false)?.object(doing)?;
        Ok(self.progress(&body))
    }

    /// iDRAC purges a finished task and keeps its job of the same number.
    async fn twin_job(&self, path: &str) -> BmcResult<Option<TaskProgress>> {
        let id = uri::tail(path);
        if self.vendor != Vendor::Dell || !id.starts_with("JID_") {
            return Ok(None);
        }
        for folder in self.job_folders().await? {
            let answer = self
                .shared
                .look(&format!("{folder}/{id}"), "read the job")
                .await?;
            if answer.status.is_success() && answer.body.get("JobState").is_some() {
                return Ok(Some(self.progress(&answer.body)));
            }
        }
        Ok(None)
    }

    async fn job_folders(&self) -> BmcResult<Vec<String>> {
        let mut folders = Vec::new();
        if self.vendor == Vendor::Dell {
            let (path, manager) = self.manager().await?;
            let linked = link_at(&manager, &["Links", "Oem", "Dell", "Jobs"])
                .and_then(|link| self.resource(link, "").ok());
            folders.extend(linked.map(|link| uri::normal(&link).to_owned()));
            for known in ["Oem/Dell/Jobs", "Jobs"] {
                let folder = format!("{}/{known}", uri::normal(&path));
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        } else if let Some(service) =
            link_at(&self.root, &["JobService"]).and_then(|link| self.resource(link, "").ok())
        {
            folders.push(format!("{}/Jobs", uri::normal(&service)));
        }
        Ok(folders)
    }

    /// What a task or job resource says.
    pub(crate) fn progress(&self, body: &Value) -> TaskProgress {
        let said = list_at(body, &["Messages"]);
        let mut said_words = messages(said);
        // Dell's jobs have one message, outside the list.
        if let Some(text) = text_at(body, &["Message"]) {
            let id = text_at(body, &["MessageId"]).unwrap_or_default();
            said_words.push(TaskMessage {
                id,
                text,
                severity: Health::Unknown,
            });
        }
        let word = ["TaskState", "JobState", "State"]
            .iter()
            .find_map(|name| body.get(*name).and_then(Value::as_str));
        let state = state_of(word.unwrap_or_default());
        let grave = health(
            body.get("TaskStatus")
                .or_else(|| body.get("JobStatus"))
                .and_then(Value::as_str),
        );
        let percent = body
            .get("PercentComplete")
            .and_then(|value| {
                value
                    .as_u64()
                    .or_else(|| value.as_str()?.trim_end_matches('%').trim().parse().ok())
            })
            .and_then(|percent| u8::try_from(percent.min(100)).ok());
        let wants_reset = said_words.iter().any(|message| {
            WANTS_RESET
                .iter()
                .any(|word| message.id.contains(word) || message.text.contains(word))
        }) || matches!(word, Some("Scheduled" | "RebootPending" | "PendingReboot"));
        let moved_to = said
            .iter()
            .filter(|message| {
                message
                    .get("MessageId")
                    .and_then(Value::as_str)
                    .is_some_and(|id| id.contains("OperationTransitionedToJob"))
            })
            .flat_map(|message| list_at(message, &["MessageArgs"]))
            .filter_map(Value::as_str)
            .find_map(|text| uri::task_path(self.shared.transport.base(), text))
            .map(|path| task_ref(uri::normal(&path).to_owned()));
        let outcome = match state {
            _ if moved_to.is_some() => TaskOutcome::InProgress,
            TaskState::Completed if grave == Health::Critical || word == Some("CompletedWithErrors") => {
                TaskOutcome::Failed
            }
            TaskState::Completed => TaskOutcome::Done,
            TaskState::Exception | TaskState::Killed | TaskState::Cancelled => TaskOutcome::Failed,
            TaskState::UserIntervention => TaskOutcome::AwaitingReset,
            TaskState::New
            | TaskState::Starting
            | TaskState::Pending
            | TaskState::Suspended
            | TaskState::Service
                if wants_reset =>
            {
                TaskOutcome::AwaitingReset
            }
            _ => TaskOutcome::InProgress,
        };
        TaskProgress {
            state,
            outcome,
            percent,
            messages: said_words,
            gone: false,
            moved_to,
        }
    }

    /// iLO's own account of what it does with an image.
    async fn read_update_state(&self) -> BmcResult<TaskProgress> {
        let doing = "follow the update";
        let (_, service) = self.follow_link(&self.root, &["UpdateService"], doing).await?;
        let Some(hpe) = at(&service, &["Oem", "Hpe"]) else {
            return Ok(gone(Vec::new()));
        };
        Ok(hpe_progress(hpe))
    }

    async fn raw_tasks(&self) -> BmcResult<Vec<(String, Value)>> {
        let doing = "list the tasks";
        let service = link_at(&self.root, &["Tasks"]).unwrap_or("/redfish/v1/TaskService");
        let service = self.get(&self.resource(service, doing)?, doing).await?;
        let tasks = link_at(&service, &["Tasks"]).unwrap_or("/redfish/v1/TaskService/Tasks");
        self.work_in(&self.resource(tasks, doing)?, doing).await
    }

    /// The members of a collection of tasks or jobs; one that goes away while it is listed is no error.
    async fn work_in(&self, path: &str, doing: &str) -> BmcResult<Vec<(String, Value)>> {
        let mut findings = Findings::default();
        let mut all = Vec::new();
        for member in self
            .members(path, &mut findings, doing)
            .await?
            .into_iter()
            .rev()
            .take(MAX_WORK)
        {
            let body = match member.body {
                // A listing that already says the state is enough; one that only names is read.
                Some(body) if body.get("TaskState").or_else(|| body.get("JobState")).is_some() => body,
                _ => match self.get(&member.path, doing).await {
                    Ok(body) => body,
                    Err(error)
                        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::MalformedAnswer) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            all.push((uri::normal(&member.path).to_owned(), body));
        }
        Ok(all)
    }

    pub(crate) async fn read_pending_work(&self) -> BmcResult<Vec<PendingWork>> {
        let doing = "list the tasks";
        let mut work = Vec::new();
        let absent = |error: &crate::port::BmcError| {
            matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotSupported | ErrorKind::MalformedAnswer
            )
        };
        match self.raw_tasks().await {
            Ok(tasks) => {
                let about_updates = tasks.into_iter().filter(|(_, task)| concerns_updates(task));
                work.extend(about_updates.map(|(path, task)| self.pending(path, &task)));
            }
            Err(error) if absent(&error) => {}
            Err(error) => return Err(error),
        }
        for folder in self.job_folders().await? {
            match self.work_in(&folder, doing).await {
                Ok(jobs) => {
                    for (path, job) in jobs.into_iter().filter(|(_, job)| concerns_updates(job)) {
                        // Tasks and jobs are twins on iDRAC; the task says more while it is there.
                        if !work
                            .iter()
                            .any(|known: &PendingWork| uri::tail(&known.task.uri) == uri::tail(&path))
                        {
                            work.push(self.pending(path, &job));
                        }
                    }
                }
                Err(error) if absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        for item in &mut work {
            // What became a job is as open as that job, for as long as the BMC remembers the task.
            if let Some(job) = item.progress.moved_to.take() {
                item.progress = self.read_task(&job).await?;
                item.task = job;
            }
        }
        if self.vendor == Vendor::Hpe {
            work.extend(self.queue().await?);
        }
        work.sort_by(|a, b| (&a.started, &a.task.uri).cmp(&(&b.started, &b.task.uri)));
        work.dedup_by(|a, b| a.task == b.task);
        Ok(work)
    }

    fn pending(&self, path: String, body: &Value) -> PendingWork {
        let name = text_at(body, &["Name"]).unwrap_or_else(|| uri::tail(&path).to_owned());
        PendingWork {
            task: task_ref(path),
            class: classify::class_of_name(&name),
            name,
            progress: self.progress(body),
            started: text_at(body, &["StartTime"]).map(|text| clean(&text, 64)),
        }
    }

    /// iLO's queue, and what iLO does right now. An entry that is neither done nor moving holds all behind it.
    pub(crate) async fn queue(&self) -> BmcResult<Vec<PendingWork>> {
        let doing = "read the update queue";
        let (path, service) = self.follow_link(&self.root, &["UpdateService"], doing).await?;
        let mut work = Vec::new();
        if let Some(hpe) = at(&service, &["Oem", "Hpe"]) {
            let progress = hpe_progress(hpe);
            if progress.outcome == TaskOutcome::InProgress {
                work.push(PendingWork {
                    task: TaskRef {
                        uri: uri::normal(&path).to_owned(),
                        kind: TaskKind::UpdateService,
                    },
                    name: "iLO update service".into(),
                    progress,
                    started: None,
                    class: None,
                });
            }
        }
        let queue = link_at(&service, &["Oem", "Hpe", "UpdateTaskQueue"])
            .and_then(|link| self.resource(link, doing).ok());
        if let Some(queue) = queue {
            for (path, entry) in self
                .work_in(&queue, doing)
                .await
                .or_else(|error| match error.kind() {
                    ErrorKind::NotFound => Ok(Vec::new()),
                    _ => Err(error),
                })?
            {
                let mut item = self.pending(path, &entry);
                item.task.kind = TaskKind::Job;
                if let Some(file) = text_at(&entry, &["Filename"]) {
                    item.name = clean(&format!("{} ({file})", item.name), 256);
                }
                work.push(item);
            }
        }
        Ok(work)
    }
}

fn hpe_progress(hpe: &Value) -> TaskProgress {
    let word = text_at(hpe, &["State"]).unwrap_or_default();
    let result = text_at(hpe, &["Result", "MessageId"]);
    let said = result.map(|id| TaskMessage {
        id,
        text: String::new(),
        severity: Health::Unknown,
    });
    let wants_reset = said
        .as_ref()
        .is_some_and(|message| WANTS_RESET.iter().any(|word| message.id.contains(word)));
    let percent = at(hpe, &["FlashProgressPercent"])
        .and_then(Value::as_u64)
        .and_then(|p| u8::try_from(p.min(100)).ok());
    let (state, outcome) = match word.as_str() {
        "Complete" if wants_reset => (TaskState::Pending, TaskOutcome::AwaitingReset),
        "Complete" => (TaskState::Completed, TaskOutcome::Done),
        "Error" => (TaskState::Exception, TaskOutcome::Failed),
        "Idle" | "" => (TaskState::Absent, TaskOutcome::Gone),
        _ => (TaskState::Running, TaskOutcome::InProgress),
    };
    let gone = outcome == TaskOutcome::Gone;
    TaskProgress {
        state,
        outcome,
        percent,
        messages: said.into_iter().collect(),
        gone,
        moved_to: None,
    }
}

fn gone(messages: Vec<TaskMessage>) -> TaskProgress {
    TaskProgress {
        state: TaskState::Absent,
        outcome: TaskOutcome::Gone,
        percent: None,
        messages,
        gone: true,
        moved_to: None,
    }
}

/// A reference by what the path says it is.
pub(crate) fn task_ref(uri: String) -> TaskRef {
    let job = uri
        .split('/')
        .any(|segment| matches!(segment, "Jobs" | "JobService" | "UpdateTaskQueue"));
    let kind = match () {
        () if job => TaskKind::Job,
        () if uri.trim_end_matches('/').ends_with("/UpdateService") => TaskKind::UpdateService,
        () => TaskKind::Task,
    };
    TaskRef { uri, kind }
}

/// A state, in the words of tasks, of jobs and of iLO's queue.
fn state_of(word: &str) -> TaskState {
    match word {
        "New" => TaskState::New,
        "Starting" => TaskState::Starting,
        "Pending" | "Scheduled" | "RebootPending" | "PendingReboot" | "ReadyForExecution" | "Waiting" => {
            TaskState::Pending
        }
        "Running" | "InProgress" | "Downloading" | "Downloaded" | "Validating" | "Continue" => {
            TaskState::Running
        }
        "Service" => TaskState::Service,
        "Stopping" => TaskState::Stopping,
        "Suspended" => TaskState::Suspended,
        "UserIntervention" => TaskState::UserIntervention,
        "Completed" | "Complete" | "CompletedWithErrors" => TaskState::Completed,
        "Exception" | "Failed" | "Expired" | "Invalid" => TaskState::Exception,
        "Killed" => TaskState::Killed,
        "Cancelling" => TaskState::Cancelling,
        "Cancelled" | "Canceled" => TaskState::Cancelled,
        "Interrupted" => TaskState::Interrupted,
        _ => TaskState::Unknown,
    }
}

/// Whether a task or job is about firmware. One that says nothing of itself is taken to be: settling must not miss it.
fn concerns_updates(body: &Value) -> bool {
    if text_at(body, &["Payload", "TargetUri"])
        .is_some_and(|target| target.contains("UpdateService") || target.contains("upload"))
    {
        return true;
    }
    if let Some(kind) = text_at(body, &["JobType"]) {
        return ["Firmware", "Update", "Repository"]
            .iter()
            .any(|word| kind.contains(word));
    }
    let name = text_at(body, &["Name"]).unwrap_or_default();
    let text = format!("{name} {}", text_at(body, &["Description"]).unwrap_or_default()).to_ascii_lowercase();
    let speaks = ["update", "firmware", "verify", "flash", "bios", "bmc", "image"]
        .iter()
        .any(|word| text.contains(word));
    let nameless =
        name.is_empty() || name.to_ascii_lowercase().starts_with("task") || name.starts_with("JID_");
    let other = body
        .get("Payload")
        .is_some_and(|payload| payload.get("TargetUri").is_some());
    speaks || (nameless && !other)
}
