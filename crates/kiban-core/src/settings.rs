//! Settings of a machine's BIOS and BMC: what is wanted against what its own attribute registry allows.
//!
//! ```text
//!   wanted (baseline) ─┐
//!   current (machine) ─┼──▶ Registry::judge ──▶ Judgement ─┬─ problems: unknown, read-only, out of bounds, blocked, in conflict
//!   registry (machine)─┘                                   └─ Change: ready now · later, after a reset · what changes with it
//!   wanted, current ──▶ differences: what is not (or no longer) as it should be
//! ```
//!
//! A registry (DSP0268 AttributeRegistry) belongs to one firmware version of one machine, and whether an attribute may be
//! written can depend on the value of others. So: read it again after every reset and every firmware change, judge, send
//! [`Change::ready`], reset, read again, until nothing differs. What is judged here is what a BMC would say anyway, only
//! before anything moves and with the allowed values named; the BMC's own refusal remains the last word.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The most values that a message lists.
const LISTED: usize = 16;

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The host's firmware. Takes effect at the host's next start.
    Bios,
    /// The BMC itself. Takes effect at once on the BMCs known to offer it.
    Bmc,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Bmc => "BMC",
        })
    }
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A Boolean attribute's.
    Flag(bool),
    /// An Integer attribute's.
    Number(i64),
    /// A String's or an Enumeration's.
    Text(String),
}

impl Value {
    /// Whether both mean the same. Registries and machines do not agree on types: `0` for `"0"`, `"true"` for `true`.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Flag(a), Self::Flag(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Flag(flag), other) | (other, Self::Flag(flag)) => other.as_flag() == Some(*flag),
            (Self::Number(number), Self::Text(text)) | (Self::Text(text), Self::Number(number)) => {
                text.trim().parse() == Ok(*number)
            }
        }
    }

    fn as_flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Number(0) => Some(false),
            Self::Number(1) => Some(true),
            Self::Number(_) => None,
            Self::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Self::Text(_) => None,
        }
    }

    fn as_number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Flag(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Settings by attribute name.
pub type Values = BTreeMap<String, Value>;

/// What one machine's firmware says that its attributes may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Its name, for example `BiosAttributeRegistryA42.v1_2_60`. Changes with the firmware.
    pub id: String,
    /// The attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
    /// How attributes depend on others.
    pub dependencies: Vec<Dependency>,
}

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// What it may be.
    pub kind: Kind,
    /// Not writable.
    pub read_only: bool,
    /// Not readable: a password, in effect.
    pub write_only: bool,
    /// Shown, but not to be changed now.
    pub gray_out: bool,
    /// Not shown: it has no meaning on this machine or in this state.
    pub hidden: bool,
    /// Never changes, whatever is done.
    pub immutable: bool,
    /// Whether a change needs a reset. None: the registry does not say.
    pub reset_required: Option<bool>,
}

impl Attribute {
    /// A writable attribute of a kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            read_only: false,
            write_only: false,
            gray_out: false,
            hidden: false,
            immutable: false,
            reset_required: None,
        }
    }

    fn flag(&self, property: Property) -> bool {
        match property {
            Property::ReadOnly => self.read_only || self.immutable,
            Property::GrayOut => self.gray_out,
            Property::Hidden => self.hidden,
            Property::CurrentValue => false,
        }
    }
}

/// What an attribute may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these.
    Choice(Vec<Choice>),
    /// A whole number.
    Number {
        /// The least.
        low: Option<i64>,
        /// The greatest.
        high: Option<i64>,
        /// The step from the least, where it is more than 1.
        step: Option<i64>,
    },
    /// A text.
    Text {
        /// The fewest characters.
        min: Option<u64>,
        /// The most characters.
        max: Option<u64>,
    },
    /// True or false.
    Flag,
    /// A password: never read, never set by Kiban.
    Password,
    /// A type that the standard does not have: whatever is of the current value's type is let through.
    Other,
}

/// One value of an enumeration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `ValueName`.
    pub name: String,
    /// `ValueDisplayName`. Supermicro's attributes hold these instead of the names.
    pub display: Option<String>,
}

impl Choice {
    /// A value whose name is also what is shown.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            display: None,
        }
    }
}

/// `If these, then that property of that attribute becomes so` (DSP0268 Dependencies, type Map).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The conditions, in the registry's order.
    pub conditions: Vec<Condition>,
    /// `MapToAttribute`.
    pub attribute: String,
    /// `MapToProperty`.
    pub property: Property,
    /// `MapToValue`.
    pub value: Value,
}

/// A condition on another attribute's current value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `MapFromAttribute`.
    pub attribute: String,
    /// `MapFromCondition`.
    pub test: Test,
    /// `MapFromValue`.
    pub value: Value,
    /// How it joins the one before it; nothing for the first. Where a registry has no `MapTerms` it is [`Join::Or`]: Dell's
    /// lists the values of one attribute that way.
    pub join: Join,
}

/// How conditions join, from left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Join {
    /// Both.
    And,
    /// Either.
    #[default]
    Or,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// `EQU`
    Equal,
    /// `NEQ`
    Different,
    /// `GTR`
    Greater,
    /// `GEQ`
    AtLeast,
    /// `LSS`
    Less,
    /// `LEQ`
    AtMost,
}

impl Test {
    /// The word of the standard.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "EQU" => Self::Equal,
            "NEQ" => Self::Different,
            "GTR" => Self::Greater,
            "GEQ" => Self::AtLeast,
            "LSS" => Self::Less,
            "LEQ" => Self::AtMost,
            _ => return None,
        })
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Different => "≠",
            Self::Greater => ">",
            Self::AtLeast => "≥",
            Self::Less => "<",
            Self::AtMost => "≤",
        }
    }
}

/// What of an attribute a dependency sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Property {
    /// Its value.
    CurrentValue,
    /// Whether it cannot be written.
    ReadOnly,
    /// Whether it is grayed out.
    GrayOut,
    /// Whether it is hidden.
    Hidden,
}

impl Property {
    const BLOCKING: [Self; 3] = [Self::ReadOnly, Self::Hidden, Self::GrayOut];

    /// The word of the standard; others (bounds, display names) do not decide whether a value is allowed.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "CurrentValue" => Self::CurrentValue,
            "ReadOnly" => Self::ReadOnly,
            "GrayOut" => Self::GrayOut,
            "Hidden" => Self::Hidden,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::CurrentValue => "set",
            Self::ReadOnly => "read-only",
            Self::GrayOut => "grayed out",
            Self::Hidden => "hidden",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.attribute, self.test.sign(), self.value)
    }
}

/// Why a wanted setting cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Problem {
    /// The registry has no such attribute.
    #[error("there is no attribute {attribute}{}", near(close))]
    Unknown {
        /// The name.
        attribute: String,
        /// The same name in another case, where there is one.
        close: Option<String>,
    },
    /// The registry has it, this machine does not.
    #[error("attribute {attribute} does not exist on this machine in its present configuration")]
    Absent {
        /// The name.
        attribute: String,
    },
    /// A password or the like.
    #[error("attribute {attribute} holds a secret, which is no setting to keep in Git")]
    Secret {
        /// The name.
        attribute: String,
    },
    /// Never writable.
    #[error("attribute {attribute} is read-only (now {})", shown(current))]
    ReadOnly {
        /// The name.
        attribute: String,
        /// What it is.
        current: Option<Value>,
    },
    /// Not a value of it.
    #[error("attribute {attribute} cannot be {wanted}; allowed: {allowed}")]
    NotAllowed {
        /// The name.
        attribute: String,
        /// What was wanted.
        wanted: Value,
        /// What may be, in words: `"Enabled", "Disabled"` or `60 to 600 in steps of 10`.
        allowed: String,
    },
    /// Not writable while others are as they are (or are wanted to be).
    #[error("attribute {attribute} cannot be set to {wanted}: it is {} {}", how.word(), because(causes))]
    Blocked {
        /// The name.
        attribute: String,
        /// What was wanted.
        wanted: Value,
        /// In which way.
        how: Property,
        /// The conditions that make it so, in words; empty where the registry names none.
        causes: Vec<String>,
    },
    /// Another wanted setting sets it to something else.
    #[error("attribute {attribute} cannot be {wanted}: {cause} makes it {forced}")]
    Conflict {
        /// The name.
        attribute: String,
        /// What was wanted.
        wanted: Value,
        /// What it would become.
        forced: Value,
        /// The condition that forces it.
        cause: String,
    },
}

fn near(close: &Option<String>) -> String {
    close
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

fn shown(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or_else(|| "without a value".to_owned(), ToString::to_string)
}

fn because(causes: &[String]) -> String {
    if causes.is_empty() {
        "in the machine's present state".to_owned()
    } else {
        format!("while {}", causes.join(" or "))
    }
}

impl Problem {
    /// The attribute.
    #[must_use]
    pub fn attribute(&self) -> &str {
        match self {
            Self::Unknown { attribute, .. }
            | Self::Absent { attribute }
            | Self::Secret { attribute }
            | Self::ReadOnly { attribute, .. }
            | Self::NotAllowed { attribute, .. }
            | Self::Blocked { attribute, .. }
            | Self::Conflict { attribute, .. } => attribute,
        }
    }

    /// The kind, as a stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "UnknownSetting",
            Self::Absent { .. } => "AbsentSetting",
            Self::Secret { .. } => "SecretSetting",
            Self::ReadOnly { .. } => "ReadOnlySetting",
            Self::NotAllowed { .. } => "SettingNotAllowed",
            Self::Blocked { .. } => "SettingBlocked",
            Self::Conflict { .. } => "SettingConflict",
        }
    }
}

/// What has to be done to bring a machine to the wanted settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Can be sent now, in the spelling of the machine's registry. Empty: nothing differs.
    pub ready: Values,
    /// Differs as well, but can be written only once `ready` is in force: after the reset, read and judge again.
    pub later: Values,
    /// What nobody asked for and the registry says will change with it.
    pub also: Values,
    /// Whether `ready` takes effect only with a reset of the host.
    pub reset: bool,
}

impl Change {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty()
    }
}

/// What [`Registry::judge`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// What to do, of what is allowed. With problems, nothing should be sent.
    pub change: Change,
    /// What cannot be, by attribute.
    pub problems: Vec<Problem>,
}

/// What a BMC holds of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// What is in force. Secrets are left out.
    pub current: Values,
    /// What waits for a reset, where it differs from what is in force. BMCs that list everything as pending are compared.
    pub pending: Values,
    /// The registry that they are of; empty where the BMC names none.
    pub registry: String,
}

/// What applying settings did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// What the BMC took, as it was sent. Empty: nothing differed, or all of it was pending already.
    pub sent: Values,
    /// What is to be sent after the next reset, because it cannot be written before. Then read, and apply again.
    pub left: Vec<String>,
    /// Whether a reset of the host is needed for what was sent (or was pending already) to take effect.
    pub reset: bool,
}

/// One setting that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The attribute.
    pub attribute: String,
    /// What it should be.
    pub wanted: Value,
    /// What it is; None where the machine has no such attribute (any more).
    pub found: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{} is {found}, should be {}", self.attribute, self.wanted),
            None => write!(f, "{} is missing, should be {}", self.attribute, self.wanted),
        }
    }
}

/// What is not as wanted, in the order of the names.
#[must_use]
pub fn differences(wanted: &Values, current: &Values) -> Vec<Difference> {
    wanted
        .iter()
        .filter(|(name, value)| !current.get(*name).is_some_and(|found| found.is(value)))
        .map(|(name, value)| Difference {
            attribute: name.clone(),
            wanted: value.clone(),
            found: current.get(name).cloned(),
        })
        .collect()
}

/// Whether an attribute's name says that it holds a password, key or community string. Such are neither read nor set.
#[must_use]
pub fn names_secret(attribute: &str) -> bool {
    const ENDS: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "passwordsalt",
        "secret",
        "encryptionkey",
        "privatekey",
        "v3key",
        "communityname",
        "agentcommunity",
    ];
    // Supermicro's names end in a question id: `ClientPassword_294A`.
    let name = match attribute.rsplit_once('_') {
        Some((name, id)) if id.len() == 4 && id.chars().all(|c| c.is_ascii_hexdigit()) => name,
        _ => attribute,
    };
    let name = name.to_ascii_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
}

impl Registry {
    /// A registry made of what is there, for machines that show none: names are known, values are of the type they have now.
    #[must_use]
    pub fn of_values(current: &Values) -> Self {
        let attributes = current
            .keys()
            .map(|name| (name.clone(), Attribute::new(Kind::Other)))
            .collect();
        Self {
            attributes,
            ..Self::default()
        }
    }

    /// Whether an attribute holds a secret, by its type or its name.
    #[must_use]
    pub fn is_secret(&self, name: &str) -> bool {
        names_secret(name)
            || self
                .attributes
                .get(name)
                .is_some_and(|a| a.write_only || a.kind == Kind::Password)
    }

    /// Compares what is wanted with what is, and says what can be sent now, what only after a reset, and what never.
    #[must_use]
    pub fn judge(&self, scope: Scope, current: &Values, wanted: &Values) -> Judgement {
        let mut problems = Vec::new();
        let mut changed = Values::new();
        for (name, value) in wanted {
            match self.check(name, value, current) {
                Ok(value) if current.get(name).is_some_and(|now| now.is(&value)) => {}
                Ok(value) => drop(changed.insert(name.clone(), value)),
                Err(problem) => problems.push(problem),
            }
        }
        let mut result = current.clone();
        result.extend(changed.clone());
        let index = self.index();

        let mut change = Change::default();
        for (name, value) in &changed {
            if let Some(how) = self.blocked(&index, name, current, &result) {
                let causes = self.causes(&index, name, how, &result);
                problems.push(Problem::Blocked {
                    attribute: name.clone(),
                    wanted: value.clone(),
                    how,
                    causes,
                });
            } else if self.blocked(&index, name, current, current).is_some() {
                change.later.insert(name.clone(), value.clone());
            } else {
                change.ready.insert(name.clone(), value.clone());
            }
        }
        // Each waits for the other: the BMC is asked about all of them together.
        if change.ready.is_empty() {
            change.ready = std::mem::take(&mut change.later);
        }
        self.follow_up(current, wanted, &changed, &result, &mut change, &mut problems);
        let needs = |name: &String| {
            let said = self.attributes.get(name).and_then(|a| a.reset_required);
            said.unwrap_or(scope == Scope::Bios)
        };
        change.reset = change.ready.keys().any(needs);
        problems.sort_by(|a, b| a.attribute().cmp(b.attribute()));
        Judgement { change, problems }
    }

    /// The value in the machine's spelling, or why it cannot be.
    fn check(&self, name: &str, wanted: &Value, current: &Values) -> Result<Value, Problem> {
        let attribute = name.to_owned();
        if self.is_secret(name) {
            return Err(Problem::Secret { attribute });
        }
        let now = current.get(name);
        let Some(entry) = self.attributes.get(name) else {
            // In force, though the registry is silent: the machine is right.
            if let Some(now) = now {
                return like(now, wanted).ok_or_else(|| not_allowed(name, wanted, kind_of(now)));
            }
            let close = self
                .attributes
                .keys()
                .chain(current.keys())
                .find(|known| known.eq_ignore_ascii_case(name))
                .cloned();
            return Err(Problem::Unknown { attribute, close });
        };
        let value = match &entry.kind {
            Kind::Choice(choices) => choose(choices, wanted, now),
            Kind::Number { low, high, step } => wanted
                .as_number()
                .filter(|number| {
                    low.is_none_or(|low| *number >= low)
                        && high.is_none_or(|high| *number <= high)
                        && step.is_none_or(|step| on_step(*number, low.unwrap_or(0), step))
                })
                .map(Value::Number),
            Kind::Text { min, max } => match wanted {
                Value::Text(text) => {
                    let length = text.chars().count() as u64;
                    (min.is_none_or(|min| length >= min) && max.is_none_or(|max| length <= max))
                        .then(|| wanted.clone())
                }
                // A number may have lost zeros on its way through YAML; a flag may have been a word.
                _ => None,
            },
            Kind::Flag => wanted.as_flag().map(Value::Flag),
            Kind::Password => None,
            Kind::Other => now.map_or_else(|| Some(wanted.clone()), |now| like(now, wanted)),
        };
        let Some(value) = value else {
            return Err(not_allowed(name, wanted, entry.kind.allowed(now)));
        };
        match now {
            Some(now) if now.is(&value) => Ok(value),
            // Dell's registry has half as many attributes again as any one machine.
            None if !current.is_empty() => Err(Problem::Absent { attribute }),
            _ if entry.immutable || entry.read_only && !self.depends(name, Property::ReadOnly) => {
                Err(Problem::ReadOnly {
                    attribute,
                    current: now.cloned(),
                })
            }
            _ => Ok(value),
        }
    }

    fn depends(&self, name: &str, property: Property) -> bool {
        self.dependencies
            .iter()
            .any(|d| d.attribute == name && d.property == property)
    }

    fn index(&self) -> BTreeMap<&str, Vec<&Dependency>> {
        let mut index: BTreeMap<&str, Vec<&Dependency>> = BTreeMap::new();
        for dependency in &self.dependencies {
            index.entry(&dependency.attribute).or_default().push(dependency);
        }
        index
    }

    /// In which way an attribute cannot be written in a state. Registries print flags as they are in the `present` state, so
    /// a flag that a dependency explains there says nothing about another state.
    fn blocked(
        &self,
        index: &BTreeMap<&str, Vec<&Dependency>>,
        name: &str,
        present: &Values,
        state: &Values,
    ) -> Option<Property> {
        let printed = self.attributes.get(name);
        let rules = index.get(name).map_or(&[][..], Vec::as_slice);
        Property::BLOCKING.into_iter().find(|property| {
            let says = |values: &Values, wanted: bool| {
                rules.iter().any(|rule| {
                    rule.property == *property
                        && rule.value.as_flag() == Some(wanted)
                        && rule.holds(values) == Some(true)
                })
            };
            if says(state, true) {
                return true;
            }
            if says(state, false) {
                return false;
            }
            let printed = printed.is_some_and(|attribute| attribute.flag(*property));
            printed && !says(present, true)
        })
    }

    fn causes(
        &self,
        index: &BTreeMap<&str, Vec<&Dependency>>,
        name: &str,
        how: Property,
        state: &Values,
    ) -> Vec<String> {
        let rules = index.get(name).map_or(&[][..], Vec::as_slice);
        rules
            .iter()
            .filter(|rule| rule.property == how && rule.value.as_flag() == Some(true))
            .filter(|rule| rule.holds(state) == Some(true))
            .take(4)
            .map(|rule| rule.words(state))
            .collect()
    }

    /// What the change sets off: values that others force. Wanted otherwise, that is a conflict; not wanted, worth saying.
    fn follow_up(
        &self,
        current: &Values,
        wanted: &Values,
        changed: &Values,
        result: &Values,
        change: &mut Change,
        problems: &mut Vec<Problem>,
    ) {
        for rule in &self.dependencies {
            if rule.property != Property::CurrentValue || rule.holds(result) != Some(true) {
                continue;
            }
            let held = rule.holds(current) == Some(true);
            let name = &rule.attribute;
            match result.get(name) {
                Some(value) if !value.is(&rule.value) => {
                    let ours = changed.contains_key(name) || wanted.contains_key(name) && !held;
                    // Two rules may force different values; the first one is said.
                    if ours && !problems.iter().any(|p| p.attribute() == name) {
                        problems.push(Problem::Conflict {
                            attribute: name.clone(),
                            wanted: value.clone(),
                            forced: rule.value.clone(),
                            cause: rule.words(result),
                        });
                    } else if !ours && !held {
                        change.also.insert(name.clone(), rule.value.clone());
                    }
                }
                _ => {}
            }
        }
    }
}

impl Dependency {
    /// Whether its conditions hold. None: that depends on an attribute that the machine does not show.
    fn holds(&self, state: &Values) -> Option<bool> {
        let mut conditions = self.conditions.iter();
        let mut held = conditions.next()?.holds(state);
        for condition in conditions {
            let next = condition.holds(state);
            held = match (condition.join, held, next) {
                (Join::Or, Some(true), _) | (Join::Or, _, Some(true)) => Some(true),
                (Join::And, Some(false), _) | (Join::And, _, Some(false)) => Some(false),
                (Join::Or, Some(false), Some(false)) => Some(false),
                (Join::And, Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        held
    }

    /// The conditions that hold, in words.
    fn words(&self, state: &Values) -> String {
        let all_or = self.conditions.iter().skip(1).all(|c| c.join == Join::Or);
        let mut words = String::new();
        for condition in self
            .conditions
            .iter()
            .filter(|c| !all_or || c.holds(state) == Some(true))
        {
            if !words.is_empty() {
                words.push_str(if condition.join == Join::And {
                    " and "
                } else {
                    " or "
                });
            }
            words.push_str(&condition.to_string());
        }
        words
    }
}

impl Condition {
    fn holds(&self, state: &Values) -> Option<bool> {
        let have = state.get(&self.attribute)?;
        let numbers = || Some((have.as_number()?, self.value.as_number()?));
        match self.test {
            Test::Equal => Some(have.is(&self.value)),
            Test::Different => Some(!have.is(&self.value)),
            Test::Greater => numbers().map(|(a, b)| a > b),
            Test::AtLeast => numbers().map(|(a, b)| a >= b),
            Test::Less => numbers().map(|(a, b)| a < b),
            Test::AtMost => numbers().map(|(a, b)| a <= b),
        }
    }
}

impl Kind {
    /// What may be, in words.
    fn allowed(&self, now: Option<&Value>) -> String {
        match self {
            Self::Choice(choices) => {
                let by_display = speaks_display(choices, now);
                let mut words: Vec<String> = choices
                    .iter()
                    .take(LISTED)
                    .map(|choice| format!("{:?}", choice.spelled(by_display)))
                    .collect();
                if choices.len() > LISTED {
                    words.push(format!("{} more", choices.len() - LISTED));
                }
                words.join(", ")
            }
            Self::Number { low, high, step } => {
                let mut words = match (low, high) {
                    (Some(low), Some(high)) => format!("{low} to {high}"),
                    (Some(low), None) => format!("{low} or more"),
                    (None, Some(high)) => format!("{high} or less"),
                    (None, None) => "a whole number".to_owned(),
                };
                if let Some(step) = step.filter(|step| *step > 1) {
                    words.push_str(&format!(" in steps of {step}"));
                }
                words
            }
            Self::Text { min, max } => match (min.filter(|min| *min > 0), max) {
                (Some(min), Some(max)) => format!("a text of {min} to {max} characters"),
                (None, Some(max)) => format!("a text of at most {max} characters"),
                (Some(min), None) => format!("a text of at least {min} characters"),
                (None, None) => "a text (in quotes)".to_owned(),
            },
            Self::Flag => "true or false".to_owned(),
            Self::Password => "nothing that belongs in Git".to_owned(),
            Self::Other => now.map_or_else(|| "anything".to_owned(), kind_of),
        }
    }
}

impl Choice {
    fn spelled(&self, by_display: bool) -> &str {
        match &self.display {
            Some(display) if by_display => display,
            _ => &self.name,
        }
    }
}

/// Whether an attribute's values are written as their display names.
fn speaks_display(choices: &[Choice], now: Option<&Value>) -> bool {
    let Some(now) = now else { return false };
    !choices.iter().any(|c| now.is(&Value::Text(c.name.clone())))
        && choices.iter().any(|c| {
            c.display
                .as_ref()
                .is_some_and(|d| now.is(&Value::Text(d.clone())))
        })
}

/// The choice that is meant. Only the spelling that the machine itself uses is taken, so that what is wanted and what is read
/// can be compared without the registry.
fn choose(choices: &[Choice], wanted: &Value, now: Option<&Value>) -> Option<Value> {
    let by_display = speaks_display(choices, now);
    let spelled = choices.iter().map(|choice| choice.spelled(by_display));
    spelled
        .map(|text| Value::Text(text.to_owned()))
        .find(|choice| choice.is(wanted))
}

fn on_step(number: i64, low: i64, step: i64) -> bool {
    step <= 1
        || number
            .checked_sub(low)
            .is_some_and(|distance| distance % step == 0)
}

/// The value as one of the other's type.
fn like(now: &Value, wanted: &Value) -> Option<Value> {
    match now {
        Value::Flag(_) => wanted.as_flag().map(Value::Flag),
        Value::Number(_) => wanted.as_number().map(Value::Number),
        Value::Text(_) => matches!(wanted, Value::Text(_)).then(|| wanted.clone()),
    }
}

fn kind_of(now: &Value) -> String {
    match now {
        Value::Flag(_) => "true or false".to_owned(),
        Value::Number(_) => "a whole number".to_owned(),
        Value::Text(_) => "a text (in quotes)".to_owned(),
    }
}

fn not_allowed(name: &str, wanted: &Value, allowed: String) -> Problem {
    Problem::NotAllowed {
        attribute: name.to_owned(),
        wanted: wanted.clone(),
        allowed,
    }
}

#[cfg(test)]
mod tests;
