//! The session service: tokens, the vendors' limits, time-outs.

/// One login.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: u32,
    pub(crate) token: u128,
    pub(crate) used_ms: u64,
    pub(crate) created_ms: u64,
}

/// The sessions of one BMC; empty costs one pointer's worth.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    list: Vec<Session>,
    next: u32,
}

impl Sessions {
    /// Opens a session, unless `limit` are open.
    pub(crate) fn open(&mut self, now_ms: u64, limit: usize, timeout_ms: u64) -> Option<Session> {
        self.expire(now_ms, timeout_ms);
        if self.list.len() >= limit {
            return None;
        }
        self.next += 1;
        let session = Session {
            id: self.next,
            token: uuid::Uuid::new_v4().as_u128(),
            used_ms: now_ms,
            created_ms: now_ms,
        };
        self.list.push(session.clone());
        Some(session)
    }

    /// Whether the token is good; using it keeps it.
    pub(crate) fn touch(&mut self, token: &str, now_ms: u64, timeout_ms: u64) -> Option<u32> {
        self.expire(now_ms, timeout_ms);
        let token = u128::from_str_radix(token, 16).ok()?;
        let session = self.list.iter_mut().find(|s| s.token == token)?;
        session.used_ms = now_ms;
        Some(session.id)
    }

    fn expire(&mut self, now_ms: u64, timeout_ms: u64) {
        self.list
            .retain(|s| now_ms.saturating_sub(s.used_ms) <= timeout_ms);
        self.shrink();
    }

    pub(crate) fn close(&mut self, id: u32) -> bool {
        let before = self.list.len();
        self.list.retain(|s| s.id != id);
        let closed = self.list.len() != before;
        self.shrink();
        closed
    }

    pub(crate) fn clear(&mut self) {
        self.list = Vec::new();
    }

    fn shrink(&mut self) {
        if self.list.is_empty() {
            self.list = Vec::new();
        }
    }

    pub(crate) fn list(&self) -> &[Session] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_until_a_session_closes_or_expires() {
        let mut s = Sessions::default();
        let first = s.open(0, 2, 1_000).unwrap();
        let second = s.open(500, 2, 1_000).unwrap();
        assert!(s.open(900, 2, 1_000).is_none());
        assert!(s.touch(&format!("{:032x}", second.token), 1_400, 1_000).is_some());
        assert!(
            s.touch(&format!("{:032x}", first.token), 1_401, 1_000).is_none(),
            "expired"
        );
        assert!(s.open(1_401, 2, 1_000).is_some());
        assert!(s.close(second.id));
        assert!(!s.close(second.id));
        assert!(s.touch("nonsense", 0, 1_000).is_none());
    }
}
