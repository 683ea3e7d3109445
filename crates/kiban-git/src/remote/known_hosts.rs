//! Is this host key one that `known_hosts` gives for this host? Ours, because libgit2 reads only the file of the
//! user's home directory, which a container has not.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use ssh_key::{
    HashAlg, PublicKey,
    known_hosts::{HostPatterns, KnownHosts, Marker},
};

/// Accepts the key (in its wire form) that `host` presented, or says why not and what to do.
pub(super) fn check(known_hosts: &str, host: &str, port: u16, key: &[u8]) -> Result<(), String> {
    let presented = PublicKey::from_bytes(key).map_err(|e| format!("read the server's key: {e}"))?;
    let shown = format!(
        "{} {}",
        presented.algorithm(),
        presented.fingerprint(HashAlg::Sha256)
    );
    let name = if port == 22 {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    };
    let (mut accepted, mut others, mut authority) = (false, Vec::new(), false);
    // A line that cannot be read costs itself: a known_hosts file gathers key types that we do not know.
    for entry in KnownHosts::new(known_hosts).flatten() {
        if !matches(entry.host_patterns(), &name) {
            continue;
        }
        let same = entry.public_key().key_data() == presented.key_data();
        match entry.marker() {
            Some(Marker::Revoked) if same => {
                return Err(format!(
                    "{name} presents {shown}, which known_hosts marks as revoked"
                ));
            }
            Some(Marker::Revoked) => {}
            Some(Marker::CertAuthority) => authority = true,
            None if same => accepted = true,
            None => others.push(entry.public_key().algorithm().to_string()),
        }
    }
    if accepted {
        return Ok(());
    }
    others.sort();
    others.dedup();
    Err(if others.contains(&presented.algorithm().to_string()) {
        format!(
            "{name} presents {shown}, and known_hosts has another key of that type: the host key changed, or someone is in between"
        )
    } else if !others.is_empty() {
        format!(
            "{name} presents {shown}, and known_hosts has only its {}: add the line for {} (ssh-keyscan shows it)",
            others.join(", "),
            presented.algorithm()
        )
    } else if authority {
        format!(
            "{name} presents {shown}; host certificates (@cert-authority) are not supported, add the key itself"
        )
    } else {
        format!("{name} presents {shown}, and known_hosts has no line for {name}")
    })
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mut mac| {
            mac.update(name.as_bytes());
            mac.verify_slice(hash).is_ok()
        }),
        HostPatterns::Patterns(patterns) => {
            let hit = |pattern: &str| glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes());
            patterns.iter().any(|p| !p.starts_with('!') && hit(p))
                && !patterns.iter().any(|p| p.strip_prefix('!').is_some_and(hit))
        }
    }
}

/// `*` and `?`, without backtracking beyond the last star, so that no pattern takes exponential time.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILagp0yZBJWUZ8F8B2R9iL3iOHcgaGHdwGk5x3ViDWUO";

    fn wire(key: &str) -> Vec<u8> {
        PublicKey::from_openssh(key).unwrap().to_bytes().unwrap()
    }

    /// As `ssh-keygen -H` writes it.
    fn hashed(name: &str) -> String {
        use ssh_key::known_hosts::HostPatterns;
        let salt = vec![7_u8; 20];
        let mut mac = Hmac::<Sha1>::new_from_slice(&salt).unwrap();
        mac.update(name.as_bytes());
        let hash: [u8; 20] = mac.finalize().into_bytes().into();
        format!("{} {KEY}", HostPatterns::HashedName { salt, hash }.to_string())
    }

    #[test]
    fn accepts_plain_pattern_port_and_hashed_lines() {
        let key = wire(KEY);
        for (file, host, port) in [
            (format!("github.com,10.0.0.1 {KEY}"), "github.com", 22),
            (
                format!("*.example.org,!bad.example.org {KEY}"),
                "git.example.org",
                22,
            ),
            (format!("[git.example.org]:2222 {KEY}"), "git.example.org", 2222),
            (
                format!("garbage line\n\n# comment\n{}", hashed("git.example.org")),
                "git.example.org",
                22,
            ),
            (hashed("[git.example.org]:2222"), "git.example.org", 2222),
        ] {
            assert_eq!(check(&file, host, port, &key), Ok(()), "{file}");
        }
    }

    #[test]
    fn tells_unknown_changed_revoked_and_other_types_apart() {
        let key = wire(KEY);
        let error = |file: &str, host: &str, port| check(file, host, port, &key).unwrap_err();
        assert!(error(&format!("a.example {KEY}"), "b.example", 22).contains("no line for b.example"));
        assert!(
            error(&format!("a.example {KEY}"), "a.example", 2222).contains("no line for [a.example]:2222")
        );
        assert!(error(&format!("a.example {OTHER}"), "a.example", 22).contains("host key changed"));
        assert!(error(&format!("a.example {KEY}\n@revoked * {KEY}"), "a.example", 22).contains("revoked"));
        assert!(error(&format!("@cert-authority * {OTHER}"), "a.example", 22).contains("@cert-authority"));
        assert!(error(&format!("*,!a.example {KEY}"), "a.example", 22).contains("no line"));
        assert!(error(&hashed("b.example"), "a.example", 22).contains("no line"));
    }

    #[test]
    fn glob_takes_linear_time_on_hostile_patterns() {
        let pattern = format!("{}b", "*a".repeat(1000));
        assert!(!glob(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
        assert!(glob(b"a*c?", b"abccd"));
    }

    proptest! {
        #[test]
        fn any_text_neither_panics_nor_opens_the_door(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(OTHER.to_owned()),
                    prop::sample::select(vec![
                        "@revoked ", "@cert-authority ", "|1|", "*", "!", "?", ",", " ", "\n", "#", "[", "]:22",
                        "a.example", "=",
                    ])
                    .prop_map(str::to_owned),
                    "\\PC{0,12}",
                ],
                0..24,
            )
        ) {
            // The key that is presented stands nowhere in the text.
            prop_assert!(check(&pieces.concat(), "a.example", 22, &wire(KEY)).is_err());
        }

        #[test]
        fn what_surrounds_a_good_line_does_not_hide_it(
            before in "[^\\n@]{0,40}",
            host in "[a-z]{1,10}(\\.[a-z]{1,5}){0,3}",
            port in prop_oneof![Just(22_u16), 1_u16..],
            as_hash in any::<bool>(),
        ) {
            let name = if port == 22 { host.clone() } else { format!("[{host}]:{port}") };
            let line = if as_hash { hashed(&name) } else { format!("{name} {KEY}") };
            let file = format!("{before}\n{line}\nother.example {OTHER}\n");
            prop_assert_eq!(check(&file, &host, port, &wire(KEY)), Ok(()));
            prop_assert!(check(&file, &host, port, &wire(OTHER)).is_err());
        }

        #[test]
        fn a_pattern_without_wildcards_is_itself(text in "[a-z.]{0,20}", other in "[a-z.]{0,20}") {
            prop_assert!(glob(text.as_bytes(), text.as_bytes()));
            prop_assert_eq!(glob(text.as_bytes(), other.as_bytes()), text == other);
            let (pattern, longer) = (format!("{text}*"), format!("{text}{other}"));
            prop_assert!(glob(pattern.as_bytes(), longer.as_bytes()));
        }
    }
}
