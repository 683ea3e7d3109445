//! Addresses that a BMC hands out: only ever paths on that same BMC.

use reqwest::Url;

/// The longest path that is followed. Real ones stay under 300 bytes.
const MAX_PATH: usize = 2048;

/// A path that may be read, from an `@odata.id`, a `Location` or a link; None if it leads anywhere else.
///
/// Accepts `/path` and an absolute URL of the same scheme, host and port. Refuses `//host`, other hosts, `..` in any
/// spelling, backslashes, white space and control characters.
pub(crate) fn same_host_path(base: &Url, text: &str) -> Option<String> {
    if text.is_empty()
        || text.len() > MAX_PATH
        || text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
    {
        return None;
    }
    let path = if text.starts_with('/') {
        text.to_owned()
    } else {
        let url = Url::parse(text).ok()?;
        let same = url.scheme() == base.scheme()
            && url.host_str() == base.host_str()
            && url.port_or_known_default() == base.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none();
        if !same {
            return None;
        }
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(query);
        }
        path
    };
    if path.starts_with("//") {
        return None;
    }
    let plain = path.split(['?', '#']).next().unwrap_or_default();
    let climbs = plain.split('/').any(|segment| {
        let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
        decoded == ".."
            || decoded == "."
            || decoded.contains("%2f")
            || decoded.contains("%5c")
            || decoded.contains("%00")
    });
    (!climbs).then_some(path)
}

/// A resource's path: as [`same_host_path`], and inside the Redfish tree.
pub(crate) fn resource_path(base: &Url, text: &str) -> Option<String> {
    same_host_path(base, text).filter(|path| path.starts_with("/redfish/"))
}

/// A path to push an image to. BMCs give it outside the tree (`/mfwupdate`) or relative to `/redfish/v1/`.
pub(crate) fn push_path(base: &Url, text: &str) -> Option<String> {
    if text.starts_with('/') || text.contains("://") {
        return same_host_path(base, text);
    }
    same_host_path(base, &format!("/redfish/v1/{text}"))
}

/// A path where tasks and jobs live, for what a BMC's answer calls a task.
pub(crate) fn task_path(base: &Url, text: &str) -> Option<String> {
    let path = resource_path(base, text)?;
    let known = path.split('/').any(|segment| {
        matches!(
            segment,
            "TaskService" | "JobService" | "Jobs" | "Tasks" | "UpdateService"
        )
    });
    known.then_some(path)
}

/// The path without fragment and trailing slash: what two spellings of one resource have in common.
pub(crate) fn normal(path: &str) -> &str {
    path.split('#').next().unwrap_or_default().trim_end_matches('/')
}

/// The last segment.
pub(crate) fn tail(path: &str) -> &str {
    normal(path).rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_same_bmc_are_followed() {
        let base = Url::parse("https://10.0.0.1:8443").unwrap();
        for good in [
            "/redfish/v1/Tasks/1",
            "https://10.0.0.1:8443/redfish/v1/Tasks/1",
            "/redfish/v1/a:b%20c#/x/0",
        ] {
            assert!(resource_path(&base, good).is_some(), "{good}");
        }
        for bad in [
            "",
            "//evil/redfish/v1/x",
            "https://evil/redfish/v1/x",
            "https://10.0.0.1/redfish/v1/x",
            "http://10.0.0.1:8443/redfish/v1/x",
            "https://u:p@10.0.0.1:8443/redfish/v1/x",
            "https://10.0.0.1:8443@evil/redfish/v1/x",
            "/redfish/../etc/passwd",
            "/redfish/v1/%2e%2e/%2E%2e/x",
            "/redfish/v1/..%2f..",
            "/redfish/v1/a\r\nX-Evil: 1",
            "\\\\evil\\x",
            "/etc/passwd",
            "redfish/v1",
        ] {
            assert_eq!(resource_path(&base, bad), None, "{bad:?}");
        }
        assert_eq!(
            resource_path(&base, &format!("/redfish/{}", "x".repeat(4000))),
            None
        );
    }

    #[test]
    fn push_paths_come_in_three_forms() {
        let base = Url::parse("https://bmc").unwrap();
        assert_eq!(push_path(&base, "/mfwupdate").unwrap(), "/mfwupdate");
        assert_eq!(
            push_path(&base, "UpdateService/upload").unwrap(),
            "/redfish/v1/UpdateService/upload"
        );
        assert_eq!(push_path(&base, "https://bmc/upload").unwrap(), "/upload");
        assert_eq!(push_path(&base, "https://evil/upload"), None);
    }

    #[test]
    fn a_task_is_where_tasks_live() {
        let base = Url::parse("https://bmc").unwrap();
        assert!(task_path(&base, "/redfish/v1/TaskService/Tasks/12").is_some());
        assert!(task_path(&base, "/redfish/v1/Managers/iDRAC.Embedded.1/Jobs/JID_1").is_some());
        assert_eq!(task_path(&base, "/redfish/v1/AccountService/Accounts/1"), None);
    }
}
