//! Requests that change something: sessions, resets, settings, accounts. Updates with images are in `update`.

use crate::{bios, persona, record::Summary, state::Turn};
use serde_json::{Value, json};

/// An answer, before the server makes HTTP of it.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: Option<Value>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::new(status, None)
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The error envelope of DSP0266.
    pub(crate) fn error(status: u16, id: &str, text: &str) -> Self {
        Self::message(status, id, text)
    }

    pub(crate) fn message(status: u16, id: &str, text: &str) -> Self {
        let severity = if status < 400 { "OK" } else { "Critical" };
        let body = json!({"error": {
            "code": id, "message": text,
            "@Message.ExtendedInfo": [{
                "@odata.type": "#Message.v1_1_1.Message", "MessageId": id, "Message": text, "MessageArgs": [],
                "Severity": severity, "MessageSeverity": severity, "Resolution": "None.",
            }],
        }});
        Self::new(status, Some(body))
    }

    /// A 200 that says so.
    pub(crate) fn ok_message() -> Self {
        Self::message(200, "Base.1.12.Success", "The request completed successfully.")
    }

    pub(crate) fn bad_value(name: &str) -> Self {
        let text = format!("The value of the property {name} is not acceptable.");
        Self::error(400, "Base.1.12.PropertyValueNotInList", &text)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(
            404,
            "Base.1.12.ResourceMissingAtURI",
            "The resource does not exist.",
        )
    }
}

/// What a request is aimed at, and who sends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) method: &'a str,
    /// Without a slash at its end.
    pub(crate) path: &'a str,
    /// The session, or the account's name under basic authentication.
    pub(crate) client: &'a str,
}

/// What a request wants, for the record. Never values that could be secrets.
pub(crate) fn summarize(target: &Target<'_>, body: &Value) -> Summary {
    let mut summary = Summary {
        reset_type: body["ResetType"].as_str().map(str::to_owned),
        apply_time: body["@Redfish.OperationApplyTime"].as_str().map(str::to_owned),
        ..Summary::default()
    };
    if let Some(uri) = body["ImageURI"].as_str() {
        // A one-time token in the query or the user part is nobody's business.
        let bare = uri.split(['?', '#']).next().unwrap_or_default();
        let bare = match (bare.split_once("://"), bare.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
            _ => bare.to_owned(),
        };
        summary.image_uri = Some(bare);
    }
    if let Some(targets) = body["Targets"].as_array() {
        summary.targets = targets
            .iter()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect();
    }
    if target.path.ends_with("/Sessions") {
        summary.user = body["UserName"].as_str().map(str::to_owned);
    } else if target.method == "PATCH" {
        let attributes = body["Attributes"].as_object().or(body.as_object());
        summary.properties = attributes
            .map(|m| m.keys().cloned().collect())
            .unwrap_or_default();
    }
    summary
}

/// Dispatches a mutating request without an image.
pub(crate) fn act(turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Reply {
    let vendor = turn.machine.vendor();
    if let Some(reply) = vendor.act(turn, target, body) {
        return reply;
    }
    let ids = vendor.ids();
    let rest = target.path.strip_prefix("/redfish/v1/").unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').collect();
    match (target.method, parts.as_slice()) {
        ("DELETE", ["SessionService", "Sessions", id]) => {
            let closed = id.parse().is_ok_and(|id| turn.st.sessions.close(id));
            if closed {
                Reply::empty(204)
            } else {
                Reply::not_found()
            }
        }
        ("POST", ["Systems", s, "Actions", "ComputerSystem.Reset"]) if *s == ids.system => {
            let Some(kind) = known(body, vendor.reset_types()) else {
                return Reply::bad_value("ResetType");
            };
            match turn.reset_host(&kind) {
                Ok(()) => Reply::empty(204),
                Err(refusal) => vendor.refused(refusal),
            }
        }
        ("POST", ["Managers", m, "Actions", "Manager.Reset"]) if *m == ids.manager => {
            // The type may be left out (DSP0268): the implementation's default.
            if body.get("ResetType").is_some() && known(body, vendor.manager_reset_types()).is_none() {
                return Reply::bad_value("ResetType");
            }
            turn.drop_upload();
            turn.reset_bmc("Manager.Reset");
            Reply::empty(204)
        }
        ("POST", ["Chassis", c, "Actions", "Chassis.Reset"]) if *c == ids.chassis => {
            if known(body, vendor.chassis_reset_types()).is_none() {
                return Reply::bad_value("ResetType");
            }
            if !turn.fault(None, |f| *f == crate::fault::Fault::PowerIgnored) {
                turn.ac_cycle("Chassis.Reset");
            }
            Reply::empty(204)
        }
        ("POST", ["UpdateService", "Actions", "UpdateService.StartUpdate"]) => match turn.start_update() {
            Ok(task) => vendor.accepted(turn, task),
            Err(refusal) => vendor.refused(refusal),
        },
        ("PATCH", ["Systems", s, "Bios", p]) if *s == ids.system && *p == ids.pending => {
            bios::patch(turn, body)
        }
        ("PATCH", ["Systems", s]) if *s == ids.system => patch_system(turn, body),
        ("PATCH", ["AccountService", "Accounts", "1"]) => match body["Password"].as_str() {
            Some(password) if password.len() >= 8 => {
                turn.st.extra().password = Some(password.to_owned());
                Reply::ok_message()
            }
            _ => Reply::bad_value("Password"),
        },
        _ => {
            if crate::resource::get(turn, target.path).is_some() {
                Reply::error(
                    405,
                    "Base.1.12.OperationNotAllowed",
                    "The method is not allowed on this resource.",
                )
            } else {
                Reply::not_found()
            }
        }
    }
}

fn known(body: &Value, types: &[&str]) -> Option<String> {
    let kind = body["ResetType"].as_str()?;
    types.contains(&kind).then(|| kind.to_owned())
}

fn patch_system(turn: &mut Turn<'_>, body: &Value) -> Reply {
    if let Some(tag) = body["AssetTag"].as_str() {
        turn.st.extra().asset_tag = Some(tag.to_owned());
    }
    if let Some(led) = body["IndicatorLED"].as_str() {
        if !["Off", "Lit", "Blinking"].contains(&led) {
            return Reply::bad_value("IndicatorLED");
        }
        turn.st.extra().led = Some(led.to_owned());
    }
    if let Some(target) = body["Boot"]["BootSourceOverrideTarget"].as_str() {
        if !["None", "Pxe", "Hdd", "Cd", "BiosSetup"].contains(&target) {
            return Reply::bad_value("BootSourceOverrideTarget");
        }
        turn.st.extra().boot_target = Some(target.to_owned());
    }
    Reply::ok_message()
}

/// `POST` of a session: the answer, and whether the login was good.
pub(crate) fn login(turn: &mut Turn<'_>, body: &Value) -> Reply {
    let good = body["UserName"].as_str() == Some(turn.shared.options.username.as_str())
        && body["Password"].as_str().is_some_and(|p| password_is(turn, p));
    if !good {
        return Reply::error(
            401,
            "Base.1.12.ResourceAtUriUnauthorized",
            "The login was refused.",
        );
    }
    let vendor = turn.machine.vendor();
    let (limit, timeout) = (vendor.session_limit(), vendor.session_timeout() * 1000);
    let Some(session) = turn.st.sessions.open(turn.t, limit, timeout) else {
        return vendor.no_session();
    };
    let path = format!("/redfish/v1/SessionService/Sessions/{}", session.id);
    let doc = crate::resource::get(turn, &path);
    Reply::new(201, doc)
        .header("Location", path)
        .header("X-Auth-Token", format!("{:032x}", session.token))
}

/// Whether this is the account's password now.
pub(crate) fn password_is(turn: &Turn<'_>, password: &str) -> bool {
    let own = turn.st.extra.as_ref().and_then(|e| e.password.as_deref());
    own.unwrap_or(&turn.shared.options.password) == password
}

/// Whether an `If-Match` lets the request through.
pub(crate) fn precondition(turn: &Turn<'_>, path: &str, if_match: Option<&str>, etag: &str) -> Option<Reply> {
    let vendor = turn.machine.vendor();
    let failed = || Reply::error(412, "Base.1.12.PreconditionFailed", "The ETag does not match.");
    let Some(given) = if_match else {
        let settings = path.ends_with(&format!("/Bios/{}", vendor.ids().pending));
        let needed = settings && vendor.etag() == persona::Etag::StrongRequired;
        return needed.then(|| {
            Reply::error(
                428,
                "Base.1.12.PreconditionRequired",
                "An If-Match header is required.",
            )
        });
    };
    if given.trim() == "*" {
        return None;
    }
    let strong = etag.trim_start_matches("W/");
    let fits = match vendor.etag() {
        persona::Etag::Weak => given.trim_start_matches("W/") == strong,
        // The empty tag matches nothing, and neither does a weak one under strong comparison (RFC 9110, 13.1.1).
        _ => given == strong,
    };
    if fits { None } else { Some(failed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_hold_no_secrets() {
        let post = Target {
            method: "POST",
            path: "/redfish/v1/SessionService/Sessions",
            client: "",
        };
        let login = summarize(&post, &json!({"UserName": "admin", "Password": "canary"}));
        assert_eq!(login.user.as_deref(), Some("admin"));
        let patch = Target {
            method: "PATCH",
            path: "/redfish/v1/AccountService/Accounts/1",
            client: "",
        };
        let rotated = summarize(&patch, &json!({"Password": "canary"}));
        assert_eq!(rotated.properties, ["Password"]);
        let update = Target {
            method: "POST",
            path: "/x",
            client: "",
        };
        let pulled = summarize(
            &update,
            &json!({"ImageURI": "https://u:canary@127.0.0.1/a.bin?token=canary"}),
        );
        assert_eq!(pulled.image_uri.as_deref(), Some("https://127.0.0.1/a.bin"));
        for summary in [login, rotated, pulled] {
            assert!(!serde_json::to_string(&summary).unwrap().contains("canary"));
        }
    }
}
