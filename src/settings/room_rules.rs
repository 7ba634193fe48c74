//! Settings of some rooms: rules for the rooms of a pattern, and what they make of a room.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::declare::{Amount, Setting, Unit, groups};
use super::limits::{HistoryLimits, HubLimits};
use crate::error::Error;
use crate::id::RoomName;
use crate::rights::RoomPattern;

/// Most rules. A room that is opened is compared with each of them.
const RULES_MAX: usize = 256;

/// The longest time that slow mode can ask for.
const SLOW_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// How a rule is written.
const EXAMPLE: &str = "news-*:say=api,history=500";

/// Settings for the rooms of a pattern. What a rule does not set is as in rooms without a rule.
///
/// It is read from `news-*:say=api,history=500`. Of several rules that match a room, the one with the longest pattern counts, and
/// no other; a whole name is longer than a beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomRule {
    /// The rooms.
    pub rooms: RoomPattern,
    /// In place of [`HistoryLimits::messages_max`](crate::settings::HistoryLimits::messages_max): `history`.
    pub history_messages: Option<u32>,
    /// In place of [`HistoryLimits::age_max`](crate::settings::HistoryLimits::age_max): `history-age`.
    pub history_age: Option<Duration>,
    /// In place of [`HubLimits::users_listed_max`](crate::settings::HubLimits::users_listed_max): `big-room`.
    pub users_listed_max: Option<u32>,
    /// Least time between two messages of a user in the room, over all its connections on a node: `slow`.
    pub slow: Option<Duration>,
    /// Who may say something: `say`.
    pub speakers: Option<Speakers>,
}

/// Who may send messages and signals to a room. The HTTP API and the host always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speakers {
    /// All users whose grants, or the default ones, allow it: `all`.
    #[default]
    All,
    /// Users whose identity brings grants of its own that allow it; the default ones are not enough: `granted`.
    Granted,
    /// No user: `api`.
    Api,
}

impl Speakers {
    /// What `say` may be.
    const WORDS: [(&str, Self); 3] = [("all", Self::All), ("granted", Self::Granted), ("api", Self::Api)];
    const ALLOWED: &str = "`all`, `granted`, `api`";
    const DOC: &str = "Who may send messages and signals: `all` users who may by their grants, only users with `granted` rights of \
                       their own, or only the `api` and an embedding host. Others get `forbidden`.";
}

impl Speakers {
    /// How it is written.
    pub(crate) fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, speakers)| *speakers == self).map_or("", |(word, _)| word)
    }
}

impl FromStr for Speakers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, speakers)| *speakers);
        found.ok_or_else(|| format!("say is {text:?}; {} are allowed", Self::ALLOWED.replace('`', "")))
    }
}

impl RoomRule {
    /// A rule that sets nothing yet.
    pub fn new(rooms: RoomPattern) -> Self {
        Self { rooms, history_messages: None, history_age: None, users_listed_max: None, slow: None, speakers: None }
    }

    /// The settings with a number for a value. What replaces a setting of all rooms has its bounds.
    fn numbers() -> Vec<Setting<Self>> {
        let replaced = [HistoryLimits::settings(), HubLimits::settings()].concat();
        let of = |replaced: &Setting<AllRooms>| match replaced.flag? {
            "history-messages" => Some(Setting {
                flag: Some("history"),
                doc: "In place of `--history-messages`. A `join` that asks for more gets what there is.",
                get: |rule: &Self| rule.history_messages.unwrap_or_default().to_amount(),
                set: |rule: &mut Self, amount| rule.history_messages = Some(u32::from_amount(amount)),
                ..Self::number(replaced)
            }),
            "history-age" => Some(Setting {
                doc: "In place of `--history-age`.",
                get: |rule: &Self| rule.history_age.unwrap_or_default().to_amount(),
                set: |rule: &mut Self, amount| rule.history_age = Some(Duration::from_amount(amount)),
                ..Self::number(replaced)
            }),
            "big-room" => Some(Setting {
                doc: "In place of `--big-room`: with more users than this the room counts them.",
                get: |rule: &Self| rule.users_listed_max.unwrap_or(1).to_amount(),
                set: |rule: &mut Self, amount| rule.users_listed_max = Some(u32::from_amount(amount)),
                ..Self::number(replaced)
            }),
            _ => None,
        };
        let mut numbers: Vec<_> = replaced.iter().filter_map(of).collect();
        numbers.push(Setting {
            group: "room_rules",
            field: "slow",
            flag: Some("slow"),
            doc: "Slow mode: least time between two messages of a user, over all its connections on a node; sooner ones are \
                  answered `rate_limited`. The API and a host are exempt.",
            heading: "",
            unit: Unit::Time,
            default: 0,
            min: 0,
            max: SLOW_MAX.to_amount(),
            get: |rule: &Self| rule.slow.unwrap_or_default().to_amount(),
            set: |rule: &mut Self, amount| rule.slow = Some(Duration::from_amount(amount)),
        });
        numbers
    }

    /// A number with the bounds of a setting of all rooms, which neither reads nor sets anything yet.
    fn number(replaced: &Setting<AllRooms>) -> Setting<Self> {
        let Setting { field, flag, doc, heading, unit, default, min, max, .. } = *replaced;
        Setting { group: "room_rules", field, flag, doc, heading, unit, default, min, max, get: |_| 0, set: |_, _| {} }
    }

    /// Name, allowed values and meaning of each setting, for the reference page.
    #[doc(hidden)]
    pub fn reference() -> Vec<[String; 3]> {
        let number = |setting: &Setting<Self>| [setting.name(), &setting.allowed(), setting.doc].map(str::to_owned);
        let mut rows: Vec<_> = Self::numbers().iter().map(number).collect();
        rows.push(["say", Speakers::ALLOWED, Speakers::DOC].map(str::to_owned));
        rows
    }

    /// Sets what is written as `name=value`.
    fn set(&mut self, setting: &str) -> Result<(), String> {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(format!("{setting:?} has no value; it is written name=value, as in {EXAMPLE}"));
        };
        if name == "say" {
            self.speakers = Some(value.parse()?);
            return Ok(());
        }
        let numbers = Self::numbers();
        let Some(number) = numbers.iter().find(|number| number.name() == name) else {
            let names: Vec<_> = numbers.iter().map(Setting::name).collect();
            return Err(format!("{name:?} is no setting of rooms; {} and say are", names.join(", ")));
        };
        let amount = read_amount(number, value)?;
        number.check(amount).map_err(|error| error.to_string())?;
        (number.set)(self, amount);
        Ok(())
    }

    /// Checks the bounds of a rule that a host has made.
    fn check(&self) -> Result<(), Error> {
        for number in Self::numbers() {
            let in_rule = |error| Error::Config(format!("room {}: {error}", self.rooms));
            number.check((number.get)(self)).map_err(in_rule)?;
        }
        Ok(())
    }
}

/// The settings of all rooms, some of which a rule replaces.
#[derive(Clone)]
struct AllRooms {
    history: HistoryLimits,
    hub: HubLimits,
}

groups! { AllRooms { history: HistoryLimits, hub: HubLimits } }

fn read_amount(number: &Setting<RoomRule>, value: &str) -> Result<u64, String> {
    let name = number.name();
    match number.unit {
        Unit::Count | Unit::Bytes => value
            .parse()
            .map_err(|_| format!("{name} is {value:?}; a whole number is needed, {} is allowed", number.allowed())),
        Unit::Time => humantime::parse_duration(value)
            .map(Amount::to_amount)
            .map_err(|error| format!("{name} is {value:?}: {error}; durations are written 30s, 500ms, 1h 30m")),
    }
}

impl FromStr for RoomRule {
    type Err = String;

    /// Reads a pattern, a colon, and settings with commas between them. The last colon counts: names may contain some.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((rooms, settings)) = text.rsplit_once(':').filter(|(_, settings)| !settings.is_empty()) else {
            return Err(format!("{text:?} sets nothing; a pattern and settings are needed, as in {EXAMPLE}"));
        };
        let rooms: RoomPattern = rooms.parse().map_err(|error| format!("{error}, and a * at the end"))?;
        let mut rule = Self::new(rooms);
        let mut names = Vec::new();
        for setting in settings.split(',') {
            let name = setting.split('=').next().unwrap_or_default();
            if names.contains(&name) {
                return Err(format!("{name} is set twice for {}; once is allowed", rule.rooms));
            }
            names.push(name);
            rule.set(setting)?;
        }
        Ok(rule)
    }
}

/// Checks all rules.
///
/// # Errors
/// [`Error::Config`] if there are too many, if two have one pattern, or for the first value that is out of its bounds.
pub(super) fn check(rules: &[RoomRule]) -> Result<(), Error> {
    if rules.len() > RULES_MAX {
        return Err(Error::Config(format!("there are {} rules for rooms; {RULES_MAX} are allowed", rules.len())));
    }
    for (index, rule) in rules.iter().enumerate() {
        rule.check()?;
        if rules[..index].iter().any(|other| other.rooms == rule.rooms) {
            return Err(Error::Config(format!("there are two rules for rooms {}; one is allowed", rule.rooms)));
        }
    }
    Ok(())
}

/// What holds for a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomLimits {
    pub(crate) history_messages: u32,
    pub(crate) history_age: Duration,
    pub(crate) users_listed_max: u32,
    /// Zero is no slow mode.
    pub(crate) slow: Duration,
    pub(crate) speakers: Speakers,
}

/// The number of the rule that a room has, or that it has none: two bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleIndex(u16);

/// What holds for rooms, by their rules. A room is compared with the patterns when it is opened.
#[derive(Clone)]
pub(crate) struct RoomLimitsTable {
    /// Longest first.
    patterns: Vec<RoomPattern>,
    /// Of rooms without a rule, and then by pattern.
    limits: Vec<RoomLimits>,
}

impl fmt::Debug for RoomLimitsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomLimitsTable").field("rules", &self.patterns.len()).finish_non_exhaustive()
    }
}

impl RoomLimitsTable {
    /// For checked rules, and the settings of rooms without one.
    pub(super) fn new(rules: &[RoomRule], history: &HistoryLimits, hub: &HubLimits) -> Self {
        let without_rule = RoomLimits {
            history_messages: history.messages_max,
            history_age: history.age_max,
            users_listed_max: hub.users_listed_max,
            slow: Duration::ZERO,
            speakers: Speakers::All,
        };
        let mut rules: Vec<&RoomRule> = rules.iter().collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.rooms.rank()));
        let by_rule = |rule: &&RoomRule| RoomLimits {
            history_messages: rule.history_messages.unwrap_or(without_rule.history_messages),
            history_age: rule.history_age.unwrap_or(without_rule.history_age),
            users_listed_max: rule.users_listed_max.unwrap_or(without_rule.users_listed_max),
            slow: rule.slow.unwrap_or_default(),
            speakers: rule.speakers.unwrap_or_default(),
        };
        let mut limits: Vec<_> = rules.iter().map(by_rule).collect();
        limits.insert(0, without_rule);
        Self { patterns: rules.into_iter().map(|rule| rule.rooms.clone()).collect(), limits }
    }

    /// The rule of a room: the matching one with the longest pattern.
    pub(crate) fn find(&self, room: &RoomName) -> RuleIndex {
        // Nodes depend on control messages as they are kept without rules.
        if self.patterns.is_empty() || room.is_control() {
            return RuleIndex::default();
        }
        let found = self.patterns.iter().position(|rooms| rooms.matches(room));
        RuleIndex(found.map_or(0, |index| index as u16 + 1))
    }

    /// What holds for the rooms of a rule.
    pub(crate) fn get(&self, rule: RuleIndex) -> &RoomLimits {
        &self.limits[usize::from(rule.0)]
    }

    /// The most messages that any room keeps.
    pub(crate) fn history_messages_most(&self) -> u32 {
        self.limits.iter().map(|limits| limits.history_messages).max().unwrap_or_default()
    }

    /// The longest time for which any room keeps messages.
    pub(crate) fn history_age_most(&self) -> Duration {
        self.limits.iter().map(|limits| limits.history_age).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Config;

    #[test]
    fn a_rule_is_read() {
        let rule = |text: &str| text.parse::<RoomRule>().unwrap();
        let mut expected = RoomRule::new("news-*".parse().unwrap());
        (expected.speakers, expected.history_messages) = (Some(Speakers::Api), Some(500));
        assert_eq!(rule("news-*:say=api,history=500"), expected);
        let mut expected = RoomRule::new("*".parse().unwrap());
        (expected.slow, expected.users_listed_max) = (Some(Duration::from_secs(90)), Some(3));
        expected.history_age = Some(Duration::ZERO);
        assert_eq!(rule("*:slow=1m 30s,big-room=3,history-age=0s"), expected);
        // Names may contain a colon, an equals sign, and what looks like a setting.
        assert_eq!(rule("a:say=all:say=granted").rooms.to_string(), "a:say=all");
        assert_eq!(rule("a:say=all:say=granted").speakers, Some(Speakers::Granted));
    }

    #[test]
    fn a_rule_that_is_not_understood_says_what_was_found_and_what_is_allowed() {
        for (bad, needle) in [
            ("", r#""" sets nothing; a pattern and settings are needed, as in news-*:say=api,history=500"#),
            ("lobby", "\"lobby\" sets nothing"),
            ("lobby:", "\"lobby:\" sets nothing"),
            (":say=api", "name is empty"),
            ("a b:say=api", "name contains ' '"),
            ("a*b:say=api", "name contains '*'"),
            ("lobby:say", "\"say\" has no value; it is written name=value"),
            ("lobby:say=api,", "\"\" has no value"),
            ("lobby:say=nobody", "say is \"nobody\"; all, granted, api are allowed"),
            ("lobby:Say=api", "\"Say\" is no setting of rooms; history, history-age, big-room, slow and say are"),
            ("lobby:history=many", "history is \"many\"; a whole number is needed, 0 to 10000000 is allowed"),
            ("lobby:history=-1", "history is \"-1\""),
            ("lobby:history=10000001", "history is 10000001; 0 to 10000000 are allowed"),
            ("lobby:history-age=32d", "history-age is 32d; 0s to 31d are allowed"),
            ("lobby:history-age=5", "history-age is \"5\": "),
            ("lobby:big-room=0", "big-room is 0; 1 to 200 are allowed"),
            ("lobby:big-room=201", "big-room is 201; 1 to 200 are allowed"),
            ("lobby:slow=7h", "slow is 7h; 0s to 6h are allowed"),
            ("lobby:slow=1s,slow=2s", "slow is set twice for lobby; once is allowed"),
        ] {
            let error = bad.parse::<RoomRule>().unwrap_err();
            assert!(error.contains(needle), "{bad}: {error}");
        }
    }

    fn config(rules: &[&str]) -> Config {
        Config { room_rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(), ..Config::default() }
    }

    #[test]
    fn the_longest_pattern_that_matches_counts_alone() {
        let rules = ["*:history=1", "team-*:history=2,slow=1s", "team-red*:history=3", "team-red:history=4"];
        let name = |room: &str| RoomName::new(room).unwrap();
        for turn in 0..rules.len() {
            let mut rules = rules;
            rules.rotate_left(turn);
            let table = config(&rules).room_limits();
            let messages = |room| table.get(table.find(&name(room))).history_messages;
            assert_eq!(["lobby", "team-", "team-redder", "team-red", "team-re"].map(messages), [1, 2, 3, 4, 2]);
            // What the longest one does not set is not taken from a shorter one.
            assert_eq!(table.get(table.find(&name("team-red"))).slow, Duration::ZERO);
            assert_eq!(table.get(table.find(&RoomName::control())).history_messages, 1000);
            assert_eq!(table.history_messages_most(), 1000);
        }
        let table = config(&["big-*:history=5000,history-age=2h"]).room_limits();
        assert_eq!((table.find(&name("lobby")), table.history_messages_most()), (RuleIndex::default(), 5000));
        assert_eq!(table.history_age_most(), Duration::from_secs(7200));
    }

    #[test]
    fn rules_are_checked_at_the_start() {
        let error = |config: Config| config.check().unwrap_err().to_string();
        config(&["a:slow=1s", "a*:slow=1s"]).check().unwrap();
        assert!(error(config(&["a*:slow=1s", "a*:say=api"])).contains("two rules for rooms a*; one is allowed"));
        let mut config = config(&["a*:slow=1s"]);
        config.room_rules[0].history_messages = Some(10_000_001);
        assert!(error(config.clone()).contains("room a*: "), "{}", error(config.clone()));
        assert!(error(config.clone()).contains("history is 10000001; 0 to 10000000 are allowed"));
        config.room_rules = (0..257).map(|i| format!("r{i}:slow=1s").parse().unwrap()).collect();
        assert!(error(config).contains("there are 257 rules for rooms; 256 are allowed"));
    }
}
