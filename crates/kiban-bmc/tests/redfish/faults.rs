//! What BMCs and networks do wrong, one test each, named after the list of faults.

use crate::server::{Below, PASSWORD, Reply, Server, basics, limits};
use kiban_bmc::{
    Bmc, BmcError, Connector, Credentials, Endpoint, ErrorKind, ExpectedIdentity, Fingerprint, HostReset,
    Limits, Redfish, RedfishConnector, TaskKind, TaskOutcome, TaskRef, Trust,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

async fn fails(endpoint: &Endpoint) -> BmcError {
    match Redfish::connect(endpoint, &limits()).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

/// A healthy BMC, but for what the closure answers.
async fn mostly(special: impl Fn(&crate::server::Seen) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        special(seen)
            .or_else(|| basics(seen, &json!({})))
            .unwrap_or_else(Reply::not_found)
    })
    .await
}

async fn power(server: &Server) -> Result<kiban_bmc::PowerState, BmcError> {
    server.connect().await.power().await
}

#[tokio::test]
async fn f01_connection_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let endpoint = Endpoint {
        url,
        credentials: Credentials::new("a", "b"),
        trust: Trust::FirstUse,
        expect: None,
    };
    let error = fails(&endpoint).await;
    assert_eq!(
        (error.kind(), error.outcome_unknown(), error.transient()),
        (ErrorKind::Unreachable, false, true),
        "{error}"
    );
}

#[tokio::test]
async fn f02_f03_taken_and_silent() {
    let server = Server::start_with(Below::Silence, None, |_| Reply::Close).await;
    let error = fails(&server.endpoint()).await;
    assert_eq!(
        (error.kind(), error.outcome_unknown()),
        (ErrorKind::Timeout, false),
        "{error}"
    );
}

#[tokio::test]
async fn f04_certificate_changed() {
    let server = mostly(|_| None).await;
    let pin = Fingerprint(Sha256::digest(&server.certificate_der).into());
    let pinned = |pin| Endpoint {
        trust: Trust::Pinned(pin),
        ..server.endpoint()
    };
    let bmc = Redfish::connect(&pinned(pin), &limits()).await.unwrap();
    assert_eq!(bmc.certificate(), Some(pin));
    let error = fails(&pinned(Fingerprint([7; 32]))).await;
    assert_eq!(error.kind(), ErrorKind::CertificateChanged, "{error}");
    assert!(
        error.to_string().contains(&pin.to_string()),
        "says what it shows now: {error}"
    );
    assert!(!error.transient());
}

#[tokio::test]
async fn f05_certificate_expired_or_of_another_authority() {
    let old = Server::start_with(Below::Tls, Some((2001, 2002)), |_| Reply::Close).await;
    let error = fails(&old.endpoint()).await;
    assert_eq!(error.kind(), ErrorKind::TlsUntrusted, "{error}");
    let server = mostly(|_| None).await;
    let other = Endpoint {
        trust: Trust::Ca {
            pem: old.ca_pem.clone(),
        },
        ..server.endpoint()
    };
    assert_eq!(fails(&other).await.kind(), ErrorKind::TlsUntrusted);
    assert!(server.log().is_empty(), "nothing is said to a stranger");
    let none = Endpoint {
        trust: Trust::Ca {
            pem: "no certificate".into(),
        },
        ..server.endpoint()
    };
    assert_eq!(fails(&none).await.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn first_use_tells_the_fingerprint_to_record() {
    let server = mostly(|_| None).await;
    let endpoint = Endpoint {
        trust: Trust::FirstUse,
        ..server.endpoint()
    };
    let bmc = Redfish::connect(&endpoint, &limits()).await.unwrap();
    assert_eq!(
        bmc.certificate(),
        Some(Fingerprint(Sha256::digest(&server.certificate_der).into()))
    );
}

#[tokio::test]
async fn f06_wrong_password_is_tried_twice_and_no_more() {
    let server = mostly(|seen| {
        let fine = seen.json()["Password"] == "new";
        (seen.method == "POST" && !fine)
            .then(|| Reply::error(401, "Base.1.0.NoValidSession", &format!("bad: {PASSWORD}")))
    })
    .await;
    let connector = RedfishConnector::new(limits());
    let endpoint = server.endpoint();
    for _ in 0..4 {
        let bmc = connector.connect(&endpoint).await.unwrap();
        let error = bmc.power().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
    assert_eq!(server.count("POST", "/redfish/v1/SessionService/Sessions"), 2);
    let renewed = Endpoint {
        credentials: Credentials::new("root", "new"),
        ..endpoint
    };
    connector.connect(&renewed).await.unwrap().power().await.unwrap();
}

#[tokio::test]
async fn f07_session_limit_is_told_from_starting() {
    let full = mostly(|seen| {
        (seen.method == "POST").then(|| {
            Reply::error(
                503,
                "IDRAC.2.8.RAC0218",
                "The maximum number of user sessions is reached",
            )
        })
    })
    .await;
    assert_eq!(power(&full).await.unwrap_err().kind(), ErrorKind::SessionLimit);
    let smc = mostly(|seen| {
        (seen.method == "POST").then(|| Reply::error(400, "Base.1.4.SessionLimitExceeded", "too many"))
    })
    .await;
    assert_eq!(power(&smc).await.unwrap_err().kind(), ErrorKind::SessionLimit);
    let starting = mostly(|seen| {
        (seen.method == "POST").then(|| Reply::Http(503, vec![("Retry-After", "30".into())], Vec::new()))
    })
    .await;
    let error = power(&starting).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::Unavailable, Some(Duration::from_secs(30)))
    );
}

#[tokio::test]
async fn f08_session_that_dies_is_renewed_once() {
    let logins = Arc::new(AtomicUsize::new(0));
    let shared = logins.clone();
    let server = mostly(move |seen| {
        if seen.method == "POST" {
            let n = shared.fetch_add(1, Ordering::SeqCst);
            let headers = vec![
                ("X-Auth-Token", format!("t{n}")),
                ("Location", format!("/redfish/v1/SessionService/Sessions/{n}")),
            ];
            return Some(Reply::Http(201, headers, b"{}".to_vec()));
        }
        if seen.method == "DELETE" {
            return Some(Reply::Http(204, Vec::new(), Vec::new()));
        }
        // The first session is dead after its first use.
        let dead = seen.header("x-auth-token") == Some("t0") && seen.path == "/redfish/v1/Systems/1";
        dead.then(|| Reply::error(401, "Base.1.0.NoValidSession", "gone"))
    })
    .await;
    let bmc = server.connect().await;
    bmc.power().await.unwrap();
    bmc.close().await.unwrap();
    assert_eq!(logins.load(Ordering::SeqCst), 2);
    let deleted: Vec<String> = server
        .log()
        .into_iter()
        .filter(|seen| seen.method == "DELETE")
        .map(|seen| seen.path)
        .collect();
    assert_eq!(
        deleted,
        [
            "/redfish/v1/SessionService/Sessions/0",
            "/redfish/v1/SessionService/Sessions/1"
        ],
        "none is left behind"
    );
}

#[tokio::test]
async fn f09_retry_after_is_told_and_bounded() {
    for (status, asked, told) in [(429, "7", 7), (503, "999999999", 3600)] {
        let server = mostly(move |seen| {
            seen.is("GET", "/redfish/v1/Systems")
                .then(|| Reply::Http(status, vec![("Retry-After", asked.into())], Vec::new()))
        })
        .await;
        let error = power(&server).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry_after()),
            (ErrorKind::Unavailable, Some(Duration::from_secs(told))),
            "{error}"
        );
        assert!(error.transient());
    }
}

#[tokio::test]
async fn f10_500_then_fine() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = mostly(move |seen| {
        let broken = seen.is("GET", "/redfish/v1/Systems") && asked.fetch_add(1, Ordering::SeqCst) == 0;
        broken.then(|| {
            Reply::Http(
                500,
                vec![("Content-Type", "text/html".into())],
                b"<html>".to_vec(),
            )
        })
    })
    .await;
    let bmc = server.connect().await;
    assert_eq!(bmc.power().await.unwrap_err().kind(), ErrorKind::Unavailable);
    bmc.power().await.unwrap();
}

#[tokio::test]
async fn f11_drip_ends_at_the_deadline() {
    let server = mostly(|seen| {
        seen.is("GET", "/redfish/v1/Systems")
            .then(|| Reply::Drip(b"HTTP/1.1 200 OK\r\n\r\n{".repeat(9)))
    })
    .await;
    let limits = Limits {
        request_timeout: Duration::from_millis(400),
        ..limits()
    };
    let bmc = Redfish::connect(&server.endpoint(), &limits).await.unwrap();
    assert_eq!(bmc.power().await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn f12_truncated_anywhere_is_an_error_and_never_a_value() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"PowerState\":\"On\"".to_vec();
    for cut in [0, 5, 20, 60, whole.len() - 18, whole.len() - 1] {
        let part = whole[..cut].to_vec();
        let server = mostly(move |seen| {
            seen.is("GET", "/redfish/v1/Systems/1")
                .then(|| Reply::Bytes(part.clone()))
        })
        .await;
        let error = power(&server).await.unwrap_err();
        let fits = matches!(
            error.kind(),
            ErrorKind::ConnectionLost | ErrorKind::MalformedAnswer | ErrorKind::Timeout
        );
        assert!(fits && !error.outcome_unknown(), "{cut}: {error}");
    }
}

#[tokio::test]
async fn f13_wrong_types_cost_the_field() {
    let server = mostly(|seen| {
        seen.is("GET", "/redfish/v1/Systems/1").then(|| {
            Reply::json(&json!({"Manufacturer": 7, "Model": null, "SerialNumber": ["x"], "UUID": {"a": 1}, "PowerState": 3,
                "Status": "OK", "SKU": "S2", "Storage": 4, "Processors": {"@odata.id": 9}}))
        })
    })
    .await;
    let bmc = server.connect().await;
    let identity = bmc.identity().await.unwrap();
    assert_eq!((identity.serial, identity.sku.as_deref()), (None, Some("S2")));
    assert_eq!(bmc.power().await.unwrap(), kiban_bmc::PowerState::Unknown);
    bmc.health().await.unwrap();
    for root in ["[]", "null", "7", "\"x\"", "{}"] {
        let server = Server::start(move |_| Reply::Http(200, Vec::new(), root.as_bytes().to_vec())).await;
        assert_eq!(
            fails(&server.endpoint()).await.kind(),
            ErrorKind::MalformedAnswer,
            "{root}"
        );
    }
}

#[tokio::test]
async fn f14_too_large_too_many_too_deep() {
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        (
            "large",
            [
                b"{\"a\":\"".to_vec(),
                vec![b'x'; 9 * 1024 * 1024],
                b"\"}".to_vec(),
            ]
            .concat(),
        ),
        (
            "many",
            [
                b"{\"Members\":[".to_vec(),
                b"{},".repeat(1_000_000),
                b"{}]}".to_vec(),
            ]
            .concat(),
        ),
        ("deep", [b"[".repeat(10_000), b"]".repeat(10_000)].concat()),
    ];
    for (name, body) in bodies {
        let server = mostly(move |seen| {
            seen.is("GET", "/redfish/v1/Systems")
                .then(|| Reply::Http(200, Vec::new(), body.clone()))
        })
        .await;
        let error = power(&server).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
    }
    // A length that is only claimed is refused before anything is read.
    let claim = b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n{".to_vec();
    let server = mostly(move |seen| {
        seen.is("GET", "/redfish/v1/Systems")
            .then(|| Reply::Bytes(claim.clone()))
    })
    .await;
    assert_eq!(power(&server).await.unwrap_err().kind(), ErrorKind::TooLarge);
    // And one without a length is cut while it comes.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 9 * 1024 * 1024]].concat();
    let server = mostly(move |seen| {
        seen.is("GET", "/redfish/v1/Systems")
            .then(|| Reply::Bytes(endless.clone()))
    })
    .await;
    assert_eq!(power(&server).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn f15_redirects_and_foreign_addresses_are_not_followed() {
    let elsewhere = mostly(|_| None).await;
    let to = format!("https://{}/redfish/v1/Systems", elsewhere.address);
    let location = to.clone();
    let server = mostly(move |seen| {
        seen.is("GET", "/redfish/v1/Systems")
            .then(|| Reply::Http(307, vec![("Location", location.clone())], Vec::new()))
    })
    .await;
    assert_eq!(power(&server).await.unwrap_err().kind(), ErrorKind::Redirected);
    for link in [
        to,
        "//evil/redfish/v1/Systems/1".into(),
        "/redfish/v1/../../etc/passwd".into(),
    ] {
        let shown = link.clone();
        let server = mostly(move |seen| {
            seen.is("GET", "/redfish/v1/Systems")
                .then(|| Reply::json(&json!({"Members": [{"@odata.id": shown}]})))
        })
        .await;
        let error = power(&server).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MalformedAnswer, "{link}: {error}");
    }
    let task = TaskRef {
        uri: format!("https://{}/redfish/v1/TaskService/Tasks/1", elsewhere.address),
        kind: TaskKind::Task,
    };
    let server = mostly(|_| None).await;
    assert_eq!(
        server.connect().await.follow(&task).await.unwrap_err().kind(),
        ErrorKind::Redirected
    );
    assert!(elsewhere.log().is_empty(), "nothing went there");
}

#[tokio::test]
async fn f16_compressed_answers_are_refused() {
    let server = mostly(|seen| {
        seen.is("GET", "/redfish/v1/Systems")
            .then(|| Reply::Http(200, vec![("Content-Encoding", "gzip".into())], vec![0x1f, 0x8b]))
    })
    .await;
    assert_eq!(
        power(&server).await.unwrap_err().kind(),
        ErrorKind::MalformedAnswer
    );
    assert!(
        server
            .log()
            .iter()
            .all(|seen| seen.header("accept-encoding").is_none()),
        "compression is never offered"
    );
}

#[tokio::test]
async fn f19_f20_tasks_that_vanish_or_turn_critical() {
    let server = Server::start(|seen| {
        if seen.is("GET", "/redfish/v1/TaskService/Tasks/2") {
            return Reply::json(
                &json!({"TaskState": "Completed", "TaskStatus": "Critical", "PercentComplete": 100,
                "Messages": [{"MessageId": "IDRAC.2.8.JCP052", "Message": "made no progress"}]}),
            );
        }
        if seen.is("GET", "/redfish/v1/TaskService/Tasks/3") {
            return Reply::json(&json!({"TaskState": "Running", "PercentComplete": "100", "Messages": []}));
        }
        basics(seen, &json!({})).unwrap_or_else(Reply::not_found)
    })
    .await;
    let bmc = server.connect().await;
    let task = |id: u32| TaskRef {
        uri: format!("/redfish/v1/TaskService/Tasks/{id}"),
        kind: TaskKind::Task,
    };
    let gone = bmc.follow(&task(1)).await.unwrap();
    assert_eq!(
        (gone.outcome, gone.gone),
        (TaskOutcome::Gone, true),
        "gone is no failure"
    );
    let critical = bmc.follow(&task(2)).await.unwrap();
    assert_eq!(critical.outcome, TaskOutcome::Failed);
    assert_eq!(critical.messages[0].id, "IDRAC.2.8.JCP052");
    let stuck = bmc.follow(&task(3)).await.unwrap();
    assert_eq!(
        (stuck.outcome, stuck.percent),
        (TaskOutcome::InProgress, Some(100)),
        "for the caller's deadline to end"
    );
}

#[tokio::test]
async fn where_nothing_removes_the_input_power_a_person_is_asked() {
    let server = mostly(|_| None).await;
    let bmc = server.connect().await;
    let error = bmc.ac_cycle().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome_unknown()),
        (ErrorKind::NotSupported, false)
    );
    assert!(error.to_string().contains("a person must"), "{error}");
    assert!(server.changes().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn f26_f28_another_machine_answers() {
    let server = mostly(|_| None).await;
    let expect = |serial: &str| Endpoint {
        expect: Some(ExpectedIdentity {
            serial: Some(serial.into()),
            uuid: None,
        }),
        ..server.endpoint()
    };
    let bmc = Redfish::connect(&expect("OTHER"), &limits()).await.unwrap();
    for error in [
        bmc.reset_host(HostReset::ForceRestart).await.unwrap_err(),
        bmc.reset_bmc().await.unwrap_err(),
        bmc.ac_cycle().await.unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (ErrorKind::WrongMachine, false),
            "{error}"
        );
    }
    assert!(server.changes().is_empty(), "nothing was sent");
    let bmc = Redfish::connect(&expect("s1 "), &limits()).await.unwrap();
    bmc.reset_bmc().await.unwrap();
    assert_eq!(server.changes().len(), 1);
}

#[tokio::test]
async fn f18_a_change_that_gets_no_answer_is_unknown_and_not_repeated() {
    let never: [(&str, fn() -> Reply); 3] = [
        ("closed", || Reply::Close),
        ("silent", || Reply::Stall),
        ("cut", || Reply::Bytes(b"HTTP/1.1 20".to_vec())),
    ];
    for (name, how) in never {
        let server = mostly(move |seen| seen.path.contains("/Actions/").then(how)).await;
        let limits = Limits {
            request_timeout: Duration::from_millis(500),
            ..limits()
        };
        let bmc = Redfish::connect(&server.endpoint(), &limits).await.unwrap();
        let error = bmc.reset_bmc().await.unwrap_err();
        assert!(error.outcome_unknown(), "{name}: {error}");
        assert_eq!(server.changes().len(), 1, "{name}: sent once");
    }
    let refused = mostly(|seen| {
        seen.path
            .contains("/Actions/")
            .then(|| Reply::error(400, "Base.1.0.ActionNotSupported", "no"))
    })
    .await;
    let error = refused.connect().await.reset_bmc().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome_unknown()),
        (ErrorKind::Rejected, false)
    );
    let broke = mostly(|seen| {
        seen.path
            .contains("/Actions/")
            .then(|| Reply::Http(500, Vec::new(), Vec::new()))
    })
    .await;
    assert!(
        broke
            .connect()
            .await
            .reset_bmc()
            .await
            .unwrap_err()
            .outcome_unknown(),
        "500 does not say"
    );
}

#[tokio::test]
async fn f30_f31_order_and_spelling_do_not_matter() {
    let round = Arc::new(AtomicUsize::new(0));
    let server = mostly(move |seen| {
        let list = "/redfish/v1/UpdateService/FirmwareInventory";
        match seen.path.as_str() {
            "/redfish/v1/UpdateService" => Some(Reply::json(&json!({"FirmwareInventory": {"@odata.id": list}}))),
            path if path == list => {
                let mut ids = ["BMC", "BIOS", "NIC1", "NIC2", "NIC2"];
                let turns = round.fetch_add(1, Ordering::SeqCst) % 4;
                ids.rotate_left(turns);
                let members: Vec<Value> = ids.iter().map(|id| json!({"@odata.id": format!("{list}/{id}")})).collect();
                Some(Reply::json(&json!({"Members": members, "Members@odata.count": 5})))
            }
            path => path.strip_prefix(list).map(|id| {
                Reply::json(&json!({"Id": id.trim_matches('/'), "Name": id, "Version": " 1.2.3\u{7}  ", "Updateable": true}))
            }),
        }
    })
    .await;
    let bmc = server.connect().await;
    let first = bmc.inventory().await.unwrap();
    assert_eq!(first.components.len(), 4);
    assert!(
        first
            .components
            .iter()
            .all(|component| component.version.as_deref() == Some("1.2.3"))
    );
    assert!(
        first
            .findings
            .iter()
            .any(|finding| finding.what.contains("listed twice")),
        "{:?}",
        first.findings
    );
    for _ in 0..3 {
        assert_eq!(bmc.inventory().await.unwrap().components, first.components);
    }
}

#[tokio::test]
async fn a_collection_that_lies_is_noted_and_read() {
    let server = mostly(|seen| {
        let list = "/redfish/v1/UpdateService/FirmwareInventory";
        let page = |members: Vec<Value>, next: &str| {
            Reply::json(
                &json!({"Members": members, "Members@odata.count": 99, "Members@odata.nextLink": next}),
            )
        };
        match seen.path.as_str() {
            "/redfish/v1/UpdateService" => {
                Some(Reply::json(&json!({"FirmwareInventory": {"@odata.id": list}})))
            }
            "/redfish/v1/UpdateService/FirmwareInventory" => {
                let bad = vec![
                    json!({"@odata.id": format!("{list}/BMC")}),
                    json!({"@odata.id": "https://evil/x"}),
                    json!(7),
                    json!({"@odata.id": format!("{list}/broken")}),
                    json!({"@odata.id": format!("{list}/html")}),
                ];
                Some(page(bad, &format!("{list}?page=2")))
            }
            "/redfish/v1/UpdateService/FirmwareInventory?page=2" => {
                Some(page(vec![json!({"@odata.id": format!("{list}/BIOS")})], list))
            }
            "/redfish/v1/UpdateService/FirmwareInventory/broken" => Some(Reply::json(
                &json!({"Id": "broken", "Name": "x", "Version": {"huge": "x".repeat(5000)}}),
            )),
            "/redfish/v1/UpdateService/FirmwareInventory/html" => {
                Some(Reply::Http(200, Vec::new(), b"<html>".to_vec()))
            }
            "/redfish/v1/UpdateService/FirmwareInventory/BIOS" => Some(Reply::json(
                &json!({"Id": "BIOS", "Name": "BIOS", "Version": "v".repeat(64 * 1024)}),
            )),
            "/redfish/v1/UpdateService/FirmwareInventory/BMC" => Some(Reply::json(
                &json!({"Id": "BMC", "Name": "BMC", "Version": "1.0", "Oem": {"x": [[[[[]]]]]}}),
            )),
            _ => None,
        }
    })
    .await;
    let inventory = server.connect().await.inventory().await.unwrap();
    let version = |id: &str| {
        inventory
            .components
            .iter()
            .find(|c| c.id == id)
            .map(|c| c.version.clone())
    };
    assert_eq!(version("BMC"), Some(Some("1.0".into())));
    assert_eq!(
        version("broken"),
        Some(None),
        "the member stays, its version is unknown"
    );
    assert_eq!(version("html"), None, "that member is lost");
    assert_eq!(version("BIOS").flatten().map(|text| text.len()), Some(256), "cut");
    let said = |word: &str| {
        inventory
            .findings
            .iter()
            .any(|finding| finding.what.contains(word))
    };
    for word in [
        "circle",
        "counts 99",
        "https://evil/x",
        "no address",
        "Version is an object",
        "HTML",
        "65536 bytes",
    ] {
        assert!(said(word), "{word}: {:#?}", inventory.findings);
    }
}

#[tokio::test]
async fn a_bmc_that_dies_while_it_is_read_gives_an_error_and_no_half_inventory() {
    let server = mostly(|seen| {
        let list = "/redfish/v1/UpdateService/FirmwareInventory";
        match seen.path.as_str() {
            "/redfish/v1/UpdateService" => {
                Some(Reply::json(&json!({"FirmwareInventory": {"@odata.id": list}})))
            }
            path if path == list => Some(Reply::json(
                &json!({"Members": [{"@odata.id": format!("{list}/A")}, {"@odata.id": format!("{list}/B")}]}),
            )),
            path if path.ends_with("/A") => {
                Some(Reply::json(&json!({"Id": "A", "Name": "A", "Version": "1"})))
            }
            path if path.ends_with("/B") => Some(Reply::Http(503, Vec::new(), Vec::new())),
            _ => None,
        }
    })
    .await;
    assert_eq!(
        server.connect().await.inventory().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn f41_html_from_a_proxy_is_no_answer() {
    let page = || {
        Reply::Http(
            200,
            vec![("Content-Type", "text/html".into())],
            b"<!DOCTYPE html><html>log in</html>".to_vec(),
        )
    };
    let server = Server::start(move |_| page()).await;
    let error = fails(&server.endpoint()).await;
    assert_eq!(error.kind(), ErrorKind::MalformedAnswer, "{error}");
    assert!(error.to_string().contains("HTML"), "{error}");
    let server = mostly(move |seen| seen.path.contains("/Actions/").then(page)).await;
    let error = server.connect().await.reset_bmc().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome_unknown()),
        (ErrorKind::MalformedAnswer, true),
        "who knows whether it went through"
    );
}

#[tokio::test]
async fn one_session_for_all_handles_given_back_by_the_last() {
    let server = mostly(|_| None).await;
    let connector = RedfishConnector::new(limits());
    let endpoint = server.endpoint();
    let first = connector.connect(&endpoint).await.unwrap();
    let second = connector.connect(&endpoint).await.unwrap();
    first.power().await.unwrap();
    second.power().await.unwrap();
    first.close().await.unwrap();
    let open = "/redfish/v1/SessionService/Sessions/1";
    assert_eq!(server.count("DELETE", open), 0, "the second still needs it");
    assert_eq!(
        first.power().await.unwrap_err().kind(),
        ErrorKind::Invalid,
        "closed is closed"
    );
    drop(second);
    for _ in 0..200 {
        if server.count("DELETE", open) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.count("DELETE", open), 1, "dropping gives it back too");
    assert_eq!(server.count("POST", "/redfish/v1/SessionService/Sessions"), 1);
}

#[tokio::test]
async fn a_huge_token_or_none_is_refused() {
    let huge = mostly(|seen| {
        (seen.method == "POST")
            .then(|| Reply::Http(201, vec![("X-Auth-Token", "x".repeat(100_000))], b"{}".to_vec()))
    })
    .await;
    assert_eq!(power(&huge).await.unwrap_err().kind(), ErrorKind::MalformedAnswer);
    let none =
        mostly(|seen| (seen.method == "POST").then(|| Reply::Http(201, Vec::new(), b"{}".to_vec()))).await;
    assert_eq!(power(&none).await.unwrap_err().kind(), ErrorKind::MalformedAnswer);
}

#[tokio::test]
async fn urls_that_are_no_bmc_are_refused_before_anything_is_sent() {
    for url in [
        "",
        "http://bmc",
        "ftp://bmc",
        "https://",
        "https://u:p@bmc",
        "file:///etc/passwd",
        "-x",
    ] {
        let endpoint = Endpoint {
            url: url.into(),
            credentials: Credentials::new("a", "b"),
            trust: Trust::FirstUse,
            expect: None,
        };
        assert_eq!(fails(&endpoint).await.kind(), ErrorKind::Invalid, "{url:?}");
    }
}
