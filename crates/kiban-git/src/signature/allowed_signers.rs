//! OpenSSH's allowed signers: `principals [options] keytype key [comment]`, one a line (`man ssh-keygen`).

use jiff::{Timestamp, civil, tz::TimeZone};
use ssh_key::{PublicKey, public::KeyData};

use super::KeysError;

/// The lines of an allowed signers file.
#[derive(Debug, Default)]
pub(super) struct AllowedSigners {
    lines: Vec<Line>,
}

/// One key that may sign.
#[derive(Debug)]
pub(super) struct Line {
    /// Who holds it, as written.
    pub(super) principals: String,
    /// What it may sign; empty: anything.
    pub(super) namespaces: Vec<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
    key: PublicKey,
}

impl AllowedSigners {
    pub(super) fn parse(text: &str) -> Result<Self, KeysError> {
        let mut lines = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = Line::parse(line);
            lines.push(parsed.map_err(|why| KeysError {
                what: "allowed signers",
                line: i + 1,
                why,
            })?);
        }
        Ok(AllowedSigners { lines })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn with_key<'a>(&'a self, key: &'a KeyData) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.key.key_data() == key)
    }
}

impl Line {
    fn parse(text: &str) -> Result<Line, String> {
        let (principals, mut rest) = take_field(text)?;
        let principals = principals.trim_matches('"').to_owned();
        if principals.is_empty() {
            return Err("there is no principal".to_owned());
        }
        let (mut namespaces, mut valid_after, mut valid_before) = (Vec::new(), None, None);
        // Options are told from the key by the key's type; an option is never named like one.
        while !is_key_type(rest) {
            let (options, after) = take_field(rest)?;
            if options.is_empty() {
                return Err("there is no key".to_owned());
            }
            for option in split_options(&options) {
                let (name, value) = option.split_once('=').unwrap_or((option.as_str(), ""));
                let value = value.trim_matches('"');
                match name.to_ascii_lowercase().as_str() {
                    "namespaces" => {
                        namespaces = value.split(',').map(|n| n.trim().to_owned()).collect();
                        if namespaces.iter().any(String::is_empty) {
                            return Err("namespaces= has an empty name".to_owned());
                        }
                    }
                    "valid-after" => valid_after = Some(time(value)?),
                    "valid-before" => valid_before = Some(time(value)?),
                    "cert-authority" => {
                        return Err("cert-authority is not supported: list the signers' own keys".to_owned());
                    }
                    // An option that we do not know may narrow what the key is for.
                    other => {
                        return Err(format!(
                            "the option {:?} is not known",
                            crate::printable(other, 60)
                        ));
                    }
                }
            }
            rest = after;
        }
        if let (Some(after), Some(before)) = (valid_after, valid_before)
            && after >= before
        {
            return Err("valid-after is not before valid-before".to_owned());
        }
        let key = PublicKey::from_openssh(rest).map_err(|e| format!("read the key: {e}"))?;
        Ok(Line {
            principals,
            namespaces,
            valid_after,
            valid_before,
            key,
        })
    }

    pub(super) fn allows_namespace(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace || n == "*")
    }

    pub(super) fn valid_at(&self, time: Timestamp) -> Result<(), String> {
        match (self.valid_after, self.valid_before) {
            (Some(after), _) if time < after => Err(format!("valid after {after}, used at {time}")),
            (_, Some(before)) if time >= before => Err(format!("valid before {before}, used at {time}")),
            _ => Ok(()),
        }
    }
}

fn is_key_type(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

/// A field up to the next blank outside quotes, and what follows it.
fn take_field(text: &str) -> Result<(String, &str), String> {
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return Ok((text[..i].to_owned(), text[i..].trim_start())),
            _ => {}
        }
    }
    if quoted {
        Err("a quote is not closed".to_owned())
    } else {
        Ok((text.to_owned(), ""))
    }
}

fn split_options(text: &str) -> Vec<String> {
    let (mut out, mut quoted, mut current) = (Vec::new(), false, String::new());
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                current.push(c);
            }
            ',' if !quoted => out.push(std::mem::take(&mut current)),
            _ => current.push(c),
        }
    }
    out.push(current);
    out
}

/// `YYYYMMDD[HHMM[SS]][Z]`. Without `Z` OpenSSH takes the machine's time zone; ours is UTC, as in every container.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{:?} is not a time such as 20261124 or 202611240930Z",
            crate::printable(text, 40)
        )
    };
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return Err(wrong());
    }
    let part = |from: usize, to: usize| {
        digits
            .get(from..to)
            .map_or(Ok(0), str::parse::<i16>)
            .map_err(|_| wrong())
    };
    let byte = |from, to| part(from, to).and_then(|n| i8::try_from(n).map_err(|_| wrong()));
    civil::DateTime::new(
        part(0, 4)?,
        byte(4, 6)?,
        byte(6, 8)?,
        byte(8, 10)?,
        byte(10, 12)?,
        byte(12, 14)?,
        0,
    )
    .and_then(|at| at.to_zoned(TimeZone::UTC))
    .map(|at| at.timestamp())
    .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    fn one(line: &str) -> Result<Line, String> {
        Line::parse(line)
    }

    #[test]
    fn reads_principals_options_and_comments() {
        let line = one(&format!("a@x,b@x {KEY} a comment")).unwrap();
        assert_eq!(line.principals, "a@x,b@x");
        assert!(line.allows_namespace("git") && line.allows_namespace("file"));

        let line = one(&format!(
            "\"a b\" namespaces=\"git,file\",valid-after=\"20260101Z\" {KEY}"
        ))
        .unwrap();
        assert_eq!(line.principals, "a b");
        assert!(line.allows_namespace("git") && !line.allows_namespace("email"));
        assert!(line.valid_at("2025-12-31T23:59:59Z".parse().unwrap()).is_err());
        assert!(line.valid_at("2026-01-01T00:00:00Z".parse().unwrap()).is_ok());

        let line = one(&format!("a valid-before=202601020304 {KEY}")).unwrap();
        assert!(line.valid_at("2026-01-02T03:03:59Z".parse().unwrap()).is_ok());
        assert!(line.valid_at("2026-01-02T03:04:00Z".parse().unwrap()).is_err());
    }

    #[test]
    fn refuses_what_it_would_misread() {
        for (line, why) in [
            (format!("a cert-authority {KEY}"), "cert-authority"),
            (format!("a verify-required {KEY}"), "not known"),
            (format!("a valid-after=20261301 {KEY}"), "not a time"),
            (format!("a valid-after=2026 {KEY}"), "not a time"),
            (
                format!("a valid-after=20270101,valid-before=20260101 {KEY}"),
                "not before",
            ),
            (format!("a namespaces=\"git,\" {KEY}"), "empty name"),
            (format!("\"a {KEY}"), "quote"),
            ("a".to_owned(), "no key"),
            ("a ssh-ed25519 AAAA".to_owned(), "read the key"),
        ] {
            let error = one(&line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        let error =
            AllowedSigners::parse(&format!("# mine\n\na {KEY}\nb cert-authority {KEY}\n")).unwrap_err();
        assert_eq!(error.line, 4);
    }

    /// Pieces that the format is made of, and anything else.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(KEY.to_owned()),
            Just("ssh-ed25519".to_owned()),
            prop::sample::select(vec![
                "\"",
                ",",
                "=",
                " ",
                "\t",
                "\n",
                "#",
                "Z",
                "namespaces=",
                "valid-after=",
                "valid-before=",
                "*",
                "cert-authority",
                "20260101",
                "202602300000",
                "99999999Z",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn never_panics_and_names_a_line_that_is_there(pieces in prop::collection::vec(piece(), 0..24)) {
            let text = pieces.concat();
            if let Err(e) = AllowedSigners::parse(&text) {
                prop_assert!((1..=text.lines().count()).contains(&e.line), "{e}");
            }
        }

        #[test]
        fn reads_back_what_was_written(
            principals in "[a-z@*.]{1,20}",
            namespaces in prop::collection::vec("[a-z]{1,8}", 0..4),
            days in prop::option::of((0_i64..20_000, 1_i64..20_000)),
            comment in "[a-z ]{0,12}",
        ) {
            let day = |n: i64| Timestamp::from_second(n * 86_400).unwrap();
            let written = |n: i64| day(n).strftime("%Y%m%d%H%M%SZ").to_string();
            let mut options = Vec::new();
            if !namespaces.is_empty() {
                options.push(format!("namespaces=\"{}\"", namespaces.join(",")));
            }
            if let Some((after, more)) = days {
                options.push(format!("valid-after={},valid-before=\"{}\"", written(after), written(after + more)));
            }
            let line = one(&format!("{principals} {} {KEY} {comment}", options.join(","))).unwrap();
            prop_assert_eq!(&line.principals, &principals);
            prop_assert_eq!(&line.namespaces, &namespaces);
            let bounds = days.map(|(after, more)| (day(after), day(after + more)));
            prop_assert_eq!(line.valid_after.zip(line.valid_before), bounds);
            let key = PublicKey::from_openssh(KEY).unwrap();
            prop_assert_eq!(line.key.key_data(), key.key_data());
        }
    }
}
