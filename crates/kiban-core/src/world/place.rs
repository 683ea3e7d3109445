//! Where devices stand, as failure domains.

use super::interner::{Interner, Sym};
use crate::facts::FailureDomain;
use hashbrown::HashMap;
use std::fmt;

/// A failure domain, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub(crate) u32);

impl DomainId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place, by number: a rack in a room in a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PlaceId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Domain {
    kind: FailureDomain,
    site: Sym,
    room: Sym,
    /// The rack, or the power feed.
    rack: Sym,
}

impl Domain {
    /// Whether the label is missing that gives a domain of this kind its name.
    fn is_missing(&self) -> bool {
        match self.kind {
            FailureDomain::Rack | FailureDomain::Power => self.rack.is_empty(),
            FailureDomain::Room => self.room.is_empty(),
            FailureDomain::Site => self.site.is_empty(),
        }
    }
}

/// Every place and every domain that some device has had.
/// The domains of one place.
#[derive(Debug)]
struct Place {
    rack: DomainId,
    room: DomainId,
    site: DomainId,
    feeds: Box<[DomainId]>,
}

#[derive(Debug, Default)]
pub(crate) struct Places {
    domains: Vec<Domain>,
    domain_index: HashMap<Domain, DomainId>,
    places: Vec<Place>,
    place_index: HashMap<([Sym; 3], Box<[Sym]>), PlaceId>,
}

impl Places {
    pub(crate) fn intern(
        &mut self,
        site: &str,
        room: &str,
        rack: &str,
        power: &[String],
        interner: &mut Interner,
    ) -> PlaceId {
        let [site, room, rack] = [site, room, rack].map(|text| interner.intern(text.trim()));
        // By name, not by number: which feed is named first must not depend on the order of facts.
        let mut feeds: Vec<&str> = power.iter().map(|feed| feed.trim()).collect();
        feeds.retain(|feed| !feed.is_empty());
        feeds.sort_unstable();
        feeds.dedup();
        let feeds: Box<[Sym]> = feeds.into_iter().map(|feed| interner.intern(feed)).collect();
        let key = ([site, room, rack], feeds);
        if let Some(&place) = self.place_index.get(&key) {
            return place;
        }
        let mut feeds: Vec<DomainId> = Vec::with_capacity(key.1.len().max(1));
        for &feed in &key.1 {
            feeds.push(self.domain(FailureDomain::Power, site, Sym::EMPTY, feed));
        }
        if feeds.is_empty() {
            feeds.push(self.domain(FailureDomain::Power, site, Sym::EMPTY, Sym::EMPTY));
        }
        let domains = Place {
            rack: self.domain(FailureDomain::Rack, site, room, rack),
            room: self.domain(FailureDomain::Room, site, room, Sym::EMPTY),
            site: self.domain(FailureDomain::Site, site, Sym::EMPTY, Sym::EMPTY),
            feeds: feeds.into_boxed_slice(),
        };
        let place = PlaceId(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        self.places.push(domains);
        self.place_index.insert(key, place);
        place
    }

    fn domain(&mut self, kind: FailureDomain, site: Sym, room: Sym, rack: Sym) -> DomainId {
        let mut domain = Domain {
            kind,
            site,
            room,
            rack,
        };
        if domain.is_missing() {
            // Devices without the label may stand together for all that is known: they share one domain, wherever
            // their other labels put them.
            domain = Domain {
                kind,
                site: Sym::EMPTY,
                room: Sym::EMPTY,
                rack: Sym::EMPTY,
            };
        }
        let next = DomainId(u32::try_from(self.domains.len()).unwrap_or(u32::MAX));
        let id = *self.domain_index.entry(domain).or_insert(next);
        if id == next {
            self.domains.push(domain);
        }
        id
    }

    /// The domains of a place, of one kind: one, or as many as it has power feeds.
    pub(crate) fn domains_of(&self, place: PlaceId, kind: FailureDomain) -> &[DomainId] {
        let Some(place) = self.places.get(place.0 as usize) else {
            return &[];
        };
        match kind {
            FailureDomain::Rack => std::slice::from_ref(&place.rack),
            FailureDomain::Room => std::slice::from_ref(&place.room),
            FailureDomain::Site => std::slice::from_ref(&place.site),
            FailureDomain::Power => &place.feeds,
        }
    }

    /// The rack of a place.
    pub(crate) fn rack_of(&self, place: PlaceId) -> DomainId {
        self.places
            .get(place.0 as usize)
            .map_or(DomainId::default(), |place| place.rack)
    }

    /// Whether it is the shared domain of devices that do not say where they stand.
    pub(crate) fn is_missing(&self, domain: DomainId) -> bool {
        self.domains.get(domain.index()).is_none_or(Domain::is_missing)
    }

    /// Whether it is the shared domain of devices that do not say in which room they stand.
    pub(super) fn is_no_room(&self, domain: DomainId) -> bool {
        let domain = self.domains.get(domain.index());
        domain.is_some_and(|domain| domain.kind == FailureDomain::Room && domain.is_missing())
    }

    pub(super) fn room_name<'a>(&self, place: PlaceId, interner: &'a Interner) -> &'a str {
        let room = self.places.get(place.0 as usize).map(|place| place.room);
        let domain = room.and_then(|room| self.domains.get(room.index()));
        domain.map_or("", |domain| interner.text(domain.room))
    }

    /// Of some domains, the first that a place is in: its room before its site.
    pub(crate) fn first_of(&self, domains: &[DomainId], place: PlaceId) -> Option<DomainId> {
        let place = self
            .places
            .get(place.0 as usize)
            .filter(|_| !domains.is_empty())?;
        [place.room, place.site]
            .into_iter()
            .find(|domain| domains.contains(domain))
    }

    pub(crate) fn name<'a>(&'a self, id: DomainId, interner: &'a Interner) -> DomainName<'a> {
        DomainName {
            domain: self.domains.get(id.index()),
            interner,
        }
    }
}

/// A failure domain for people: `rack tokyo-1/b/b07`.
#[derive(Clone, Copy, Debug)]
pub struct DomainName<'a> {
    domain: Option<&'a Domain>,
    interner: &'a Interner,
}

impl fmt::Display for DomainName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(domain) = self.domain else {
            return f.write_str("an unknown place");
        };
        let kind = domain.kind.as_str();
        if domain.is_missing() {
            return write!(f, "the place of the devices without a {kind}");
        }
        write!(f, "{kind} ")?;
        let parts = [domain.site, domain.room, domain.rack];
        let mut first = true;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            if !first {
                f.write_str("/")?;
            }
            first = false;
            f.write_str(self.interner.text(part))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rack_name_in_two_rooms_is_two_domains_and_no_rack_is_one() {
        let mut interner = Interner::default();
        let mut places = Places::default();
        let feeds = ["pdu-a".to_owned(), "pdu-b".to_owned()];
        let a = places.intern("tokyo-1", "a", "b07", &[], &mut interner);
        let b = places.intern("tokyo-1", "b", "b07", &feeds, &mut interner);
        let none_a = places.intern("tokyo-1", "a", "", &feeds[..1], &mut interner);
        let none_b = places.intern("osaka-1", "", "", &[], &mut interner);
        let rack = |place| places.rack_of(place);
        assert_ne!(rack(a), rack(b));
        assert_eq!(rack(none_a), rack(none_b));
        assert!(places.is_missing(rack(none_a)) && !places.is_missing(rack(a)));
        assert_eq!(
            places.domains_of(a, FailureDomain::Site),
            places.domains_of(b, FailureDomain::Site)
        );
        assert_ne!(
            places.domains_of(a, FailureDomain::Room),
            places.domains_of(b, FailureDomain::Room)
        );
        assert_eq!(places.name(rack(b), &interner).to_string(), "rack tokyo-1/b/b07");
        // Two feeds are two domains; one of them is the other device's, too.
        let feeds = |place| places.domains_of(place, FailureDomain::Power).to_vec();
        assert_eq!((feeds(b).len(), feeds(none_a).len()), (2, 1));
        assert!(feeds(b).contains(&feeds(none_a)[0]));
        assert_eq!(feeds(a), feeds(none_b), "no feed is one domain together");
        assert!(places.is_missing(feeds(a)[0]));
        assert_eq!(
            places.name(feeds(none_a)[0], &interner).to_string(),
            "power feed tokyo-1/pdu-a"
        );
    }
}
