//! Redfish tasks, and Dell's jobs, which are the same work under another name.

/// A task's state, as DSP8010's Task schema names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    New,
    Starting,
    Pending,
    Running,
    Completed,
    Exception,
}

impl TaskState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            TaskState::New => "New",
            TaskState::Starting => "Starting",
            TaskState::Pending => "Pending",
            TaskState::Running => "Running",
            TaskState::Completed => "Completed",
            TaskState::Exception => "Exception",
        }
    }

    pub(crate) fn ended(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Exception)
    }
}

/// One message of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskMessage {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) args: Vec<String>,
}

/// One task.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) state: TaskState,
    pub(crate) critical: bool,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: Option<u64>,
    /// The span that the percentage runs over.
    pub(crate) span: Option<(u64, u64)>,
    pub(crate) messages: Vec<TaskMessage>,
    /// A purged task answers 404; Dell's job with the same id stays.
    pub(crate) gone: bool,
    /// Lenovo: it is a job, listed by the JobService and not among the tasks.
    pub(crate) job: bool,
    /// Positions of the components that it updates.
    pub(crate) slots: Vec<usize>,
}

impl Task {
    pub(crate) fn percent(&self, now_ms: u64) -> u64 {
        match (self.state, self.span) {
            (TaskState::Completed, _) => 100,
            (TaskState::Running | TaskState::Exception, Some((from, to))) if to > from => {
                let at = self.end_ms.unwrap_or(now_ms).clamp(from, to);
                (at - from) * 100 / (to - from)
            }
            (TaskState::Running, Some(_)) => 100,
            _ => 0,
        }
    }

    pub(crate) fn say(&mut self, id: &str, text: impl Into<String>) {
        self.messages.push(TaskMessage {
            id: id.to_owned(),
            text: text.into(),
            args: Vec::new(),
        });
    }

    pub(crate) fn end(&mut self, state: TaskState, now_ms: u64) {
        self.state = state;
        self.end_ms = Some(now_ms);
        self.critical = state == TaskState::Exception;
    }
}
