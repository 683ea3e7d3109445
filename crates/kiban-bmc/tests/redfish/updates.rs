//! What is sent for an update, byte by byte where a maker insists, and what is cleaned up when it goes wrong.

use crate::server::{Reply, Seen, Server, basics, limits};
use kiban_bmc::{
    ApplyTime, Bmc, ErrorKind, Image, Limits, Redfish, TaskKind, TaskOutcome, TaskRef, TaskState,
    UpdateMethod, UpdateRequest,
};
use kiban_core::component::ComponentClass;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const SERVICE: &str = "/redfish/v1/UpdateService";

/// An image on disk, and the request for it. The folder goes with the value.
fn request(class: ComponentClass) -> (tempfile::TempDir, UpdateRequest) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.bin");
    std::fs::write(&path, b"the firmware").unwrap();
    let image = Image {
        path,
        file_name: "image.bin".into(),
        size: 12,
        sha256: "0".repeat(64),
    };
    let request = UpdateRequest {
        class,
        components: Vec::new(),
        image,
        image_url: None,
        apply: ApplyTime::Immediate,
        wanted: "2.0".into(),
        method: None,
        force: false,
        deadline: Duration::from_secs(5),
    };
    (folder, request)
}

/// A BMC of a maker, with an update service, and answers of the test's own first.
async fn bmc(
    root: Value,
    service: Value,
    special: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| {
        let common = || seen.is("GET", SERVICE).then(|| Reply::json(&service));
        let tasks = || {
            seen.is("GET", "/redfish/v1/TaskService/Tasks")
                .then(|| Reply::json(&json!({"Members": []})))
        };
        special(seen)
            .or_else(common)
            .or_else(tasks)
            .or_else(|| basics(seen, &root))
            .unwrap_or_else(Reply::not_found)
    })
    .await
}

fn lenovo(busy: bool) -> Value {
    json!({"HttpPushUri": "/fwupdate", "HttpPushUriTargetsBusy": busy, "ServiceEnabled": true})
}

/// What the claim was set to, in order.
fn claims(server: &Server) -> Vec<Value> {
    let patches = server
        .changes()
        .into_iter()
        .filter(|seen| seen.is("PATCH", SERVICE));
    patches
        .map(|seen| seen.json()["HttpPushUriTargetsBusy"].clone())
        .collect()
}

#[tokio::test]
async fn a_lenovos_claim_is_given_back_whatever_happens() {
    let task = json!({"@odata.id": "/redfish/v1/TaskService/Tasks/7", "@odata.type": "#Task.v1_0_0.Task", "TaskState": "New"});
    let cases: [(&str, fn(Value) -> Reply); 4] = [
        ("accepted", |task| Reply::status(202, &task)),
        ("refused", |_| Reply::error(400, "Base.1.0.X", "bad image")),
        ("cut", |_| Reply::Close),
        ("silent", |_| Reply::Stall),
    ];
    for (name, answer) in cases {
        let task = task.clone();
        let server = bmc(
            json!({"Vendor": "Lenovo"}),
            lenovo(false),
            move |seen| match seen.method.as_str() {
                "PATCH" => Some(Reply::Http(200, Vec::new(), b"{}".to_vec())),
                "POST" if seen.path == "/fwupdate" => Some(answer(task.clone())),
                _ => None,
            },
        )
        .await;
        let (_folder, mut request) = request(ComponentClass::Bmc);
        request.deadline = Duration::from_secs(2);
        let result = server.connect().await.start_update(&request).await;
        match name {
            "accepted" => assert_eq!(
                result.unwrap().task.unwrap().uri,
                "/redfish/v1/TaskService/Tasks/7"
            ),
            "refused" => assert_eq!(
                (
                    result.as_ref().unwrap_err().kind(),
                    result.unwrap_err().outcome_unknown()
                ),
                (ErrorKind::Rejected, false)
            ),
            _ => assert!(result.unwrap_err().outcome_unknown(), "{name}"),
        }
        assert_eq!(claims(&server), [json!(true), json!(false)], "{name}");
        assert_eq!(server.count("POST", "/fwupdate"), 1, "{name}: sent once");
    }
}

#[tokio::test]
async fn a_lenovos_claim_is_given_back_when_the_call_is_dropped() {
    let server = bmc(json!({"Vendor": "Lenovo"}), lenovo(false), |seen| {
        match seen.method.as_str() {
            "PATCH" => Some(Reply::Http(200, Vec::new(), b"{}".to_vec())),
            "POST" if seen.path == "/fwupdate" => Some(Reply::Stall),
            _ => None,
        }
    })
    .await;
    let (_folder, request) = request(ComponentClass::Bmc);
    let handle = server.connect().await;
    let call = tokio::spawn(async move { handle.start_update(&request).await });
    for _ in 0..300 {
        if !claims(&server).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    call.abort();
    for _ in 0..300 {
        if claims(&server).len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(claims(&server), [json!(true), json!(false)]);
}

#[tokio::test]
async fn somebody_elses_claim_is_respected() {
    let server = bmc(json!({"Vendor": "Lenovo"}), lenovo(true), |_| None).await;
    let (_folder, request) = request(ComponentClass::Bmc);
    let error = server.connect().await.start_update(&request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn f29_an_etag_that_changed_or_is_not_believed_climbs_the_ladder() {
    // Each takes one form of the tag only; the first changes it under us once as well.
    let forms: [(&str, fn(Option<&str>, usize) -> bool); 3] = [
        ("changed meanwhile", |given, round| {
            round > 1 && given == Some("W/\"e2\"")
        }),
        ("strong only", |given, _| given == Some("\"e1\"")),
        ("none at all", |given, _| given.is_none()),
    ];
    for (name, takes) in forms {
        let (reads, tries) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let server = bmc(json!({"Vendor": "Lenovo"}), lenovo(false), move |seen| {
            if seen.is("GET", SERVICE) {
                // The first two readings are of the update itself and of the patch's first round.
                let tag = if reads.fetch_add(1, Ordering::SeqCst) < 2 {
                    "W/\"e1\""
                } else {
                    "W/\"e2\""
                };
                let tag = if name == "changed meanwhile" {
                    tag
                } else {
                    "W/\"e1\""
                };
                return Some(Reply::Http(
                    200,
                    vec![("ETag", tag.into())],
                    lenovo(false).to_string().into_bytes(),
                ));
            }
            match seen.method.as_str() {
                "PATCH" if seen.json()["HttpPushUriTargetsBusy"] == false => {
                    Some(Reply::Http(200, Vec::new(), b"{}".to_vec()))
                }
                "PATCH" => {
                    let round = tries.fetch_add(1, Ordering::SeqCst);
                    let status = if takes(seen.header("if-match"), round) {
                        200
                    } else {
                        412
                    };
                    Some(Reply::Http(status, Vec::new(), b"{}".to_vec()))
                }
                "POST" if seen.path == "/fwupdate" => Some(Reply::Http(202, Vec::new(), b"{}".to_vec())),
                _ => None,
            }
        })
        .await;
        let (_folder, request) = request(ComponentClass::Bmc);
        server
            .connect()
            .await
            .start_update(&request)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            server
                .log()
                .iter()
                .all(|seen| seen.header("if-match") != Some("")),
            "{name}: an empty tag is never sent"
        );
        assert_eq!(claims(&server).last(), Some(&json!(false)), "{name}");
    }
}

#[tokio::test]
async fn dells_parameters_have_no_targets_and_an_empty_oem() {
    let service = json!({"MultipartHttpPushUri": "/redfish/v1/UpdateService/MultipartUpload",
        "Actions": {"#UpdateService.SimpleUpdate": {"target": "/x",
            "@Redfish.OperationApplyTimeSupport": {"SupportedValues": ["Immediate", "OnReset"]}}}});
    let server = bmc(json!({"Vendor": "Dell"}), service, |seen| {
        let location = vec![("Location", "/redfish/v1/TaskService/Tasks/JID_1".to_owned())];
        seen.path
            .ends_with("/MultipartUpload")
            .then(|| Reply::Http(202, location, Vec::new()))
    })
    .await;
    let (_folder, request) = request(ComponentClass::Bios);
    let started = server.connect().await.start_update(&request).await.unwrap();
    assert_eq!(
        (started.method, started.apply),
        (UpdateMethod::MultipartPush, ApplyTime::Immediate)
    );
    assert_eq!(
        started.task.unwrap(),
        TaskRef {
            uri: "/redfish/v1/TaskService/Tasks/JID_1".into(),
            kind: TaskKind::Task
        }
    );
    let [sent] = &server.changes()[..] else {
        panic!("one change")
    };
    let body = String::from_utf8_lossy(&sent.body).into_owned();
    assert_eq!(
        sent.header("content-length"),
        Some(sent.body.len().to_string().as_str())
    );
    assert!(sent.header("transfer-encoding").is_none());
    let (parameters, file) = (
        body.find("name=\"UpdateParameters\"").unwrap(),
        body.find("name=\"UpdateFile\"; filename=\"image.bin\"").unwrap(),
    );
    assert!(parameters < file, "parameters come first");
    let json = body.lines().find(|line| line.starts_with('{')).unwrap();
    let expected = json!({"Targets": [], "@Redfish.OperationApplyTime": "Immediate", "Oem": {}});
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), expected);
    assert!(body.contains("\r\n\r\nthe firmware\r\n--"));
}

#[tokio::test]
async fn a_global_apply_time_is_put_back() {
    let service = json!({"HttpPushUri": "/redfish/v1/UpdateService/update",
        "HttpPushUriOptions": {"HttpPushUriApplyTime": {"ApplyTime": "OnReset", "ApplyTime@Redfish.AllowableValues": ["Immediate", "OnReset"]}}});
    let server = bmc(json!({"Oem": {"OpenBmc": {}}}), service, |seen| {
        match seen.method.as_str() {
            "PATCH" => Some(Reply::Http(204, Vec::new(), Vec::new())),
            "POST" if seen.path.ends_with("/update") => {
                Some(Reply::error(500, "Base.1.0.InternalError", "broke"))
            }
            _ => None,
        }
    })
    .await;
    let (_folder, request) = request(ComponentClass::Bmc);
    assert!(
        server
            .connect()
            .await
            .start_update(&request)
            .await
            .unwrap_err()
            .outcome_unknown()
    );
    let set: Vec<Value> = server
        .changes()
        .into_iter()
        .filter(|seen| seen.method == "PATCH")
        .map(|seen| seen.json()["HttpPushUriOptions"]["HttpPushUriApplyTime"]["ApplyTime"].clone())
        .collect();
    assert_eq!(set, [json!("Immediate"), json!("OnReset")]);
}

#[tokio::test]
async fn supermicro_is_started_only_after_it_verified() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let noted = steps.clone();
    let accepted = |task: &str| {
        Reply::status(
            202,
            &json!({"Accepted": {"code": "SMC", "@Message.ExtendedInfo": [
            {"MessageId": "SMC.1.0.OemSimpleupdateAcceptedMessage", "MessageArgs": [task]}]}}),
        )
    };
    let service = json!({"MultipartHttpPushUri": "/redfish/v1/UpdateService/upload",
        "Actions": {"#UpdateService.StartUpdate": {"target": "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate"}}});
    let polls = AtomicUsize::new(0);
    let server = bmc(
        json!({"Oem": {"Supermicro": {}}}),
        service,
        move |seen| match seen.path.as_str() {
            "/redfish/v1/UpdateService/upload" => {
                noted.lock().unwrap().push("upload");
                Some(accepted("/redfish/v1/TaskService/Tasks/1"))
            }
            "/redfish/v1/TaskService/Tasks/1" => {
                let done = polls.fetch_add(1, Ordering::SeqCst) >= 3;
                if done {
                    noted.lock().unwrap().push("verified");
                }
                Some(Reply::json(
                    &json!({"Name": "BIOS Verify", "TaskState": if done { "Completed" } else { "Running" }}),
                ))
            }
            path if path.ends_with("StartUpdate") => {
                noted.lock().unwrap().push("start");
                Some(accepted("/redfish/v1/TaskService/Tasks/2"))
            }
            _ => None,
        },
    )
    .await;
    let (_folder, request) = request(ComponentClass::Bios);
    let started = server.connect().await.start_update(&request).await.unwrap();
    assert_eq!(started.task.unwrap().uri, "/redfish/v1/TaskService/Tasks/2");
    assert_eq!(*steps.lock().unwrap(), ["upload", "verified", "start"]);
}

#[tokio::test]
async fn a_monitor_is_never_read_and_a_job_is_followed() {
    let monitor = "/redfish/v1/TaskService/TaskMonitors/abc";
    let moved = json!({"TaskState": "Completed", "TaskMonitor": monitor, "Messages": [
        {"MessageId": "TaskEvent.1.0.OperationTransitionedToJob", "MessageArgs": ["/redfish/v1/JobService/Jobs/4"]}]});
    let service = json!({"MultipartHttpPushUri": "/mfwupdate"});
    let server = bmc(json!({"Vendor": "Lenovo"}), service, move |seen| {
        match seen.path.as_str() {
            "/mfwupdate" => Some(Reply::Http(
                202,
                vec![("Location", monitor.to_owned())],
                Vec::new(),
            )),
            "/redfish/v1/TaskService/Tasks" if seen.method == "GET" => Some(Reply::json(
                &json!({"Members": [{"@odata.id": "/redfish/v1/TaskService/Tasks/9"}]}),
            )),
            "/redfish/v1/TaskService/Tasks/9" => Some(Reply::json(&moved)),
            "/redfish/v1/JobService/Jobs/4" => Some(Reply::json(
                &json!({"JobState": "Completed", "PercentComplete": 100}),
            )),
            _ => None,
        }
    })
    .await;
    let handle = server.connect().await;
    // The job that the task became is finished, the task is over: nothing is open that could refuse us.
    let task = TaskRef {
        uri: "/redfish/v1/TaskService/Tasks/9".into(),
        kind: TaskKind::Task,
    };
    let progress = handle.follow(&task).await.unwrap();
    let job = progress.moved_to.unwrap();
    assert_eq!(
        job,
        TaskRef {
            uri: "/redfish/v1/JobService/Jobs/4".into(),
            kind: TaskKind::Job
        }
    );
    assert_eq!(handle.follow(&job).await.unwrap().outcome, TaskOutcome::Done);
    let (_folder, request) = request(ComponentClass::Bmc);
    let started = handle.start_update(&request).await.unwrap();
    assert_eq!(
        started.task.unwrap().uri,
        "/redfish/v1/TaskService/Tasks/9",
        "the task whose monitor it is"
    );
    assert_eq!(server.count("GET", monitor), 0);
}

#[tokio::test]
async fn every_task_state_has_its_meaning() {
    let states = [
        ("New", TaskState::New, TaskOutcome::InProgress),
        ("Starting", TaskState::Starting, TaskOutcome::InProgress),
        ("Pending", TaskState::Pending, TaskOutcome::InProgress),
        ("Running", TaskState::Running, TaskOutcome::InProgress),
        ("Service", TaskState::Service, TaskOutcome::InProgress),
        ("Stopping", TaskState::Stopping, TaskOutcome::InProgress),
        ("Suspended", TaskState::Suspended, TaskOutcome::InProgress),
        (
            "UserIntervention",
            TaskState::UserIntervention,
            TaskOutcome::AwaitingReset,
        ),
        ("Completed", TaskState::Completed, TaskOutcome::Done),
        ("Exception", TaskState::Exception, TaskOutcome::Failed),
        ("Killed", TaskState::Killed, TaskOutcome::Failed),
        ("Cancelling", TaskState::Cancelling, TaskOutcome::InProgress),
        ("Cancelled", TaskState::Cancelled, TaskOutcome::Failed),
        ("Interrupted", TaskState::Interrupted, TaskOutcome::InProgress),
        ("Fnord", TaskState::Unknown, TaskOutcome::InProgress),
    ];
    let server = bmc(json!({}), json!({}), |seen| {
        let word = seen.path.strip_prefix("/redfish/v1/TaskService/Tasks/")?;
        Some(Reply::json(&json!({"TaskState": word, "Messages": []})))
    })
    .await;
    let handle = server.connect().await;
    for (word, state, outcome) in states {
        let task = TaskRef {
            uri: format!("/redfish/v1/TaskService/Tasks/{word}"),
            kind: TaskKind::Task,
        };
        let progress = handle.follow(&task).await.unwrap();
        assert_eq!((progress.state, progress.outcome), (state, outcome), "{word}");
    }
}

#[tokio::test]
async fn a_task_that_points_elsewhere_is_no_task_but_the_update_was_accepted() {
    let server = bmc(json!({}), json!({"MultipartHttpPushUri": "/up"}), |seen| {
        let location = vec![(
            "Location",
            "https://evil.invalid/redfish/v1/TaskService/Tasks/1".to_owned(),
        )];
        (seen.path == "/up").then(|| Reply::Http(202, location, Vec::new()))
    })
    .await;
    let (_folder, request) = request(ComponentClass::Bmc);
    assert_eq!(
        server.connect().await.start_update(&request).await.unwrap().task,
        None
    );
}

#[tokio::test]
async fn an_image_that_is_not_as_said_is_found_before_anything_is_sent() {
    let server = bmc(
        json!({}),
        json!({"MultipartHttpPushUri": "/up", "MaxImageSizeBytes": 20}),
        |_| None,
    )
    .await;
    let handle = Redfish::connect(&server.endpoint(), &Limits { ..limits() })
        .await
        .unwrap();
    let (folder, good) = request(ComponentClass::Bmc);
    let large = folder.path().join("large.bin");
    std::fs::write(&large, [0; 21]).unwrap();
    let with = |change: &dyn Fn(&mut Image)| {
        let mut request = good.clone();
        change(&mut request.image);
        request
    };
    for request in [
        with(&|image| image.path = folder.path().join("absent")),
        with(&|image| image.path = folder.path().to_path_buf()),
        with(&|image| image.size = 13),
        with(&|image| image.file_name = "../x".into()),
        with(&|image| image.file_name = "a\"; name=\"b".into()),
        with(&|image| (image.path, image.size) = (large.clone(), 21)),
    ] {
        let error = handle.start_update(&request).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (ErrorKind::Invalid, false),
            "{error}"
        );
    }
    assert!(server.changes().is_empty());
}
